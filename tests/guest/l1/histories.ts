/**
 * Runs in L1: random maps and unmaps through the pages engine, into a page table of ours and an I/O address space of the
 * kernel at once. After each of them devices look at random pages: their DMA, which the kernel translates, reaches what a
 * walk of our table leads to. And the kernel is given the same calls for an address space of its own: what the engine
 * refuses the kernel refuses, and what the engine does the kernel does, with two differences that are counted:
 *
 * - an UNMAP that finds nothing is OK here (virtio 1.4, 5.13.6.6.1) and ENOENT there;
 * - an UNMAP that would cut its last mapping changes nothing here, and has removed those before it there.
 *
 * `steps` in the environment says how many, `VIOMMU_SEED` which.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  createPageList,
  EEXIST,
  EINVAL,
  ENOENT,
  type Errno,
  GuestSource,
  IoAddressSpace,
  OK,
  READ,
  WRITE,
} from "../../../iommufd/mod.ts";
import {
  createPageTable,
  createUnit,
  HardwareTable,
  TableMemory,
  WalkResult,
} from "../../../pagetable/mod.ts";
import { createRam, KernelMachine } from "../../device/vfio/kernel_machine.ts";
import { Random, seed } from "../random.ts";
import { check, tell } from "./checks.ts";
import { eduOf } from "./edu.ts";
import { kernelWorld } from "./kernel_world.ts";
import { TestMemory } from "./memory.ts";
import { findReads, findWrites, type Probe, type Reached } from "./probed_memory.ts";
import { bindToVfio, HostDevice, HostIommufd } from "./vfio.ts";

/** The devices that look, and one for the address space of the kernel's own. */
const PROBING = [6, 7, 8, 9, 10, 11, 12, 13].map((slot) =>
  `0000:00:${slot.toString(16).padStart(2, "0")}.0`
);
const OTHER = "0000:00:04.0";
const SOURCE_ID = 0x20;

/** RAM, in frames: those that are mapped at random, and those for what passes through the devices. */
const FRAMES = 64;
const FIRST_FRAME = 0x100;
const SCRATCH_FRAME = FIRST_FRAME + FRAMES;
const SCRATCH_PAGE = 0x8_0000;

/** Pages at which random ranges begin, each with some behind it: anywhere, at the window of interrupts, at the end. */
const BEGINNINGS = [0x100, 0x100, 0x100, 0x3_fff8, 0xfedf0, 2 ** 36 - 16];
const SPREAD = 24;
const LONGEST = 12;

const paths: string[] = [];
for (const address of PROBING) paths.push(await bindToVfio(address));
const world = kernelWorld(paths, PROBING.map((_, i) => i));
const machine = new KernelMachine(world);
const ram = createRam(FIRST_FRAME, FRAMES + 2 * PROBING.length);
const memory = new BigUint64Array(ram.region.buffer);
const mapped = memory.subarray(0, FRAMES * 512);
machine.iommu.memoryAdded(ram.region);

/** The words of a frame. */
function wordsOf(frame: number): BigUint64Array {
  const at = (frame - FIRST_FRAME) * 512;
  return memory.subarray(at, at + 512);
}

const tables = new TableMemory({ baseFrame: 0x100_0000, bytes: 4 << 20 });
const ours = createPageTable("vtd-ss", tables, { levels: 4 });
if (!(ours instanceof HardwareTable)) throw new Error(`Cannot make a page table: errno ${ours}`);
const unit = createUnit("vtd-ss", tables);
unit.attach(SOURCE_ID, ours);
const source = new GuestSource();
source.addRegion(FIRST_FRAME, FIRST_FRAME + FRAMES + 2 * PROBING.length - 1);
const pages = createPageList(source);
const space = new IoAddressSpace();
const theirs = machine.table();
assertEquals([space.addPageTable(ours), space.addPageTable(theirs)], [OK, OK]);
const scratchLast = SCRATCH_PAGE + 2 * PROBING.length - 1;
assertEquals(space.map(SCRATCH_PAGE, scratchLast, pages, SCRATCH_FRAME, READ | WRITE), OK);
for (const device of machine.devices) assertEquals(device.attach(theirs), OK);

const probes: readonly Probe[] = PROBING.map((_, i) => ({
  edu: world.edus[i],
  sourcePage: SCRATCH_PAGE + 2 * i,
  source: wordsOf(SCRATCH_FRAME + 2 * i),
  sinkPage: SCRATCH_PAGE + 2 * i + 1,
  sink: wordsOf(SCRATCH_FRAME + 2 * i + 1),
}));

/** The address space of the kernel's own, attached to a device so that it has the same limits. */
const iommufd = new HostIommufd();
const other = new HostDevice(await bindToVfio(OTHER));
other.bind(iommufd);
eduOf(other);
const ioas = iommufd.allocate();
assertEquals(other.attach(ioas), 0);
const anything = new TestMemory(LONGEST);

/** A range of pages, inclusive. */
type Range = readonly [first: number, last: number];

const random = new Random(seed());
/** The mappings that there are. */
let mappings: Range[] = [];
const counts = { maps: 0, unmaps: 0, refused: 0, foundNothing: 0, removedBefore: 0, probes: 0 };

/** A random range that is not around the end of what can be mapped. */
function randomRange(): Range {
  const first = random.pick(BEGINNINGS) + random.below(SPREAD);
  return [first, first + random.below(LONGEST)];
}

/** A range for an UNMAP: a mapping, several, part of one, or anything. */
function rangeToUnmap(): Range {
  if (mappings.length === 0 || random.below(4) === 0) return randomRange();
  const [first, last] = random.pick(mappings);
  const more = random.below(3) === 0 ? random.below(LONGEST) : 0;
  const cut = random.below(4) === 0 ? 1 : 0;
  return [Math.max(0, first - more) + cut, last + more];
}

/** Maps at random, here and there. */
function mapBoth(): void {
  const [first, last] = randomRange();
  // Some lead to frames behind the RAM, which no device may reach.
  const frame = FIRST_FRAME + random.below(FRAMES);
  const isRam = random.below(8) > 0;
  const index = isRam ? Math.min(frame, SCRATCH_FRAME - (last - first + 1)) : frame + 0x1000;
  const protection = random.pick([READ, WRITE, READ | WRITE, READ | WRITE]);
  const here = space.map(first, last, pages, index, protection);
  const length = BigInt(last - first + 1) * 4096n;
  const there = iommufd.map(ioas, BigInt(first) * 4096n, anything.file, 0n, length);
  counts.maps++;
  if (here === OK) mappings.push([first, last]);
  else counts.refused++;
  // Beyond what a table of ours can translate is ERANGE; the kernel has one error for all that is reserved.
  const expected = here === OK ? 0 : here === EEXIST ? EEXIST : EINVAL;
  assertEquals(there, expected, `MAP of ${first} to ${last} is ${here} here, ${there} there`);
}

/** Unmaps at random, here and there. */
function unmapBoth(): void {
  const [first, last] = rangeToUnmap();
  const here: Errno = space.unmap(first, last);
  const there = iommufd.unmap(ioas, BigInt(first) * 4096n, BigInt(last - first + 1) * 4096n);
  counts.unmaps++;
  const what = `UNMAP of ${first} to ${last} is ${here} here, ${there} there`;
  if (here === OK && space.removedPages === 0) {
    counts.foundNothing++;
    assertEquals(there, ENOENT, what);
    return;
  }
  assertEquals(there, here, what);
  if (here === OK) {
    mappings = mappings.filter(([from, to]) => from < first || to > last);
    return;
  }
  counts.refused++;
  // What the kernel has removed of it is mapped again.
  for (const [from, to] of mappings) {
    if (from < first || to > last) continue;
    const length = BigInt(to - from + 1) * 4096n;
    const errno = iommufd.map(ioas, BigInt(from) * 4096n, anything.file, 0n, length);
    if (errno === 0) counts.removedBefore++;
    else assertEquals(errno, EEXIST);
  }
}

const result = new WalkResult();

/** What a walk of our table leads to. */
function walked(page: number, access: number): Reached {
  unit.walk(SOURCE_ID, page, access, result);
  if (!result.ok) return "nothing";
  const frame = result.frame - FIRST_FRAME;
  return frame >= 0 && frame < FRAMES ? frame : "nothing";
}

/** A page to look at: in a mapping, beside one, or anywhere. */
function pageToProbe(): number {
  if (mappings.length === 0 || random.below(4) === 0) return randomRange()[0];
  const [first, last] = random.pick(mappings);
  return Math.min(2 ** 36 - 1, first + random.below(last - first + 2));
}

/** Has all devices write and read at random pages. */
async function probe(): Promise<void> {
  const written = probes.map(pageToProbe);
  const targets = written.map((page) => walked(page, WRITE));
  const arrived = await findWrites(probes, written, mapped);
  for (let i = 0; i < probes.length; i++) {
    // Of two that write to one frame the later one is found.
    const isOverwritten = arrived[i] === "nothing" &&
      targets.some((frame, j) => j !== i && frame === targets[i] && arrived[j] === frame);
    if (isOverwritten) continue;
    assertEquals(arrived[i], targets[i], `a write to page ${written[i]}`);
  }
  const read = probes.map(pageToProbe);
  const found = await findReads(probes, read, mapped);
  assertEquals(found, read.map((page) => walked(page, READ)), `reads from pages ${read}`);
  counts.probes += 2 * probes.length;
}

const steps = Number(Deno.env.get("steps") ?? 10);

await check(`After each of ${steps} random steps devices reach what our table says`, async () => {
  // Several calls for each look, which takes almost half a second.
  for (let step = 0; step < steps; step++) {
    for (let i = random.below(4); i >= 0; i--) {
      if (random.below(3) < 2) mapBoth();
      else unmapBoth();
    }
    await probe();
  }
});

await check("Refusals agree with the kernel's, but for what is listed", () => {
  // Calls take some microseconds: many of them.
  for (let i = 0; i < 3000; i++) {
    if (random.below(2) === 0) mapBoth();
    else unmapBoth();
  }
  tell("histories", counts);
  const { refused, foundNothing, removedBefore } = counts;
  assert(refused > 100 && foundNothing > 10 && removedBefore > 10, JSON.stringify(counts));
});

await check("After an UNMAP of everything no device reaches anything", async () => {
  assertEquals(space.unmap(0, SCRATCH_PAGE - 1), OK);
  assertEquals(space.unmap(scratchLast + 1, 2 ** 36 - 1), OK);
  mappings = [];
  await probe();
});
