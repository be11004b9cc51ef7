/** A device of the host behind an endpoint: when the model has it, and when its files are closed. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import {
  type HostDeviceModel,
  type HostDeviceOpener,
  HostEndpoint,
  ServedEndpoints,
} from "../../../device/endpoint/mod.ts";
import { hostModel } from "../../../device/command/host_model.ts";
import { descriptorsClosed, PollSet, UnixListener, UnixStream } from "../../../device/host/mod.ts";
import { descriptorName } from "../../../device/host/file_status.ts";
import { attachRequest, detachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { Log } from "../../../device/log.ts";
import { HostDevices } from "../../../device/vfio/mod.ts";
import { EBUSY } from "../../../iommufd/mod.ts";
import { EOPNOTSUPP, OK } from "../../../pagetable/mod.ts";
import { until } from "../../until.ts";
import { withFolder } from "../command/test_folder.ts";
import { descriptorCount } from "../host/host_state.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { FakeHost } from "../vfio/fake_host.ts";
import { createRam } from "../vfio/kernel_machine.ts";

const ENDPOINT = 0x20;
const DOMAIN = 3;
/** First frame of guest memory in a file. */
const RAM_FRAME = 0x1000;

/** A guest, a host with a device, and the endpoints that are served. */
class World implements AsyncDisposable {
  readonly host = new FakeHost();
  readonly guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
  readonly lines: string[] = [];
  readonly log = new Log("info", (line) => this.lines.push(line.replace("viommu: ", "")));
  readonly opener = new HostDevices(this.log, this.host.places);
  readonly endpoints = new ServedEndpoints(this.log);
  readonly #poll = new PollSet();
  readonly #ram = createRam(RAM_FRAME, 16);

  constructor() {
    this.guest.addMemory(this.#ram.region);
  }

  /** Adds the device of the host, by its files. */
  add(model: HostDeviceModel = hostModel(this.guest.device)): HostEndpoint {
    const { opener, log, host } = this;
    const source = opener.open(ENDPOINT, { iommufd: host.iommufd(), device: host.file(0) });
    const { frontEnd } = this.endpoints;
    const added = new HostEndpoint({ endpoint: ENDPOINT, source, opener, model, log, frontEnd });
    this.endpoints.add(added);
    return added;
  }

  /** One pass of the loop. */
  pass(): void {
    this.#poll.clear();
    this.endpoints.addTo(this.#poll);
    this.#poll.poll(0);
    this.endpoints.look(this.#poll);
    this.endpoints.serve();
  }

  /** Removes the endpoint; waits until it is gone. Returns whether it was drained. */
  async remove(): Promise<boolean> {
    const removal = this.endpoints.remove(ENDPOINT, 60_000)!;
    await until(() => {
      this.pass();
      return removal.isDone;
    }, "it is removed");
    return removal.isDrained;
  }

  /** Where the device leads at a page. */
  reaches(page: number): boolean {
    return this.host.devices[0].device.areaAt(page) !== undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.endpoints.close();
    this.guest.close();
    this.#poll.close();
    this.#ram[Symbol.dispose]();
    this.host[Symbol.dispose]();
    await descriptorsClosed();
  }
}

/** Attaches the endpoint, and maps page 0x500. */
function attach({ guest }: World): readonly number[] {
  const page = { domain: DOMAIN, virtStart: 0x500000n, virtEnd: 0x500fffn, physStart: 0x1003000n };
  return [
    guest.request(attachRequest(DOMAIN, ENDPOINT), 4).bytes[0],
    guest.request(mapRequest({ ...page, flags: 3 }), 4).bytes[0],
  ];
}

Deno.test("what the guest maps reaches the device, until it is removed and its files are closed", async () => {
  await using world = new World();
  world.host.bind();
  const before = descriptorCount();
  const added = world.add();
  assertEquals([added.connected, added.kind], [true, "vfio"]);
  assertEquals(added.hostDevice, {
    address: "0000:01:00.0",
    group: 7,
    siblings: [],
    bound: true,
    attachedTo: "blocked",
  });
  assertEquals(attach(world), [0, 0]);
  assertEquals([world.reaches(0x500), world.reaches(0x501)], [true, false]);
  assertEquals(added.hostDevice?.attachedTo, "domain");
  assertEquals(await world.remove(), true);
  assertEquals(world.reaches(0x500), false);
  assertEquals([added.hostDevice, added.connected, world.endpoints.all], [undefined, false, []]);
  await descriptorsClosed();
  assertEquals(descriptorCount(), before);
  // The endpoint itself is as it was, for the guest.
  assertEquals(world.guest.request(detachRequest(DOMAIN, ENDPOINT), 4).bytes[0], 0);
});

Deno.test("a device that is added again gets what its endpoint is attached to", async () => {
  await using world = new World();
  world.host.bind();
  world.add();
  attach(world);
  await world.remove();
  world.add();
  assertEquals(world.reaches(0x500), true);
});

Deno.test("a device that may have been reset is looked at until the model says otherwise", async () => {
  await using world = new World();
  let looks = 0;
  const model: HostDeviceModel = {
    add: () => OK,
    remove: () => OK,
    get mayBeReset() {
      return looks < 2;
    },
    letFirmwarePass: () => looks++,
    placeOf: () => "domain",
    domainOf: () => undefined,
  };
  const added = world.add(model);
  assertEquals(added.mustPoll, true);
  await until(() => {
    world.pass();
    return !added.mustPoll;
  }, "it was looked at twice");
  for (let i = 0; i < 3; i++) world.pass();
  assertEquals(looks, 2);
});

Deno.test("while the model is busy, coming and going are tried again", async () => {
  await using world = new World();
  let busy = 3;
  const answers: string[] = [];
  const model: HostDeviceModel = {
    mayBeReset: false,
    letFirmwarePass: () => {},
    add: () => (answers.push("add"), --busy > 0 ? EBUSY : OK),
    remove: () => (answers.push("remove"), --busy > 0 ? EBUSY : OK),
    placeOf: () => "vmm",
    domainOf: () => undefined,
  };
  const added = world.add(model);
  assertEquals([added.mustPoll, added.hostDevice?.attachedTo], [true, "unknown"]);
  for (let i = 0; i < 4; i++) world.pass();
  assertEquals(answers, ["add", "add", "add"]);
  assertEquals([added.mustPoll, added.hostDevice?.attachedTo], [false, "vmm"]);
  busy = 3;
  assertEquals(await world.remove(), true);
  assertEquals(answers.slice(3), ["remove", "remove", "remove"]);
});

Deno.test("an endpoint that is cut while the model is busy keeps its files until the model lets go", async () => {
  await using world = new World();
  const before = descriptorCount();
  let isBusy = true;
  const model: HostDeviceModel = {
    mayBeReset: false,
    letFirmwarePass: () => {},
    add: () => OK,
    remove: () => isBusy ? EBUSY : OK,
    placeOf: () => "blocked",
    domainOf: () => undefined,
  };
  world.add(model);
  world.endpoints.close();
  await descriptorsClosed();
  assertEquals(descriptorCount(), before + 2);
  isBusy = false;
  await until(() => descriptorCount() === before, "its files are closed");
});

Deno.test("a device that the model refuses is closed, and the reason is one line", async () => {
  await using world = new World();
  const before = descriptorCount();
  const model = { ...hostModel(world.guest.device), add: () => EOPNOTSUPP };
  const { message } = assertThrows(() => world.add(model), RangeError);
  assertEquals(
    message,
    "Cannot pass device 0000:01:00.0 through as endpoint 00:04.0: another device of its IOMMU group is attached to another " +
      "domain, or the host refuses (the log says which)",
  );
  await descriptorsClosed();
  assertEquals(descriptorCount(), before);
});

Deno.test("a device that the model refuses is tried again when its endpoint is attached elsewhere, or after a while", async () => {
  await using world = new World();
  await withFrontEnd(world, async () => {
    let domain = 1;
    let attempts = 0;
    const model: HostDeviceModel = {
      mayBeReset: false,
      letFirmwarePass: () => {},
      add: () => (attempts++, EOPNOTSUPP),
      remove: () => OK,
      placeOf: () => undefined,
      domainOf: () => domain,
    };
    world.add(model);
    world.host.bind();
    const start = performance.now();
    while (attempts < 1) world.pass();
    for (let i = 0; i < 50; i++) world.pass();
    assert(attempts <= 1 + (performance.now() - start) / 1000, String(attempts));
    domain = 2;
    const before = attempts;
    world.pass();
    assertEquals(attempts, before + 1);
    await until(() => {
      world.pass();
      return attempts === before + 2;
    }, "it is tried again");
  });
});

Deno.test("with a VMM connected, the model gets a device once it is bound, and a guest that uses it before is told of", async () => {
  await using world = new World();
  await withFrontEnd(world, () => {
    const added = world.add();
    world.pass();
    assertEquals(added.hostDevice?.attachedTo, "unknown");
    attach(world);
    world.pass();
    assertEquals(
      world.lines.at(-1),
      "warn: The guest uses endpoint 00:04.0, and no VMM has bound device 0000:01:00.0: " +
        "if the VMM says EPERM, the host does not isolate interrupts (interrupt remapping)",
    );
    world.host.bind();
    world.pass();
    assertEquals([added.hostDevice?.attachedTo, world.reaches(0x500)], ["domain", true]);
    return Promise.resolve();
  });
});

Deno.test("the end of the VMM's connection keeps the device, the end of its process gives it back", async () => {
  await using world = new World();
  world.host.bind();
  const before = descriptorCount();
  const added = world.add();
  await withFolder(async (folder) => {
    using listener = UnixListener.listen(`${folder}/s`);
    await using vmm = await ConnectedProcess.start(`${folder}/s`);
    const stream = listener.accept()!;
    world.endpoints.frontEndChanged(stream);
    world.pass();
    stream.close();
    world.endpoints.frontEndChanged(undefined);
    for (let i = 0; i < 3; i++) world.pass();
    assertEquals(added.hostDevice?.bound, true);
    await vmm.end();
    await until(() => {
      world.pass();
      return added.hostDevice === undefined;
    }, "the device is given back");
    assertEquals(
      world.lines.at(-1),
      "info: The VMM has ended: device 0000:01:00.0 of endpoint 00:04.0 is given back to the host",
    );
  });
  assertEquals(world.reaches(0), false);
  await descriptorsClosed();
  await until(() => descriptorCount() === before, "everything is closed");
});

Deno.test("a device of the VMM is waited for, taken when it is bound, and waited for again in the next VMM", async () => {
  await using world = new World();
  // What the VMM's files are is looked at by a kernel; here it is files of those names.
  const { host, log } = world;
  const opened: string[] = [];
  const opener: HostDeviceOpener = {
    problemOf: () => undefined,
    open(endpoint, files) {
      opened.push(descriptorName(files.device.number).split("/").at(-1)!);
      files.iommufd.close();
      files.device.close();
      return world.opener.open(endpoint, { iommufd: host.iommufd(), device: host.file(0) });
    },
  };
  const model = hostModel(world.guest.device);
  const source = { wanted: "vfio3" };
  const added = new HostEndpoint({
    endpoint: ENDPOINT,
    source,
    opener,
    model,
    log,
    frontEnd: undefined,
  });
  world.endpoints.add(added);
  await withFolder(async (folder) => {
    using listener = UnixListener.listen(`${folder}/s`);
    await Deno.mkdir(`${folder}/dev/vfio/devices`, { recursive: true });
    for (const name of ["iommu", "vfio/devices/vfio3"]) {
      await Deno.writeTextFile(`${folder}/dev/${name}`, "");
    }
    for (const _ of [1, 2]) {
      opened.length = 0;
      await using vmm = await ConnectedProcess.start(`${folder}/s`);
      const stream = listener.accept()!;
      world.endpoints.frontEndChanged(stream);
      world.pass();
      assertMatch(
        world.lines.at(-1)!,
        /^info: Endpoint 00:04\.0 waits for process \d+ to open \/dev\/iommu and vfio3$/,
      );
      await vmm.open(`${folder}/dev/iommu`, `${folder}/dev/vfio/devices/vfio3`);
      await until(() => {
        world.pass();
        return opened.length > 0;
      }, "the files are found");
      // Not bound yet.
      assertEquals(added.hostDevice, undefined);
      host.bind();
      await until(() => {
        world.pass();
        return added.hostDevice !== undefined;
      }, "the device is taken");
      assertEquals(added.hostDevice?.attachedTo, "blocked");
      assertEquals(new Set(opened), new Set(["vfio3"]));
      stream.close();
      world.endpoints.frontEndChanged(undefined);
      await vmm.end();
      await until(() => {
        world.pass();
        return added.hostDevice === undefined;
      }, "the device is given back");
      host.unbind();
    }
  });
});

/** Does something while a front end of the IOMMU is connected, from this process. */
async function withFrontEnd(world: World, action: () => Promise<void>): Promise<void> {
  const [ours, theirs] = UnixStream.pair();
  world.endpoints.frontEndChanged(ours);
  try {
    await action();
  } finally {
    world.endpoints.frontEndChanged(undefined);
    ours.close();
    theirs.close();
  }
}

/** A process with a connection to a socket, that opens files when it is told to. */
class ConnectedProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: ReadableStreamDefaultReader<string>;
  #hasEnded = false;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#input = child.stdin.getWriter();
    this.#output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  static async start(path: string): Promise<ConnectedProcess> {
    const program = `
      const connection = await Deno.connect({ transport: "unix", path: Deno.args[0] });
      console.log("connected");
      const files = [];
      for await (const piece of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
        for (const path of piece.trim().split(" ")) files.push(await Deno.open(path, { read: true, write: true }));
        console.log("open");
      }
      connection.close();`;
    const file = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(file, program);
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-check", "--no-config", "--allow-all", file, path],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const process = new ConnectedProcess(child);
    await process.#output.read();
    await Deno.remove(file);
    return process;
  }

  async open(...paths: readonly string[]): Promise<void> {
    await this.#input.write(new TextEncoder().encode(`${paths.join(" ")}\n`));
    await this.#output.read();
  }

  async end(): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    await this.#input.close();
    await this.#output.cancel();
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}
