/** The devices of a guest: taken over by number, described from sysfs, and given back. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { Descriptor, SharedMemory } from "../../../device/host/mod.ts";
import { O_RDONLY } from "../../../device/host/constants.ts";
import { cString, libc } from "../../../device/host/libc.ts";
import { RESV_MEM_MSI, RESV_MEM_RESERVED } from "../../../device/iommu/mod.ts";
import { Log } from "../../../device/log.ts";
import { type PassedDeviceOptions, Passthrough } from "../../../device/vfio/mod.ts";
import { ENOENT, OK, READ } from "../../../pagetable/mod.ts";
import { descriptorCount } from "../host/host_state.ts";
import { FakeKernel, VTD } from "./fake_iommufd.ts";
import { createRam } from "./kernel_machine.ts";

/** Character devices that every host has, in place of `/dev/iommu` and of devices. */
const STANDINS = { "1:3": "/dev/null", "1:5": "/dev/zero", "1:7": "/dev/full" } as const;
const MSI = "0x00000000fee00000 0x00000000feefffff msi\n";

/** A device in the sysfs of a test. */
interface SysfsDevice {
  readonly group: number;
  readonly reserved?: string;
  readonly class?: string;
}

/** Makes a sysfs with PCI devices and the two kinds of character devices. Its path. */
function createSysfs(
  devices: Readonly<Record<string, SysfsDevice>>,
  characters: Readonly<Record<string, string>>,
): string {
  const root = Deno.makeTempDirSync();
  Deno.mkdirSync(`${root}/devices/virtual/misc/iommu`, { recursive: true });
  Deno.mkdirSync(`${root}/dev/char`, { recursive: true });
  for (
    const [name, { group, reserved = MSI, class: kind = "0x020000" }] of Object.entries(devices)
  ) {
    const folder = `${root}/devices/pci0000:00/${name}`;
    const groupFolder = `${root}/kernel/iommu_groups/${group}`;
    Deno.mkdirSync(`${folder}/vfio-dev/vfio${Number(name.slice(8, 10))}`, { recursive: true });
    Deno.mkdirSync(`${groupFolder}/devices`, { recursive: true });
    Deno.writeTextFileSync(`${groupFolder}/reserved_regions`, reserved);
    Deno.writeTextFileSync(`${folder}/class`, `${kind}\n`);
    Deno.symlinkSync(`../../../kernel/iommu_groups/${group}`, `${folder}/iommu_group`);
    Deno.symlinkSync(`../../../../devices/pci0000:00/${name}`, `${groupFolder}/devices/${name}`);
  }
  for (const [number, target] of Object.entries(characters)) {
    Deno.symlinkSync(`../../devices/${target}`, `${root}/dev/char/${number}`);
  }
  return root;
}

/** Opens a stand-in as whoever starts the program does. */
function open(path: string): number {
  const number = libc().open(cString(path), O_RDONLY, 0);
  assert(number > 2);
  return number;
}

/** A host with a `/dev/iommu` (1:3), and two devices (1:5 and 1:7). */
class TestHost implements Disposable {
  readonly kernel = new FakeKernel();
  readonly sysfs: string;
  readonly lines: string[] = [];
  readonly iommufd = open(STANDINS["1:3"]);
  readonly first = open(STANDINS["1:5"]);
  readonly second = open(STANDINS["1:7"]);
  readonly #before = descriptorCount() - 3;

  constructor(devices: Readonly<Record<string, SysfsDevice>> = {
    "0000:00:04.0": { group: 3 },
    "0000:00:05.0": { group: 4 },
  }) {
    this.sysfs = createSysfs(devices, {
      "1:3": "virtual/misc/iommu",
      "1:5": "pci0000:00/0000:00:04.0/vfio-dev/vfio4",
      "1:7": "pci0000:00/0000:00:05.0/vfio-dev/vfio5",
    });
  }

  open(options: readonly PassedDeviceOptions[]): Passthrough {
    const log = new Log("info", (line) => this.lines.push(line));
    return Passthrough.open(options, log, { calls: this.kernel, sysfs: this.sysfs });
  }

  /** Both devices, as endpoints 00:04.0 and 00:05.0. */
  openBoth(): Passthrough {
    const { iommufd } = this;
    return this.open([
      { endpoint: 0x20, device: this.first, iommufd },
      { endpoint: 0x28, device: this.second, iommufd },
    ]);
  }

  /** Binds and attaches both as a VMM does, which has the same open files. */
  bindBoth() {
    const owned = (number: number) => Object.assign(new Descriptor(number), { close() {} });
    const iommufd = this.kernel.openIommufd(owned(this.iommufd));
    const fakes = [this.first, this.second].map((number) =>
      this.kernel.openDevice({ file: owned(number) })
    );
    const ioas = this.kernel.bind(fakes[0], iommufd);
    this.kernel.bind(fakes[1], iommufd, ioas);
    return fakes;
  }

  /** Removes sysfs. All descriptors are closed by now. */
  [Symbol.dispose](): void {
    SharedMemory.keepsFiles = false;
    this.kernel[Symbol.dispose]();
    Deno.removeSync(this.sysfs, { recursive: true });
    assertEquals(descriptorCount(), this.#before);
  }
}

Deno.test("devices are taken over by number, and one /dev/iommu may be named by several", () => {
  using host = new TestHost();
  const passthrough = host.openBoth();
  assertEquals(passthrough.devices.map(({ endpoint, group }) => [endpoint, group]), [
    [0x20, 3],
    [0x28, 4],
  ]);
  const [one, other] = passthrough.devices;
  assertEquals(one.iommu, other.iommu);
  assertEquals(host.lines, [
    "viommu: info: Endpoint 00:04.0 is device 0000:00:04.0 of the host, IOMMU group 3",
    "viommu: info: Endpoint 00:05.0 is device 0000:00:05.0 of the host, IOMMU group 4",
  ]);
  assertEquals(SharedMemory.keepsFiles, true);
  passthrough.release(true);
});

Deno.test("without devices nothing is kept open", () => {
  using host = new TestHost();
  host.open([]).release(true);
  assertEquals(SharedMemory.keepsFiles, false);
  for (const number of [host.iommufd, host.first, host.second]) libc().close(number);
});

Deno.test("numbers that are not what they should be are refused, and what was taken is closed", () => {
  using host = new TestHost();
  const { iommufd, first, second } = host;
  const copies = Array.from({ length: 4 }, () => [open("/dev/null"), open("/dev/zero")]);
  function refused(text: string, ...options: PassedDeviceOptions[]): void {
    assertThrows(() => host.open(options), RangeError, text);
  }
  refused("Cannot use descriptor 9999 as /dev/iommu: EBADF", {
    endpoint: 0x20,
    device: first,
    iommufd: 9999,
  });
  refused("as /dev/iommu: it is /dev/full, device", {
    endpoint: 0x20,
    device: first,
    iommufd: second,
  });
  const [[a, b], [c, d], [e, f], [g, h]] = copies;
  refused(`as /dev/vfio/devices/vfioN: it is /dev/null, device`, {
    endpoint: 0x20,
    device: iommufd,
    iommufd: a,
  });
  refused(
    "Cannot pass two devices through as endpoint 00:04.0",
    { endpoint: 0x20, device: b, iommufd: c },
    { endpoint: 0x20, device: second, iommufd: c },
  );
  refused(
    `Cannot use descriptor ${d} for endpoint 00:05.0: it is used already`,
    { endpoint: 0x20, device: d, iommufd: e },
    { endpoint: 0x28, device: d, iommufd: e },
  );
  refused(
    `Cannot use descriptor ${h} for endpoint 00:05.0: it is the device of descriptor ${f}`,
    { endpoint: 0x20, device: f, iommufd: g },
    { endpoint: 0x28, device: h, iommufd: g },
  );
  for (const number of [iommufd, first, second]) libc().close(number);
});

Deno.test("a device without an IOMMU group is refused", () => {
  using host = new TestHost();
  Deno.removeSync(`${host.sysfs}/devices/pci0000:00/0000:00:05.0/iommu_group`);
  assertThrows(() => host.openBoth(), RangeError, "0000:00:05.0/iommu_group: ENOENT");
});

Deno.test("the log warns of devices that share a group, ours or not; bridges do not count", () => {
  using host = new TestHost({
    "0000:00:03.0": { group: 3, class: "0x060400" },
    "0000:00:04.0": { group: 3 },
    "0000:00:05.0": { group: 3 },
    "0000:00:06.0": { group: 3 },
  });
  const passthrough = host.openBoth();
  assertEquals(host.lines.slice(2), [
    "viommu: warn: Endpoints 00:04.0, 00:05.0 are in IOMMU group 3 of the host: the guest can attach them to one domain only",
    "viommu: warn: 0000:00:06.0 in IOMMU group 3 of the host can access whatever endpoint 00:04.0, 00:05.0 can, and the other way round",
  ]);
  passthrough.release(true);
});

Deno.test("each endpoint has the reserved ranges of its own device", () => {
  using host = new TestHost({
    "0000:00:04.0": { group: 3 },
    "0000:00:05.0": { group: 4, reserved: `0x1000 0x2fff direct\n${MSI}` },
  });
  const passthrough = host.openBoth();
  const msi = { firstPage: 0xfee00, lastPage: 0xfeeff, subtype: RESV_MEM_MSI };
  const direct = { firstPage: 1, lastPage: 2, subtype: RESV_MEM_RESERVED };
  assertEquals(passthrough.reserved, [
    { ...msi, firstEndpoint: 0x20, lastEndpoint: 0x20 },
    { ...direct, firstEndpoint: 0x28, lastEndpoint: 0x28 },
    { ...msi, firstEndpoint: 0x28, lastEndpoint: 0x28 },
  ]);
  passthrough.release(true);
});

Deno.test("the aperture is known once the VMM has bound the devices", () => {
  using host = new TestHost();
  const passthrough = host.openBoth();
  assertEquals(passthrough.aperture(), ENOENT);
  host.bindBoth();
  assertEquals(passthrough.aperture(), { firstPage: 0, lastPage: VTD.last, leafOrder: 0 });
  passthrough.release(true);
});

Deno.test("when the VMM is gone every device is stopped at once, and bypass is made anew for the next", () => {
  using host = new TestHost();
  const fakes = host.bindBoth();
  const passthrough = host.openBoth();
  const [one, other] = passthrough.devices;
  using ram = createRam(0x10, 4);
  one.iommu.memoryAdded(ram.region);
  const table = one.iommu.createTable();
  assert(typeof table !== "number");
  assertEquals(table.map(0, 0, 0x10, READ), OK);
  assertEquals(one.attach(table), OK);
  // The other one is where the VMM has attached it.
  passthrough.release(false);
  assertEquals(fakes.map(({ isAttached }) => isAttached), [false, false]);
  assertEquals(host.kernel.objects, ["device", "device", "ioas", "ioas"]);
  assertEquals(one.attach(table), OK);
  assertEquals(other.bypass(), OK);
  assertEquals(fakes[1].areaAt(0x10)?.first, 0x10);
  passthrough.release(true);
  assertEquals(fakes.map(({ isAttached }) => isAttached), [false, false]);
  assertEquals(host.kernel.objects, ["device", "device", "ioas"]);
  // Nothing is asked of the kernel any more, and that is no error.
  const { length } = host.lines;
  const calls = host.kernel.made.length;
  table.destroy();
  one.iommu.memoryRemoved(ram.region);
  assertEquals(host.kernel.made.length, calls);
  assertEquals(host.lines.length, length);
});

Deno.test("a device that is let go is stopped, and its file is closed", () => {
  using host = new TestHost();
  const fakes = host.bindBoth();
  const passthrough = host.openBoth();
  assertEquals(passthrough.releaseDevice(0x30), false);
  assertEquals(passthrough.releaseDevice(0x20), true);
  assertEquals(fakes.map(({ isAttached }) => isAttached), [false, true]);
  assertEquals(libc().fcntl(host.first, 1, 0), -1);
  const table = passthrough.devices[0].iommu.createTable();
  assert(typeof table !== "number");
  assertEquals(passthrough.devices[0].attach(table), 9);
  assertStringIncludes(host.lines.at(-1)!, "refuses to attach endpoint 00:04.0: EBADF");
  passthrough.release(true);
});
