import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { parseDeviceOptions } from "../../../device/command/device_options.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import {
  DOMAIN_BYTES,
  HOST_MAPPING_BYTES,
  MAPPING_BYTES,
  memoryBound,
} from "../../../device/iommu/memory_bound.ts";
import { stateSizeMax } from "../../../device/iommu/saved_state.ts";
import { READ, WRITE } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { scriptedMemory } from "./scripted_memory.ts";

/** Bytes of heap and typed arrays in use after a collection, in a process of its own that can ask for one. */
async function growth(what: "domains" | "mappings", count: number): Promise<number> {
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--v8-flags=--expose-gc", import.meta.url, what, `${count}`],
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder().decode(stdout);
  assert(/^\d+\n$/.test(text), new TextDecoder().decode(stderr));
  return Number(text);
}

/** What arrays that are not referenced any more took is given back after a collection, on another thread. */
async function inUse(): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < 5; i++) {
    (globalThis as unknown as { gc(): void }).gc();
    const { heapUsed, external } = Deno.memoryUsage();
    least = Math.min(least, heapUsed + external);
    await delay(20);
  }
  return least;
}

/** Host memory in which each page has a frame of its own. */
const SPREAD = scriptedMemory();

/** What {@linkcode growth} runs: prints the bytes that so many domains, or mappings of one domain, take. */
async function measure(what: string, count: number): Promise<void> {
  const endpoints = [{ first: 0, last: count, format: "vtd-ss" }];
  const device = new IommuDevice({ ...DEFAULT_OPTIONS, endpoints, maxTableMemory: 2 ** 28 });
  const { iommu } = device;
  iommu.attach(1, 0, false);
  const before = await inUse();
  if (what === "domains") {
    for (let i = 1; i < count; i++) {
      iommu.attach(i + 1, i, false);
      iommu.map(iommu.domain(i + 1)!, 0, 0, 5 + i, READ | WRITE);
    }
  } else {
    // Page by page, in an order that leaves no two neighbours behind each other: areas cannot share anything.
    const domain = iommu.domain(1)!;
    for (let i = 0; i < count; i++) {
      const page = 2 ** 21 + (i % 512) * 4096 + (i >> 9) * 2;
      iommu.map(domain, page, page, 2 ** 22 + 2 * i, READ | WRITE);
    }
  }
  const grown = await inUse() - before;
  if (iommu.domains.length !== (what === "domains" ? count : 1)) {
    throw new Error("some are missing");
  }
  console.log(grown);
}

if (import.meta.main) await measure(Deno.args[0], Number(Deno.args[1]));
else {
  Deno.test("a domain costs no more than its bound, its first mapping included", async () => {
    const count = 1024;
    const bytes = await growth("domains", count) / count;
    assert(bytes <= DOMAIN_BYTES, `${bytes} bytes a domain, ${DOMAIN_BYTES} at most`);
  });

  Deno.test("a mapping costs no more than its bound, half of which is for growing", async () => {
    const count = 2 ** 18;
    const bytes = await growth("mappings", count) / count;
    assert(bytes <= MAPPING_BYTES / 2, `${bytes} bytes a mapping, ${MAPPING_BYTES / 2} at most`);
  });

  Deno.test("a mapping to host frames costs no more than its bound beside that, half of which is for growing", () => {
    const device = new IommuDevice({ ...DEFAULT_OPTIONS, hostMemory: SPREAD });
    const region = { guestAddress: 0, size: 2 ** 20, buffer: new ArrayBuffer(2 ** 20), offset: 0 };
    device.memoryAdded(region);
    device.iommu.attach(1, 0, false);
    const domain = device.iommu.domain(1)!;
    const count = 2 ** 16;
    for (let i = 0; i < count; i++) device.iommu.map(domain, 2 * i, 2 * i, i % 256, READ);
    const bytes = device.guest.tier!.tree.bytes / domain.space.mappingCount;
    assertEquals([domain.space.mappingCount, device.guest.pinnedPages], [count, 256]);
    assert(bytes <= HOST_MAPPING_BYTES / 2, `${bytes} bytes a mapping`);
    device.memoryRemoved(region);
    device.close();
    const options = parseDeviceOptions({});
    const more = memoryBound({ ...options, hostMemory: SPREAD }) - memoryBound(options);
    assertEquals(more, options.maxMappings * HOST_MAPPING_BYTES);
  });

  Deno.test("with the default limits a guest can make us take less than 2 GiB, and be saved", () => {
    const options = parseDeviceOptions({});
    assert(memoryBound(options) < 2 ** 31, `${memoryBound(options)} bytes`);
    assert(stateSizeMax({ ...options, endpoints: 65536 }) < 2 ** 28);
    assertEquals(new IommuDevice({ ...options, maxTableMemory: 2 ** 20 }).stateSizeMax > 0, true);
  });
}
