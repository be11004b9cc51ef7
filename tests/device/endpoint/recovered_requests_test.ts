/** Requests that an earlier process had in flight, and the device behind the IOMMU that takes over its record of them. */
import { assert, assertEquals } from "@std/assert";
import { agreedFeatures } from "../../../device/vhost_user/ring.ts";
import { mapMemoryFile } from "../../../device/host/mod.ts";
import { Request } from "../../../device/vhost_user/mod.ts";
import { Chain, inflightBytes, RING_OK, SplitQueue } from "../../../vring/mod.ts";
import { RING_SIZE, Vmm } from "../vhost_user/vmm.ts";
import { VMMS } from "../vhost_user/vmm_habits.ts";
import { IOVA } from "./endpoint_world.ts";
import { BUFFER, rng } from "./replayed_device.ts";
import { ReplayedEndpoint } from "./replayed_service.ts";

/** Bytes of a request; all of them are more than the device gives in one turn. */
const BYTES = 4000;

/** An earlier process takes everything that is in ring 0, and ends. Returns how many chains that was. */
function takeAndEnd(vmm: Vmm): number {
  const [low, high] = vmm.features;
  const { eventIndex, indirect, inOrder } = agreedFeatures(low, high);
  const { driver } = vmm.rings[0];
  using record = mapMemoryFile(vmm.record!, 0, inflightBytes(false, RING_SIZE));
  const queue = new SplitQueue(vmm.memory);
  const error = queue.configure({
    size: RING_SIZE,
    descriptors: driver.descriptors,
    driverArea: driver.driverArea,
    deviceArea: driver.deviceArea,
    eventIndex,
    indirect,
    inOrder,
    inflight: new Uint8Array(record.buffer),
  });
  assertEquals(error, RING_OK);
  const chain = new Chain();
  let taken = 0;
  while (queue.next(chain)) taken++;
  return taken;
}

Deno.test("requests that an earlier process had in flight are all served, without a notification", async () => {
  const habits = VMMS.find(({ name }) => name === "cloud-hypervisor")!;
  await using service = new ReplayedEndpoint(rng());
  const { driver } = service;
  using vmm = new Vmm(habits, driver.facts);
  vmm.newDriver();
  await service.open(vmm);
  await vmm.play(...habits.connect(vmm), ...habits.activate(vmm));
  await driver.use(vmm, BUFFER);
  vmm.disconnect();
  const ring = vmm.rings[0];
  for (let i = 0; i < RING_SIZE; i++) {
    ring.driver.begin();
    ring.driver.addWritable(IOVA + BUFFER, BYTES);
    assert(ring.driver.commit() >= 0);
  }
  ring.driver.kick();
  assertEquals(takeAndEnd(vmm), RING_SIZE);
  await service.open(vmm);
  const activate = habits.activate(vmm).filter(({ request }) =>
    request !== Request.GET_INFLIGHT_FD
  );
  await vmm.play(...habits.reconnect!(vmm), ...activate);
  for (let i = 0; i < RING_SIZE; i++) assert(await ring.reap(), `request ${i} is answered`);
  assertEquals(service.complaints, []);
});
