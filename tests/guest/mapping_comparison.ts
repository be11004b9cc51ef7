/**
 * Compares the mappings of a guest with the translations of the device.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import type { HostFrames } from "./host_frames.ts";
import type { Guest } from "./lab/mod.ts";
import { BLOCK, PAGE, planMappings, type PlannedMapping } from "./mapping_plan.ts";
import type { Random } from "./random.ts";
import type { ServedDevice, State, Translation } from "./served_device.ts";
import { checkEach } from "./translations.ts";

/** How a table format differs from what the guest asked for. */
export interface FormatHabits {
  /** The accesses that a mapping with a permission allows. */
  granted(permission: string): string;
  /** The hardware's code for an access to a page that is not mapped, or not so (`permission`). */
  faultCode(access: "r" | "w", permission: string | undefined): string;
}

/** VT-d second stage, legacy mode (VT-d §7.1.3): no write permission 5, no read permission 6. */
export const VTD_SECOND_STAGE: FormatHabits = {
  granted: (permission) => permission,
  faultCode: (access) => access === "w" ? "0x5" : "0x6",
};

/** SMMUv3 stage 1 (SMMU §7.3): F_TRANSLATION 0x10, F_PERMISSION 0x13; it has no write-only pages. */
export const SMMU_FIRST_STAGE: FormatHabits = {
  granted: (permission) => permission === "w" ? "rw" : permission,
  faultCode: (_, permission) => permission === undefined ? "0x10" : "0x13",
};

/** SMMUv3 stage 2 (SMMU §7.3): the same events, and write-only pages. */
export const SMMU_SECOND_STAGE: FormatHabits = {
  granted: (permission) => permission,
  faultCode: SMMU_FIRST_STAGE.faultCode,
};

/** The guest-physical address of a page, and its permission. */
interface ExpectedPage {
  readonly phys: number;
  readonly permission: string;
}

/** Mappings of one boot. */
const SIZES = isLong ? { small: 90, huge: 3 } : { small: 12, huge: 1 };

/** Pages by I/O address. */
type ExpectedPages = Map<number, ExpectedPage>;

/** Maps the plan; the pages as the guest reports them. */
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

/** All pages of several mappings. */
function union(parts: Iterable<ExpectedPages>): ExpectedPages {
  return new Map([...parts].flatMap((part) => [...part]));
}

/** Compares the translations of every page of `places` and of the pages before and after it, for reads and writes. */
async function compare(
  device: ServedDevice,
  endpoint: number,
  habits: FormatHabits,
  random: Random,
  expected: ExpectedPages,
  places: Iterable<number>,
  host?: HostFrames,
): Promise<void> {
  const pages = new Set<number>();
  for (const page of places) {
    pages.add(page).add(page + PAGE);
    if (page > 0) pages.add(page - PAGE);
  }
  const accesses = [...pages].map((page) => ({ page, offset: random.below(PAGE) }));
  await checkEach(accesses, async ({ page, offset }) => {
    const want = expected.get(page);
    for (const access of ["r", "w"] as const) {
      const answer = await device.translate(endpoint, page + offset, access);
      assertTranslation(
        answer,
        habits,
        want,
        offset,
        access,
        `${access} at 0x${page.toString(16)}`,
        host,
      );
    }
  });
}

function assertTranslation(
  answer: Translation,
  habits: FormatHabits,
  want: ExpectedPage | undefined,
  offset: number,
  access: "r" | "w",
  place: string,
  host?: HostFrames,
): void {
  const text = `${place}: guest has ${JSON.stringify(want)}, device answers ${
    JSON.stringify(answer)
  }`;
  const granted = want === undefined ? "" : habits.granted(want.permission);
  if (want === undefined || !granted.includes(access)) {
    assert(answer.fault !== undefined, text);
    assertEquals(answer.fault.code, habits.faultCode(access, want?.permission), text);
  } else {
    assert(answer.fault === undefined, text);
    if (host === undefined) {
      assertEquals([Number(answer.phys), answer.guest], [want.phys + offset, undefined], text);
    } else {
      assertEquals(Number(answer.guest), want.phys + offset, text);
      // The kernel may have moved a page since it was mapped; then the answer has the new address.
      assertEquals(Number(answer.moved ?? answer.phys), host.addressOf(want.phys) + offset, text);
    }
    assertEquals(answer.access, granted, text);
  }
}

/** The device's list of mappings has the same pages as the guest's, each once, in order. */
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

/** The domain of an endpoint. */
export function domainOf(state: State, endpoint: number): State["domains"][number] {
  const domain = state.domains.find(({ endpoints }) => endpoints.includes(endpoint));
  assert(domain !== undefined, `endpoint ${endpoint} is attached: ${JSON.stringify(state)}`);
  return domain;
}

/** Table pages of an endpoint's domain. */
function tablePages(state: State, endpoint: number): number {
  return domainOf(state, endpoint).tables.reduce((sum, table) => sum + table.tablePages, 0);
}

/** A 2 MiB block of guest memory that the guest mapped aligned is one leaf, not 512 entries. */
async function assertBlocks(
  device: ServedDevice,
  endpoint: number,
  pages: ReadonlyMap<PlannedMapping, ExpectedPages>,
): Promise<void> {
  for (const { iova, bytes, permission, backing } of pages.keys()) {
    if (backing !== "huge") continue;
    const access = permission === "w" ? "w" : "r";
    for (let at = iova; at < iova + bytes; at += BLOCK) {
      const answer = await device.translate(endpoint, at, access);
      assert(answer.fault === undefined && answer.pageSize >= BLOCK, JSON.stringify(answer));
    }
  }
}

/** The kernel has moved few pages, so that the tables' own addresses were compared for nearly all. */
async function assertFewMoved(
  device: ServedDevice,
  endpoint: number,
  pages: ExpectedPages,
): Promise<void> {
  let moved = 0;
  for (const [page, { permission }] of pages) {
    const answer = await device.translate(endpoint, page, permission === "w" ? "w" : "r");
    if (answer.fault === undefined && answer.moved !== undefined) moved++;
  }
  assert(moved * 10 < pages.size, `${moved} of ${pages.size} pages have moved`);
}

/**
 * Maps and unmaps random buffers of a booted guest through VFIO, and compares every page and the pages beside it each
 * time; in the end no mapping may be left.
 *
 * @param host The host-physical addresses of guest RAM, if tables hold those.
 */
export async function mapAndCompare(
  guest: Guest,
  device: ServedDevice,
  endpoint: number,
  habits: FormatHabits,
  random: Random,
  host?: HostFrames,
): Promise<void> {
  await guest.run("echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
  await guest.run("echo 8 > /proc/sys/vm/nr_hugepages");

  const ranges = await guest.openVfio(`0000:00:0${endpoint / 8}.0`);
  const empty = await device.state();
  assertEquals(domainOf(empty, endpoint).mappings, 0, "VFIO starts with an empty domain");

  const plan = planMappings(random, ranges, SIZES);
  const mapped = await mapAll(guest, plan);
  const everywhere = [...union(mapped.values()).keys()];
  await compare(device, endpoint, habits, random, union(mapped.values()), everywhere, host);
  await compareList(device, domainOf(empty, endpoint).id, union(mapped.values()));
  if (host === undefined) await assertBlocks(device, endpoint, mapped);
  else await assertFewMoved(device, endpoint, union(mapped.values()));
  assertEquals(domainOf(await device.state(), endpoint).pages, everywhere.length);

  const kept = new Map([...mapped].filter(() => random.below(2) === 0));
  for (const mapping of plan.filter((one) => !kept.has(one))) {
    assertEquals(await guest.unmap(mapping.iova, mapping.bytes), mapping.bytes);
  }
  const rest = union(kept.values());
  await compare(device, endpoint, habits, random, rest, everywhere, host);
  await compareList(device, domainOf(empty, endpoint).id, rest);

  for (const { first, last } of ranges) await guest.unmap(first, last - first + 1);
  await compare(device, endpoint, habits, random, new Map(), everywhere, host);
  const after = await device.state();
  assertEquals(domainOf(after, endpoint).mappings, 0);
  assertEquals(domainOf(after, endpoint).pages, 0);
  assertEquals(tablePages(after, endpoint), tablePages(empty, endpoint), "no table page leaks");
  for (const [request, statuses] of Object.entries(after.requests)) {
    assertEquals(Object.keys(statuses).filter((one) => one !== "OK"), [], `${request} failed`);
  }
}
