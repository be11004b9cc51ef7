/** A warm-up runs the whole path of every kind of device, and leaves nothing behind. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { warmUp } from "../../../device/serving/warm_up.ts";
import { RESV_MEM_MSI } from "../../../device/iommu/reserved_region.ts";
import { ALL_RING_FEATURES, ringFeatures } from "../../../device/vhost_user/mod.ts";
import { formatNames } from "../../../pagetable/mod.ts";
import { descriptorCount } from "../host/host_state.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";

const NO_RING_FEATURES = ringFeatures([])!;

Deno.test("a warm-up of the default device makes tens of thousands of requests, all of which succeed", async () => {
  const { requests, succeeded } = await warmUp(DEFAULT_OPTIONS, ringFeatures(["event-index"])!);
  // One device has that many; how many devices it takes is a matter of time.
  assert(requests > 20_000, `${requests}`);
  assertEquals(succeeded, requests);
});

Deno.test("a warm-up succeeds with every ring layout and with every format at once", async () => {
  const endpoints = formatNames().map((format, i) => ({ first: i * 8, last: i * 8 + 7, format }));
  for (const features of [NO_RING_FEATURES, ALL_RING_FEATURES]) {
    const { requests, succeeded } = await warmUp({ ...DEFAULT_OPTIONS, endpoints }, features);
    assertEquals(succeeded, requests);
  }
});

Deno.test("a warm-up closes every descriptor that it opened", async () => {
  await warmUp(DEFAULT_OPTIONS, ALL_RING_FEATURES);
  const before = descriptorCount();
  await warmUp(DEFAULT_OPTIONS, ALL_RING_FEATURES);
  assertEquals(descriptorCount(), before);
});

Deno.test("a warm-up takes a device that forbids what it asks for", async () => {
  const reserved = [{ firstPage: 0, lastPage: 2 ** 36 - 1, subtype: RESV_MEM_MSI }];
  const { requests, succeeded } = await warmUp(
    { ...DEFAULT_OPTIONS, reserved, maxDomains: 1, maxMappings: 1 },
    NO_RING_FEATURES,
  );
  assert(succeeded < requests);
});

Deno.test("a warm-up refuses options that contradict each other, as the device does", async () => {
  await assertRejects(
    () => warmUp({ ...DEFAULT_OPTIONS, endpoints: [] }, NO_RING_FEATURES),
    RangeError,
    "without endpoints",
  );
});
