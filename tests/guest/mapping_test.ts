/**
 * What a guest maps through VFIO is what a device behind the IOMMU can reach, page by page.
 *
 * The guest's own `/proc/self/pagemap` says where each of its pages lies in guest-physical memory; the API
 * socket says where our tables take the device.
 */
import { assert, assertEquals } from "@std/assert";
import { EDU_SLOT, Guest, type Lab, labTests, machineArguments, prepareLab } from "./lab/mod.ts";
import { BLOCK, PAGE, planMappings, type PlannedMapping } from "./mapping_plan.ts";
import { Random, seed } from "./random.ts";
import { attachArguments, ServedDevice, type State, type Translation } from "./served_device.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** Requester id of the device whose DMA is followed. */
const ENDPOINT = EDU_SLOT * 8;

/** VT-d fault reasons of a legacy-mode second stage (VT-d §7.1.3): no write permission, no read permission. */
const WRITE_FAULT = "0x5";
const READ_FAULT = "0x6";

/** Where the guest says that a page lies, and what may be done with it; bytes. */
interface ExpectedPage {
  readonly phys: number;
  readonly permission: string;
}

type ExpectedPages = Map<number, ExpectedPage>;

async function mapAll(
  guest: Guest,
  plan: readonly PlannedMapping[],
): Promise<ReadonlyMap<PlannedMapping, ExpectedPages>> {
  const all = new Map<PlannedMapping, ExpectedPages>();
  for (const mapping of plan) {
    const { iova, bytes, permission, backing } = mapping;
    const pages: ExpectedPages = new Map();
    for (const run of await guest.map(iova, bytes, permission, backing)) {
      for (let index = 0; index < run.pages; index++) {
        pages.set(run.iova + index * PAGE, { phys: run.phys + index * PAGE, permission });
      }
    }
    assertEquals(pages.size, bytes / PAGE, "the guest names every page");
    all.set(mapping, pages);
  }
  return all;
}

function union(parts: Iterable<ExpectedPages>): ExpectedPages {
  return new Map([...parts].flatMap((part) => [...part]));
}

/** Compares every page of `places` and both its neighbours with what the device says, reads and writes. */
async function compare(
  device: ServedDevice,
  random: Random,
  expected: ExpectedPages,
  places: Iterable<number>,
): Promise<void> {
  const pages = new Set<number>();
  for (const page of places) {
    pages.add(page).add(page + PAGE);
    if (page > 0) pages.add(page - PAGE);
  }
  for (const page of pages) {
    const want = expected.get(page);
    const offset = random.below(PAGE);
    for (const access of ["r", "w"] as const) {
      const answer = await device.translate(ENDPOINT, page + offset, access);
      assertTranslation(answer, want, offset, access, `${access} at 0x${page.toString(16)}`);
    }
  }
}

function assertTranslation(
  answer: Translation,
  want: ExpectedPage | undefined,
  offset: number,
  access: "r" | "w",
  place: string,
): void {
  const text = `${place}: guest has ${JSON.stringify(want)}, device answers ${
    JSON.stringify(answer)
  }`;
  if (want === undefined || !want.permission.includes(access)) {
    assert(answer.fault !== undefined, text);
    assertEquals(answer.fault.code, access === "w" ? WRITE_FAULT : READ_FAULT, text);
  } else {
    assert(answer.fault === undefined, text);
    assertEquals(Number(answer.phys), want.phys + offset, text);
    assertEquals(answer.access, want.permission, text);
  }
}

/** The list of mappings names the same pages as the guest does, each once, in order. */
async function compareList(
  device: ServedDevice,
  domain: number,
  pages: ExpectedPages,
): Promise<void> {
  const listed: ExpectedPages = new Map();
  let previous = -1;
  for (const { iova, last, phys, flags } of await device.mappings(domain)) {
    assert(Number(iova) > previous, `mappings are in order and apart: ${iova}`);
    previous = Number(last);
    for (let at = Number(iova); at < previous; at += PAGE) {
      listed.set(at, { phys: Number(phys) + at - Number(iova), permission: flags });
    }
  }
  assertEquals([...listed].sort(byAddress), [...pages].sort(byAddress));
}

function byAddress(a: readonly [number, unknown], b: readonly [number, unknown]): number {
  return a[0] - b[0];
}

/** The domain of the device under test. */
function domainOf(state: State): State["domains"][number] {
  const domain = state.domains.find(({ endpoints }) => endpoints.includes(ENDPOINT));
  assert(domain !== undefined, `endpoint ${ENDPOINT} is attached: ${JSON.stringify(state)}`);
  return domain;
}

function tablePages(state: State): number {
  return domainOf(state).tables.reduce((sum, table) => sum + table.tablePages, 0);
}

/** A 2 MiB block of guest memory that the guest mapped aligned is one leaf, not 512 entries. */
async function assertBlocks(
  device: ServedDevice,
  pages: ReadonlyMap<PlannedMapping, ExpectedPages>,
): Promise<void> {
  for (const { iova, bytes, permission, backing } of pages.keys()) {
    if (backing !== "huge") continue;
    const access = permission === "w" ? "w" : "r";
    for (let at = iova; at < iova + bytes; at += BLOCK) {
      const answer = await device.translate(ENDPOINT, at, access);
      assert(answer.fault === undefined && answer.pageSize >= BLOCK, JSON.stringify(answer));
    }
  }
}

async function mapAndCompare(lab: Lab): Promise<void> {
  const random = new Random(seed());
  await using folder = await temporaryFolder();
  const initramfs = `${folder.path}/initramfs.gz`;
  await lab.writeInitramfs(initramfs);
  await using device = await ServedDevice.start(folder.path);
  const machine = machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    devices: [...await attachArguments(device, folder.path), "-device", `edu,addr=${EDU_SLOT}`],
  });
  await using guest = await Guest.boot(lab.qemu, machine);
  await guest.run("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
  await guest.run("echo 8 > /proc/sys/vm/nr_hugepages");

  const ranges = await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
  const empty = await device.state();
  assertEquals(domainOf(empty).mappings, 0, "VFIO starts with an empty domain");

  const plan = planMappings(random, ranges, { small: 90, huge: 3 });
  const mapped = await mapAll(guest, plan);
  const everywhere = [...union(mapped.values()).keys()];
  await compare(device, random, union(mapped.values()), everywhere);
  await compareList(device, domainOf(empty).id, union(mapped.values()));
  await assertBlocks(device, mapped);
  assertEquals(domainOf(await device.state()).pages, everywhere.length);

  const kept = new Map([...mapped].filter(() => random.below(2) === 0));
  for (const mapping of plan.filter((one) => !kept.has(one))) {
    assertEquals(await guest.unmap(mapping.iova, mapping.bytes), mapping.bytes);
  }
  const rest = union(kept.values());
  await compare(device, random, rest, everywhere);
  await compareList(device, domainOf(empty).id, rest);

  for (const { first, last } of ranges) await guest.unmap(first, last - first + 1);
  await compare(device, random, new Map(), everywhere);
  const after = await device.state();
  assertEquals(domainOf(after).mappings, 0);
  assertEquals(domainOf(after).pages, 0);
  assertEquals(tablePages(after), tablePages(empty), "no table page leaks");
  for (const [request, statuses] of Object.entries(after.requests)) {
    assertEquals(Object.keys(statuses).filter((one) => one !== "OK"), [], `${request} failed`);
  }

  await guest.closeVfio();
  await guest.powerOff();
  assertEquals(await device.stop(), 0);
}

await labTests(() => prepareLab("x86_64"), {
  "Every page a guest maps through VFIO translates as the guest says, and none after it is unmapped":
    mapAndCompare,
});
