/**
 * Devices behind our IOMMU are plugged into a running Linux guest and taken out of it, under load: each is added to
 * `serve` before and removed from it after, and nothing of it is left.
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { until } from "../until.ts";
import { DRIVERS } from "./endpoint_machine.ts";
import { type Guest, type Lab, labTests, LineProcess, Monitor, prepareLab } from "./lab/mod.ts";
import { serveCommand, ServedDevice } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";
import { BELOW_END_OF_RAM, bootTranslated } from "./translated_machine.ts";

/** Times that a device is plugged and unplugged; the same number for each kind. */
const ROUNDS = isLong ? 21 : 3;

/** The endpoint of the port's slot: the first bus behind the first bridge. */
const PLUGGED = 0x100;
const PLUGGED_ADDRESS = "0000:01:00.0";
/** Bytes of a disk. */
const DISK = 16 << 20;
/** Milliseconds for a guest to release a device. */
const PATIENCE = 120_000;

/** A kind of device: the options of `serve` and of QEMU, and commands of the guest. */
interface Kind {
  readonly option: (folder: string) => readonly [name: string, value: string];
  readonly fields: string;
  /** Commands that use it and verify the data. */
  readonly use: readonly string[];
  /** A command that uses it until it is gone. */
  readonly load: string;
}

const DISK_FIELDS = "virtio-id=2,num_vqs=1,vq_size=128,config_size=60";
/** Writes data and reads it back, without the guest's page cache. */
const DISK_USE = [
  "dd if=/dev/urandom of=/tmp/written bs=64k count=32 2>/dev/null",
  "dd if=/tmp/written of=/dev/vdb bs=64k oflag=direct 2>/dev/null",
  "dd if=/dev/vdb bs=64k count=32 iflag=direct 2>/dev/null | cmp - /tmp/written",
];
const DISK_LOAD = "dd if=/dev/vdb of=/dev/null bs=64k iflag=direct";

const KINDS: readonly Kind[] = [
  {
    option: (folder) => [
      "endpoint-device",
      `blk:01:00.0,socket=${folder}/plugged.sock,file=${folder}/plugged.img`,
    ],
    fields: DISK_FIELDS,
    use: DISK_USE,
    load: DISK_LOAD,
  },
  {
    option: (folder) => [
      "endpoint-relay",
      `01:00.0,listen=${folder}/plugged.sock,backend=${folder}/other-blk.sock,type=blk`,
    ],
    fields: DISK_FIELDS,
    use: DISK_USE,
    load: DISK_LOAD,
  },
  {
    option: (folder) => ["endpoint-device", `rng:01:00.0,socket=${folder}/plugged.sock`],
    fields: "virtio-id=4,num_vqs=1,vq_size=64,config_size=0",
    use: ["[ $(dd if=/dev/hwrng bs=64 count=16 2>/dev/null | wc -c) = 1024 ]"],
    load: "dd if=/dev/hwrng of=/dev/null bs=64",
  },
];

/** Uses a disk that stays while other devices are plugged into a port. */
async function plugAndUnplug(lab: Lab): Promise<void> {
  await using folder = await temporaryFolder();
  const { path } = folder;
  for (const name of ["stays", "plugged", "other"]) {
    await Deno.writeFile(`${path}/${name}.img`, new Uint8Array(0));
    await Deno.truncate(`${path}/${name}.img`, DISK);
  }
  // The relay's back end is a disk that another `serve` has.
  await using backEnd = new LineProcess({
    title: "back end",
    command: serveCommand(
      ...["--socket-path", `${path}/unused.sock`],
      ...["--endpoint-device", `blk:00:03.0,socket=${path}/other-blk.sock,file=${path}/other.img`],
    ),
  });
  await using device = await ServedDevice.start(path, [
    ...BELOW_END_OF_RAM,
    ...["--api-access", "full"],
    ...["--endpoint-device", `blk:00:06.0,socket=${path}/stays.sock,file=${path}/stays.img`],
  ]);
  await using guest = await bootTranslated(lab, path, device, {
    modules: DRIVERS,
    strict: true,
    devices: [
      ...["-chardev", `socket,id=stays,path=${path}/stays.sock`],
      "-device",
      `vhost-user-test-device-pci,chardev=stays,${DISK_FIELDS},iommu_platform=on,addr=6`,
      ...["-device", "pcie-root-port,id=slot1,chassis=1,slot=1,addr=8"],
      ...Monitor.arguments(`${path}/qmp.sock`),
    ],
  });
  assert(!backEnd.ended);
  using monitor = await Monitor.connect(`${path}/qmp.sock`);
  await guest.run(
    "while :; do dd if=/dev/vda of=/dev/null bs=64k iflag=direct; done > /dev/null 2>&1 &",
  );
  await guest.run("dmesg -c > /dev/null");
  let before: Holdings | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    before ??= await holdingsOf(device, path);
    await plugOnce(KINDS[round % KINDS.length], { guest, device, monitor, folder: path });
    const expected = before;
    await until(
      async () => JSON.stringify(await holdingsOf(device, path)) === JSON.stringify(expected),
      `nothing is left over: ${JSON.stringify(expected)}`,
      PATIENCE,
    );
  }
  // Warnings and worse; <N> is the level.
  const warnings = (await guest.run("dmesg -r")).filter((line) => /^<[0-4]>/.test(line));
  assertEquals(warnings, []);
  const { faults, requests } = await device.state();
  assertEquals(faults, { reported: 0, dropped: 0 });
  assertEquals(Object.keys(requests["DETACH"] ?? {}), ["OK"]);
  assertEquals(requests["DETACH"]["OK"] >= ROUNDS, true, "each device gave its endpoint back");
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

/** The parts of a machine. */
interface Machine {
  readonly guest: Guest;
  readonly device: ServedDevice;
  readonly monitor: Monitor;
  readonly folder: string;
}

/** Plugs a device, uses it, and unplugs it while it is in use. */
async function plugOnce(kind: Kind, { guest, device, monitor, folder }: Machine): Promise<void> {
  await device.addEndpoint(...kind.option(folder));
  const add = `vhost-user-test-device-pci,id=plugged,bus=slot1,chardev=plugged,${kind.fields}`;
  await tell(monitor, `chardev-add socket,id=plugged,path=${folder}/plugged.sock`);
  await tell(monitor, `device_add ${add},iommu_platform=on`);
  const driver = `/sys/bus/pci/devices/${PLUGGED_ADDRESS}/virtio*/driver`;
  await guest.run(
    `for i in $(seq 600); do ls ${driver} > /dev/null 2>&1 && break; sleep 0.1; done`,
  );
  for (const command of kind.use) await guest.run(command);
  const { endpoints } = await device.state();
  const domain = endpoints.find(({ id }) => id === PLUGGED)?.domain;
  assert(domain !== undefined && domain !== null, "the guest has attached it");

  await guest.run(`${kind.load} > /dev/null 2>&1 & sleep 0.2`);
  await tell(monitor, "device_del plugged");
  await until(
    async () => !(await monitor.command("qom-list /machine/peripheral")).includes("plugged"),
    "the guest has let the device go",
    PATIENCE,
  );
  // QEMU removes the device from the tree before it closes the connection.
  await until(
    async () => await monitor.command("chardev-remove plugged") === "",
    "QEMU has let the connection go",
    PATIENCE,
  );
  assertEquals(await device.removeEndpoint(PLUGGED), true, "nothing was under way");
}

/** Runs a monitor command that must succeed; it may print warnings about QEMU's generic device. */
async function tell(monitor: Monitor, command: string): Promise<void> {
  const said = await monitor.command(command);
  assert(!said.includes("Error"), `${command}: ${said}`);
}

/** The host resources that `serve` has open. */
interface Holdings {
  readonly descriptors: number;
  readonly memoryFiles: number;
  readonly files: readonly string[];
}

async function holdingsOf(device: ServedDevice, folder: string): Promise<Holdings> {
  const maps = await Deno.readTextFile(`/proc/${device.pid}/maps`);
  return {
    descriptors: namesIn(`/proc/${device.pid}/fd`).length,
    memoryFiles: maps.split("\n").filter((line) => line.includes("/memfd:")).length,
    files: namesIn(folder),
  };
}

function namesIn(folder: string): readonly string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}

await labTests(() => prepareLab("x86_64"), {
  [`devices come and go ${ROUNDS} times under load, and nothing of them is left over`]:
    plugAndUnplug,
});
