/**
 * Debian's unmodified virtiofsd, qemu-storage-daemon, passt and vhost-device-vsock behind our IOMMU: they do not support
 * one, and none of them has a page of the guest.
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { until } from "../until.ts";
import {
  type BackEnds,
  checkInOrder,
  findBackEnds,
  type Lab,
  labTests,
  LineProcess,
  prepareLab,
} from "./lab/mod.ts";
import {
  checkConfined,
  checkDisk,
  checkNetwork,
  checkSharedFolder,
  checkVsock,
  random,
  relayOf,
} from "./relay_checks.ts";
import { KILLS, killUnderLoad } from "./relay_kills.ts";
import {
  bootRelays,
  DISK,
  NAMES,
  places,
  type RelayedName,
  type RelayMachineOptions,
  serveRelays,
  startBackEnd,
} from "./relay_machine.ts";
import { DRIVERS } from "./endpoint_machine.ts";
import { exists } from "./lab/cache.ts";
import { serveCommand, ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";
import { BELOW_END_OF_RAM, bootTranslated } from "./translated_machine.ts";

/** The entropy device in the guest. */
const RNG_ADDRESS = "0000:00:03.0";
const RNG = 0x18;

/**
 * Reads of 4 KiB and of 1 MiB in one run. A guest that waits for its IOMMU spins: on a machine with many more busy
 * processes than processors a read has taken 90 ms, and a run must be far from the time limit of a command even then.
 */
const SMALL_READS = 400;
const LARGE_READS = 16;
/** Runs, of which the fastest counts. */
const RUNS = 6;

/** What the tests need. */
interface Prepared {
  readonly lab: Lab;
  readonly backEnds: BackEnds;
}

/** The back ends of a test, by name. */
class BackEndProcesses implements AsyncDisposable {
  readonly #programs: BackEnds;
  readonly #folder: string;
  readonly #processes = new Map<RelayedName, LineProcess>();

  constructor(programs: BackEnds, folder: string) {
    this.#programs = programs;
    this.#folder = folder;
  }

  /** Starts one; it listens when this returns. */
  async start(name: RelayedName): Promise<void> {
    this.#processes.set(name, await startBackEnd(this.#programs, name, this.#folder));
  }

  /** The process id of one. */
  pid(name: RelayedName): number {
    return this.#processes.get(name)!.pid;
  }

  /** Kills one; returns when it is gone. */
  async kill(name: RelayedName): Promise<void> {
    const process = this.#processes.get(name)!;
    process.signal("SIGKILL");
    await process.status(10_000);
    await process[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const process of this.#processes.values()) await process[Symbol.asyncDispose]();
  }
}

/** Prints the relays' counters of what went through; those of what went wrong must be 0. */
async function checkCounters(device: ServedDevice): Promise<void> {
  const state = await device.state();
  assertEquals(state.faults, { reported: 0, dropped: 0 });
  for (const name of NAMES) {
    const relay = relayOf(state, name);
    console.error(
      `relay ${name}: ${relay.chains} chains, ${relay.toBackEnd} bytes to the back end, ` +
        `${relay.toGuest} to the guest, ${relay.medianMicroseconds} us in the back end (median; ` +
        `p99 ${relay.p99Microseconds})`,
    );
    assertEquals(
      [relay.lateDropped, relay.unreadable, relay.tooLong, relay.violations, relay.timeouts],
      [0, 0, 0, 0, 0],
      name,
    );
  }
}

/** Uses all four devices and verifies the data and the back ends' memory; then kills one back end. */
async function driveAll(
  { lab, backEnds }: Prepared,
  context: Deno.TestContext,
  options: RelayMachineOptions,
): Promise<void> {
  await using folder = await temporaryFolder();
  const { path } = folder;
  const { disk, shared } = places(path);
  await Deno.writeFile(disk, new Uint8Array(0));
  await Deno.truncate(disk, DISK);
  await Deno.mkdir(shared);
  await using processes = new BackEndProcesses(backEnds, path);
  for (const name of NAMES) await processes.start(name);
  await using device = await serveRelays(path);
  await using guest = await bootRelays(lab, path, device, options);
  await checkInOrder(context, {
    "qemu-storage-daemon: a file system is made, and the image has all of it": () =>
      checkDisk(guest, disk),
    "virtiofsd: guest and host have the same files": () => checkSharedFolder(guest, shared),
    "passt: a download over HTTP": () => checkNetwork(guest),
    "vhost-device-vsock: bytes there and back": () => checkVsock(guest, path),
    "No back end has a page of the guest": async () => {
      for (const name of NAMES) await checkConfined(name, processes.pid(name));
    },
    "There is no fault and no violation": () => checkCounters(device),
    [`The storage daemon is killed ${KILLS} times under load, and the guest notices nothing`]: () =>
      killUnderLoad(guest, device, disk, async () => {
        await processes.kill("blk");
        await processes.start("blk");
      }),
  });
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

/** A program in the guest unmaps a buffer while the back end that has it is stopped; then the back end goes on. */
async function dropLateData({ lab }: Prepared): Promise<void> {
  await using folder = await temporaryFolder();
  const [listen, backEnd] = [`${folder.path}/rng.sock`, `${folder.path}/rng-backend.sock`];
  // The relay's back end is an entropy device that another `serve` has.
  await using process = new LineProcess({
    title: "rng",
    command: serveCommand(
      ...["--socket-path", `${folder.path}/unused.sock`],
      ...["--endpoint-device", `rng:00:03.0,socket=${backEnd}`],
    ),
  });
  await until(() => exists(backEnd), "the back end listens", 60_000);
  await using device = await ServedDevice.start(folder.path, [
    ...BELOW_END_OF_RAM,
    ...["--endpoint-relay", `00:03.0,listen=${listen},backend=${backEnd}`],
  ]);
  await using guest = await bootTranslated(lab, folder.path, device, {
    modules: DRIVERS,
    programs: ["vfio_rng"],
    strict: true,
    devices: [
      ...["-chardev", `socket,id=rng,path=${listen}`],
      "-device",
      "vhost-user-test-device-pci,chardev=rng,virtio-id=4,num_vqs=1,vq_size=64,config_size=0," +
      "iommu_platform=on,addr=3",
    ],
  });
  const path = `/sys/bus/pci/devices/${RNG_ADDRESS}`;
  await guest.run(`[ ! -e ${path}/driver ] || echo ${RNG_ADDRESS} > ${path}/driver/unbind`);
  await guest.run(`echo vfio-pci > ${path}/driver_override`);
  await guest.run(`echo ${RNG_ADDRESS} > /sys/bus/pci/drivers_probe; dmesg -c > /dev/null`);
  async function said(word: string): Promise<readonly string[]> {
    const lines = await guest.run(
      `for i in $(seq 600); do grep ${word} /tmp/out && break; sleep 0.1; done; cat /tmp/out`,
    );
    const line = lines.find((each) => each.startsWith(`${word} `));
    assert(line !== undefined, `${word}: ${lines.join("; ")}`);
    return line.split(" ").slice(1);
  }
  await guest.run(`/bin/vfio_rng ${RNG_ADDRESS} late > /tmp/out 2>&1 &`);
  await said("bytes");
  process.signal("SIGSTOP");
  await guest.run("touch /tmp/ask");
  await said("asked");
  await guest.run("touch /tmp/unmap");
  await said("taken");
  process.signal("SIGCONT");
  assertEquals(await said("late"), ["0", "1"], "nothing was written, and the queue went on");
  const dmesg = (await guest.run("dmesg")).join("\n");
  assert(/page fault from EP 24 at 0x10100064 \[W\]/.test(dmesg), dmesg);
  const state = await device.state();
  assertEquals(relayOf(state, RNG).lateDropped, 1);
  assertEquals(state.requests.UNMAP.OK > 0, true);
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

/**
 * Measures reads through the relay, from the same back end without an IOMMU, and from our own disk: with a strict guest,
 * and with one whose drivers use its memory untranslated, which costs the guest nothing but the relay.
 */
async function compareSpeed({ lab, backEnds }: Prepared): Promise<void> {
  for (const passthrough of [false, true]) await compareDisks(lab, backEnds, passthrough);
}

/** Measures reads from the three disks of a guest, and prints the rates beside each other. */
async function compareDisks(lab: Lab, backEnds: BackEnds, passthrough: boolean): Promise<void> {
  await using folder = await temporaryFolder();
  await using direct = await temporaryFolder();
  for (const each of [folder, direct]) {
    await Deno.writeFile(places(each.path).disk, random(DISK));
  }
  await using _relayed = await startBackEnd(backEnds, "blk", folder.path);
  await using _direct = await startBackEnd(backEnds, "blk", direct.path);
  const own = `${folder.path}/own.sock`;
  await using device = await serveRelays(folder.path, ["blk"], [
    "--endpoint-device",
    `blk:00:06.0,socket=${own},file=${places(folder.path).disk},readonly`,
  ]);
  const disk = "virtio-id=2,num_vqs=1,vq_size=128,config_size=60";
  await using guest = await bootRelays(lab, folder.path, device, {
    names: ["blk"],
    passthrough,
    more: [
      ...["-chardev", `socket,id=direct,path=${places(direct.path).backEnd("blk")}`],
      ...["-device", `vhost-user-test-device-pci,chardev=direct,${disk},addr=5`],
      ...["-chardev", `socket,id=own,path=${own}`],
      ...["-device", `vhost-user-test-device-pci,chardev=own,${disk},iommu_platform=on,addr=6`],
    ],
  });
  /** Seconds for reads of a size, without the page cache. */
  async function seconds(name: string, size: string, count: number): Promise<number> {
    const lines = await guest.run(
      "echo $EPOCHREALTIME; " +
        `dd if=/dev/${name} of=/dev/null bs=${size} count=${count} iflag=direct 2>/dev/null; ` +
        "echo $EPOCHREALTIME",
    );
    return Number(lines[1]) - Number(lines[0]);
  }
  const best: { small: number; large: number }[] = [];
  for (const name of ["vda", "vdb", "vdc"]) {
    const times = { small: Infinity, large: Infinity };
    for (let i = 0; i < RUNS; i++) {
      times.small = Math.min(times.small, await seconds(name, "4k", SMALL_READS));
      times.large = Math.min(times.large, await seconds(name, "1M", LARGE_READS));
    }
    best.push(times);
  }
  const [relay, base, ours] = best;
  console.error(
    `relay, ${passthrough ? "passthrough" : "strict"} guest: 4 KiB reads a second: relay ` +
      `${rate(SMALL_READS, relay.small)}, without IOMMU ${rate(SMALL_READS, base.small)} ` +
      `(${ratio(base.small, relay.small)}), our own disk ${rate(SMALL_READS, ours.small)}; MiB a ` +
      `second in 1 MiB: relay ${rate(LARGE_READS, relay.large)}, without IOMMU ` +
      `${rate(LARGE_READS, base.large)} (${ratio(base.large, relay.large)}), our own disk ` +
      `${rate(LARGE_READS, ours.large)}`,
  );
  assertEquals((await device.state()).faults, { reported: 0, dropped: 0 });
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

function rate(count: number, seconds: number): string {
  return String(Math.round(count / seconds));
}

function ratio(base: number, other: number): string {
  return `ratio ${(base / other).toFixed(2)}`;
}

await labTests(async () => ({ lab: await prepareLab("x86_64"), backEnds: await findBackEnds() }), {
  "Four unmodified back ends serve a strict guest and have none of its memory": (
    prepared,
    context,
  ) => driveAll(prepared, context, { strict: true }),
  ...(isLong
    ? {
      "Data that a back end writes late does not arrive, and a fault is reported": dropLateData,
      "The same four with a lazy guest": (prepared: Prepared, context: Deno.TestContext) =>
        driveAll(prepared, context, { strict: false }),
      "Reads through the relay, without IOMMU, and from our own disk": compareSpeed,
    }
    : {}),
});
