/**
 * The page-table layer alone, for each format, beside a bare store loop in the same group.
 *
 * `4 KiB leaves` are forced by restricting leaf sizes to the granule. "In L2" means that the tables
 * touched fit into a second-level cache: 256 MiB of input with small leaves. An iteration of the second group
 * is 4096 operations; divide by that.
 *
 * @module
 */
import {
  createPageTable,
  createUnit,
  HardwareTable,
  type PageTableOptions,
  READ,
  TableMemory,
  type TranslationUnit,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";

interface Case {
  readonly name: string;
  readonly format: string;
  readonly options: PageTableOptions;
}

const CASES: readonly Case[] = [
  { name: "vtd-ss", format: "vtd-ss", options: {} },
  { name: "vtd-fs", format: "vtd-fs", options: {} },
  { name: "smmuv3-s1, 4K granule", format: "smmuv3-s1", options: {} },
  { name: "smmuv3-s2, 64K granule", format: "smmuv3-s2", options: { granule: 65536 } },
  { name: "amdv1", format: "amdv1", options: {} },
];

const GIB = 262144;
const SPOT = 2 ** 22;
const ENDPOINT = 0x18;
/** How many single operations one iteration of a bench does. */
const MANY = 4096;

/** Results of reads, so that the reads are not optimised away. */
let checksum = 0;

const calibration = new Int32Array(new ArrayBuffer(2 * 4 * GIB));

/** The least that filling a GiB of 4 KiB leaves takes: two int32 stores an entry. */
function bareStores(): void {
  let low = 3;
  for (let at = 0; at < 2 * GIB; at = (at + 2) | 0) {
    calibration[(at + 1) | 0] = 1;
    calibration[at] = low;
    low = (low + 4096) | 0;
  }
}

function makeTable(format: string, options: PageTableOptions): [HardwareTable, TranslationUnit] {
  const memory = new TableMemory({ baseFrame: 0x100000, bytes: 64 * 2 ** 20 });
  const table = createPageTable(format, memory, options);
  if (!(table instanceof HardwareTable)) throw new Error("Cannot make the table");
  const unit = createUnit(format, memory);
  if (unit.attach(ENDPOINT, table) !== 0) throw new Error("Cannot attach the table");
  return [table, unit];
}

/** Pages in an order that no prefetcher follows, all different, within 64 MiB per leaf size. */
function scattered(count: number, step: number): Float64Array {
  const pages = new Float64Array(count);
  for (let at = 0; at < count; at++) pages[at] = SPOT + ((at * 1597) % count) * step;
  return pages;
}

for (const { name, format, options } of CASES) {
  const granule = 2 ** makeTable(format, options)[0].leafOrders[0];
  const small = { ...options, pageSizes: [4096 * granule] };
  const bulk = `${name}: 1 GiB in one call (per iteration)`;
  const single = `${name}: ${MANY} single operations (per iteration)`;

  Deno.bench({ name: `bare stores, 262144 entries`, group: bulk, baseline: true, fn: bareStores });

  const [smallTable] = makeTable(format, small);
  Deno.bench(`map 1 GiB, granule leaves`, { group: bulk }, (b) => {
    b.start();
    smallTable.map(SPOT, SPOT + GIB - 1, SPOT, READ | WRITE);
    b.end();
    smallTable.unmap(SPOT, SPOT + GIB - 1);
    smallTable.gather.flush();
  });
  Deno.bench(`unmap 1 GiB, granule leaves, and flush`, { group: bulk }, (b) => {
    smallTable.map(SPOT, SPOT + GIB - 1, SPOT, READ | WRITE);
    b.start();
    smallTable.unmap(SPOT, SPOT + GIB - 1);
    smallTable.gather.flush();
    b.end();
  });

  const [largeTable] = makeTable(format, options);
  Deno.bench(`map 1 GiB, largest leaves, unmap and flush, 64 times`, { group: bulk }, () => {
    for (let time = 0; time < 64; time++) {
      largeTable.map(SPOT, SPOT + GIB - 1, SPOT, READ | WRITE);
      largeTable.unmap(SPOT, SPOT + GIB - 1);
      largeTable.gather.flush();
    }
  });

  const places: readonly (readonly [string, Float64Array])[] = [
    ["sequential", Float64Array.from({ length: MANY }, (_, at) => SPOT + at * granule)],
    ["scattered", scattered(MANY, 16 * granule)],
  ];
  for (const [order, pages] of places) {
    const [table] = makeTable(format, small);
    const result = new WalkResult();
    Deno.bench(`map one granule, ${order}`, { group: single }, (b) => {
      b.start();
      for (let at = 0; at < MANY; at++) {
        const page = pages[at];
        table.map(page, page + granule - 1, page, READ | WRITE);
      }
      b.end();
      for (let at = 0; at < MANY; at++) table.unmap(pages[at], pages[at] + granule - 1);
      table.gather.flush();
    });
    Deno.bench(`unmap one granule, ${order}`, { group: single }, (b) => {
      for (let at = 0; at < MANY; at++) {
        table.map(pages[at], pages[at] + granule - 1, pages[at], READ | WRITE);
      }
      b.start();
      for (let at = 0; at < MANY; at++) table.unmap(pages[at], pages[at] + granule - 1);
      table.gather.flush();
      b.end();
    });
    const [full, fullUnit] = makeTable(format, small);
    for (let at = 0; at < MANY; at++) {
      full.map(pages[at], pages[at] + granule - 1, pages[at], READ | WRITE);
    }
    Deno.bench(`frameAt, ${order}`, { group: single }, () => {
      for (let at = 0; at < MANY; at++) checksum += full.frameAt(pages[at]);
    });
    Deno.bench(`walk from the endpoint, ${order}`, { group: single }, () => {
      for (let at = 0; at < MANY; at++) {
        fullUnit.walk(ENDPOINT, pages[at], READ, result);
        checksum += result.frame;
      }
    });
  }
}
