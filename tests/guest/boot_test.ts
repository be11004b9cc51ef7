/**
 * A plain Linux guest on QEMU finds the device, probes and attaches its endpoints, restarts and ends.
 */
import { assert, assertEquals } from "@std/assert";
import { Guest, type Lab, labTests, machineArguments, prepareLab } from "./lab/mod.ts";
import { attachArguments, ServedDevice, type State } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** The slot the IOMMU itself has in these machines. */
const IOMMU = 0x10;

/** Requester ids of the guest's PCI functions, by whether Linux put them into an IOMMU group. */
async function pciFunctions(guest: Guest): Promise<Map<number, boolean>> {
  const lines = await guest.run(
    "cd /sys/bus/pci/devices && for d in *; do [ -e $d/iommu_group ] && echo $d in || echo $d out; done",
  );
  return new Map(lines.map((line) => {
    const [, bus, slot, fn] = /^0000:(..):(..)\.(.) /.exec(line)!;
    const id = parseInt(bus, 16) * 256 + parseInt(slot, 16) * 8 + Number(fn);
    return [id, line.endsWith(" in")];
  }));
}

async function assertAttached(guest: Guest, device: ServedDevice): Promise<State> {
  const functions = await pciFunctions(guest);
  assert(functions.delete(IOMMU), "the guest sees the IOMMU's own PCI function");
  assert(functions.size >= 3, "the machine has endpoints");
  assertEquals(
    [...functions.values()].filter((grouped) => !grouped),
    [],
    "all are in IOMMU groups",
  );
  const state = await device.state();
  const attached = state.endpoints.filter(({ domain }) => domain !== null).map(({ id }) => id);
  assertEquals(attached.sort(), [...functions.keys()].sort());
  assertEquals(
    Object.values(state.requests).flatMap((statuses) => Object.keys(statuses))
      .filter((status) => status !== "OK"),
    [],
    `no request failed: ${JSON.stringify(state.requests)}`,
  );
  assertEquals(state.faults, { reported: 0, dropped: 0 });
  assert(state.requests.PROBE.OK >= functions.size);
  assert(state.requests.ATTACH.OK >= functions.size);
  return state;
}

async function bootOnce(lab: Lab): Promise<void> {
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  await using device = await ServedDevice.start(folder.path);
  const machine = machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    restarts: true,
    devices: [...await attachArguments(device, folder.path), "-device", "edu,addr=4"],
  });
  await using guest = await Guest.boot(lab.qemu, machine);

  const log = await guest.run("dmesg | grep virtio_iommu");
  assert(
    log.some((line) => line.includes("input address: 48 bits")),
    `the guest's log shows the input address width: ${log.join("\n")}`,
  );
  const first = await assertAttached(guest, device);

  await guest.reboot();
  const second = await assertAttached(guest, device);
  assertEquals(
    second.domains.map(({ endpoints }) => endpoints).flat().sort(),
    first.domains.map(({ endpoints }) => endpoints).flat().sort(),
    "the second boot leaves nothing of the first one behind",
  );
  assertEquals(second.domains.length, first.domains.length);

  await guest.powerOff();
  const ended = await device.stateWhere("disconnected", (state) => !state.connected);
  assertEquals(ended.domains, [], "nothing stays when the VMM is gone");
  assertEquals(await device.stop(), 0);
  const left = (await Array.fromAsync(Deno.readDir(folder.path))).map(({ name }) => name);
  assertEquals(left.filter((name) => name.endsWith(".sock")), [], "its sockets are gone");
}

await labTests(() => prepareLab("x86_64"), {
  "A Linux guest probes and attaches all its endpoints, again after a restart": bootOnce,
});
