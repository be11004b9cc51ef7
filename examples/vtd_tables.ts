/**
 * Builds VT-d tables for a device, walks them as the hardware would, and prints every entry that the walk read.
 *
 * ```sh
 * deno run examples/vtd_tables.ts
 * ```
 *
 * @module
 */
import {
  createPageTable,
  createUnit,
  HardwareTable,
  READ,
  TableMemory,
  WalkResult,
  WRITE,
} from "../pagetable/mod.ts";

/** The device: PCI 03:03.0, and the page it reads. */
const SOURCE_ID = 0x0318;
const PAGE = 0x40201;

const memory = new TableMemory({ baseFrame: 0x100000, bytes: 1 << 20 });
const table = createPageTable("vtd-ss", memory, { levels: 4 });
if (!(table instanceof HardwareTable)) throw new Error(`Cannot make a page table: errno ${table}`);
const unit = createUnit("vtd-ss", memory);
unit.attach(SOURCE_ID, table);

// One page that may be read, and 2 MiB that fit one leaf.
table.map(PAGE, PAGE, 0x123456, READ);
table.map(0x40400, 0x405ff, 0x200000, READ | WRITE);

const result = new WalkResult();
for (const [page, access] of [[PAGE, READ], [PAGE, WRITE], [0x40480, WRITE], [0x50000, READ]]) {
  unit.walk(SOURCE_ID, page, access, result);
  const what = `${access === WRITE ? "write" : "read"} of page 0x${page.toString(16)}`;
  const outcome = result.ok
    ? `frame 0x${result.frame.toString(16)}, a leaf of ${result.leafPages} pages`
    : `${result.faultName} (VT-d fault reason ${result.faultCode})`;
  console.log(`${what}: ${outcome}`);
  for (let i = 0; i < result.depth; i++) {
    const entry = (BigInt(result.pathHigh[i]) << 32n) | BigInt(result.pathLow[i] >>> 0);
    const place = `table 0x${result.pathFrame[i].toString(16)}, entry ${result.pathIndex[i]}`;
    console.log(`  ${place}: 0x${BigInt.asUintN(64, entry).toString(16)}`);
  }
}

// The gather collects what was unmapped, which hardware has to invalidate.
table.unmap(PAGE, PAGE);
table.gather.flush();
unit.walk(SOURCE_ID, PAGE, READ, result);
console.log(`after the unmap: ${result.faultName}`);
