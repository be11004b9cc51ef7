/**
 * Calls of `/dev/iommu` and of VFIO devices, one after the other, and a record of how a kernel answers them.
 *
 * The answers of a real Linux are in `recorded_answers.json`. `tests/guest/passthrough_test.ts` makes the calls in an L1 guest
 * and compares, so the record stays true of the kernel that the lab boots; `recorded_answers_test.ts` compares what the
 * fake kernel answers, so that it cannot be kinder than Linux. Ids are compared as they are: Linux gives out the lowest that is free.
 *
 * @module
 */
import { errnoName } from "../../../device/host/mod.ts";
import { type CallName, FIXED, READABLE, Structure, WRITEABLE } from "./kernel_structures.ts";

/** The machine: a VT-d IOMMU (second stage), a device that is alone in its IOMMU group, and two that share one. */
export interface RecordedKernel {
  /** 0, or the errno (above 0). */
  ioctl(file: number, request: number, argument: Uint8Array<ArrayBuffer>): number;
  /** Opens `/dev/iommu`; the descriptor. */
  openIommufd(): number;
  /** Opens a device's file: 0 is alone, 1 and 2 share a group. */
  openDevice(index: number): number;
  /** A new memory file of so many bytes; the descriptor. */
  memoryFile(bytes: number): number;
  /** Closes any of them. */
  close(file: number): void;
  /** The calls meanwhile are those of an ordinary user who may lock so many bytes. */
  asUser(bytes: number, calls: () => void): void;
}

/** How a call was answered. */
export interface Answer {
  readonly step: string;
  readonly call: CallName;
  /** Its name, or OK. */
  readonly errno: string;
  /** Fields of the structure afterwards, in hexadecimal. */
  readonly out?: Readonly<Record<string, string>>;
}

const PAGE = 4096n;
const RW = FIXED | READABLE | WRITEABLE;
const LAST = 2n ** 64n - 1n;
/** Errors that the runtime has no name for. */
const NAMES: Readonly<Record<number, string>> = { 0: "OK", 75: "EOVERFLOW" };

/** Makes calls and records their answers. */
class Recorder {
  readonly answers: Answer[] = [];
  readonly #kernel: RecordedKernel;

  constructor(kernel: RecordedKernel) {
    this.#kernel = kernel;
  }

  /** Makes a call on a file and records the answer with some fields; the structure. */
  call(
    step: string,
    file: number,
    call: CallName,
    fields: Readonly<Record<string, number | bigint>>,
    outputs: readonly string[] = [],
  ): Structure {
    const structure = new Structure(call, fields);
    const errno = this.#kernel.ioctl(file, structure.number, structure.bytes);
    const answer = { step, call, errno: NAMES[errno] ?? errnoName(errno) };
    const out = outputs.map((name) => [name, `0x${structure.get(name).toString(16)}`] as const);
    this.answers.push(out.length === 0 ? answer : { ...answer, out: Object.fromEntries(out) });
    return structure;
  }

  /** A new I/O address space; its id. */
  allocate(step: string, iommufd: number): number {
    return Number(this.call(step, iommufd, "IOAS_ALLOC", {}, ["id"]).get("id"));
  }

  /** Asks for the ranges of an I/O address space, and records them. */
  ranges(step: string, iommufd: number, ioas: number): void {
    const found = new BigUint64Array(16);
    const pointer = Deno.UnsafePointer.value(Deno.UnsafePointer.of(found));
    this.call(step, iommufd, "IOVA_RANGES", { ioas, count: 8, pointer }, ["count", "alignment"]);
    const last = this.answers.pop();
    if (last === undefined) throw new Error("No answer is recorded");
    const out: Record<string, string> = { ...last.out };
    for (let i = 0; i < Number(out.count); i++) {
      out[`range${i}`] = `0x${found[2 * i].toString(16)}-0x${found[2 * i + 1].toString(16)}`;
    }
    this.answers.push({ ...last, out });
  }
}

/** Makes all calls. Returns the answers, in order. */
export function recordAnswers(kernel: RecordedKernel): readonly Answer[] {
  const recorder = new Recorder(kernel);
  recordOpening(kernel, recorder);
  recordAttaching(kernel, recorder);
  recordMapping(kernel, recorder);
  recordUnmapping(kernel, recorder);
  recordFiles(kernel, recorder);
  recordAperture(kernel, recorder);
  recordGroups(kernel, recorder);
  recordLockedMemory(kernel, recorder);
  recordOthers(kernel, recorder);
  return recorder.answers;
}

/** The order in which a device is opened, bound and used. */
function recordOpening(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const other = kernel.openIommufd();
  const device = kernel.openDevice(0);
  recorder.call("ATTACH before BIND", device, "ATTACH", { id: 1 });
  recorder.call("DETACH before BIND", device, "DETACH", {});
  recorder.call("REGION_INFO before BIND", device, "REGION_INFO", { index: 0 });
  recorder.call("BIND with an unknown flag", device, "BIND", { flags: 2, iommufd });
  recorder.call("BIND to no descriptor", device, "BIND", { iommufd: -1 });
  recorder.call("BIND", device, "BIND", { iommufd }, ["id"]);
  recorder.call("BIND a second time", device, "BIND", { iommufd });
  recorder.call("BIND a second time, to another iommufd", device, "BIND", { iommufd: other });
  const second = kernel.openDevice(0);
  recorder.call("BIND of a second file of the device", second, "BIND", { iommufd });
  kernel.close(second);
  recorder.call("DETACH of a device that was never attached", device, "DETACH", {});
  recorder.call("HARDWARE_INFO", iommufd, "HARDWARE_INFO", { device: 1 }, ["type"]);
  recorder.call("HARDWARE_INFO of nothing", iommufd, "HARDWARE_INFO", { device: 7 });
  recorder.call("DESTROY of a bound device", iommufd, "DESTROY", { id: 1 });
  recorder.call("IOAS_ALLOC with a flag", iommufd, "IOAS_ALLOC", { flags: 1 });
  recorder.allocate("IOAS_ALLOC", iommufd);
  recorder.call("HARDWARE_INFO of an I/O address space", iommufd, "HARDWARE_INFO", { device: 2 });
  for (const file of [device, iommufd, other]) kernel.close(file);
}

/** Attaching, replacing and detaching, and the ids that come of it. */
function recordAttaching(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const device = kernel.openDevice(0);
  recorder.call("A device, bound", device, "BIND", { iommufd }, ["id"]);
  const first = recorder.allocate("a first I/O address space", iommufd);
  recorder.call("ATTACH", device, "ATTACH", { id: first }, ["id"]);
  recorder.call("ATTACH to the same again", device, "ATTACH", { id: first }, ["id"]);
  recorder.call("ATTACH to nothing", device, "ATTACH", { id: 99 });
  recorder.call("ATTACH to a device", device, "ATTACH", { id: 1 });
  recorder.call("DESTROY of what is attached", iommufd, "DESTROY", { id: first });
  recorder.call("DESTROY of the page table that ATTACH made", iommufd, "DESTROY", { id: 3 });
  const second = recorder.allocate("a second I/O address space", iommufd);
  recorder.call("ATTACH to the second: a replacement", device, "ATTACH", { id: second }, ["id"]);
  recorder.call("DESTROY of the first page table, which is gone", iommufd, "DESTROY", { id: 3 });
  recorder.allocate("a third I/O address space, with the id of the page table", iommufd);
  recorder.call("DESTROY of the first, which nothing uses", iommufd, "DESTROY", { id: first });
  recorder.allocate("another with the id of the first", iommufd);
  recorder.call("DETACH", device, "DETACH", {});
  recorder.call("DETACH a second time", device, "DETACH", {});
  recorder.call("DESTROY of the second page table, which is gone", iommufd, "DESTROY", { id: 5 });
  recorder.call("DESTROY of the second", iommufd, "DESTROY", { id: second });
  recorder.call("DESTROY a second time", iommufd, "DESTROY", { id: second });
  for (const file of [device, iommufd]) kernel.close(file);
}

/** What a mapping may be. */
function recordMapping(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const device = kernel.openDevice(0);
  const file = kernel.memoryFile(64 * 4096);
  recorder.call("For mappings: BIND", device, "BIND", { iommufd });
  const ioas = recorder.allocate("for mappings: IOAS_ALLOC", iommufd);
  recorder.call("for mappings: ATTACH", device, "ATTACH", { id: ioas });
  function map(step: string, fields: Readonly<Record<string, number | bigint>>): void {
    const usual = { flags: RW, ioas, file, offset: 0, length: PAGE, iova: 0x10_0000n };
    recorder.call(`MAP_FILE ${step}`, iommufd, "MAP_FILE", { ...usual, ...fields });
  }
  map("of a page", {});
  map("of the same page again", {});
  map("over a page that is mapped", { iova: 0xf_e000n, length: 4n * PAGE });
  map("to be read only", { iova: 0x20_0000n, flags: FIXED | READABLE });
  map("to be written only", { iova: 0x21_0000n, flags: FIXED | WRITEABLE });
  map("neither to be read nor written", { iova: 0x22_0000n, flags: FIXED });
  map("with an unknown flag", { iova: 0x22_0000n, flags: RW | 8 });
  map("in the window of message interrupts", { iova: 0xfee0_0000n });
  map("into the window of message interrupts", { iova: 0xfedf_f000n, length: 2n * PAGE });
  map("just before the window of message interrupts", { iova: 0xfedf_f000n });
  map("just behind the window of message interrupts", { iova: 0xfef0_0000n });
  map("of the last page of the aperture", { iova: 2n ** 48n - PAGE });
  map("beyond the aperture", { iova: 2n ** 48n });
  map("into what is beyond the aperture", { iova: 2n ** 48n - 2n * PAGE, length: 4n * PAGE });
  map("at the end of all addresses", { iova: LAST - PAGE + 1n });
  map("around the end of all addresses", { iova: LAST - PAGE + 1n, length: 2n * PAGE });
  map("at an address off the page", { iova: 0x30_0010n });
  map("of a length off the page", { iova: 0x30_0000n, length: 0x800n });
  map("from an offset off the page", { iova: 0x30_0000n, offset: 0x10 });
  map("of nothing", { iova: 0x30_0000n, length: 0 });
  map("into no I/O address space", { ioas: 99 });
  map("into a device", { ioas: 1 });
  const usual = { flags: RW, ioas, length: PAGE, iova: 0x40_0000n };
  recorder.call("MAP of an address that nothing is at", iommufd, "MAP", {
    ...usual,
    address: 0x1000,
  });
  recorder.call("MAP of an address off the page", iommufd, "MAP", { ...usual, address: 0x1010 });
  for (const each of [device, iommufd, file]) kernel.close(each);
}

/** What UNMAP removes, and what it says. */
function recordUnmapping(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const device = kernel.openDevice(0);
  const file = kernel.memoryFile(64 * 4096);
  recorder.call("For UNMAP: BIND", device, "BIND", { iommufd });
  const ioas = recorder.allocate("for UNMAP: IOAS_ALLOC", iommufd);
  recorder.call("for UNMAP: ATTACH", device, "ATTACH", { id: ioas });
  function map(page: bigint, pages: bigint): void {
    const fields = { flags: RW, ioas, file, offset: 0, length: pages * PAGE, iova: page * PAGE };
    recorder.call(`pages ${page} to ${page + pages - 1n}`, iommufd, "MAP_FILE", fields);
  }
  function unmap(step: string, iova: bigint, length: bigint): void {
    recorder.call(`UNMAP ${step}`, iommufd, "UNMAP", { ioas, iova, length }, ["length"]);
  }
  unmap("of what is not mapped", 0x10_0000n, PAGE);
  unmap("of nothing", 0x10_0000n, 0n);
  unmap("around the end of all addresses", LAST - PAGE + 1n, 2n * PAGE);
  unmap("of everything, of which there is nothing", 0n, LAST);
  map(0x100n, 4n);
  unmap("of the first page of four", 0x10_0000n, PAGE);
  unmap("of the last page of four", 0x10_3000n, PAGE);
  unmap("of two pages in the middle of four", 0x10_1000n, 2n * PAGE);
  unmap("of the four", 0x10_0000n, 4n * PAGE);
  unmap("of the four a second time", 0x10_0000n, 4n * PAGE);
  map(0x100n, 1n);
  map(0x102n, 2n);
  map(0x110n, 1n);
  unmap("of three mappings with gaps, and what is around", 0xf_0000n, 0x10_0000n);
  map(0x100n, 2n);
  map(0x102n, 2n);
  unmap("of a mapping and a half", 0x10_0000n, 3n * PAGE);
  unmap("of that mapping, which is gone", 0x10_0000n, 2n * PAGE);
  unmap("of the other, which is there", 0x10_2000n, 2n * PAGE);
  map(0x100n, 2n);
  map(0x102n, 2n);
  unmap("of a half and a mapping", 0x10_1000n, 3n * PAGE);
  unmap("of the second, which is there", 0x10_2000n, 2n * PAGE);
  unmap("of the first, which is there", 0x10_0000n, 2n * PAGE);
  map(0x100n, 1n);
  unmap("to beyond the aperture", 0n, 2n ** 60n);
  map(0x100n, 1n);
  map(0x200n, 8n);
  unmap("of everything", 0n, LAST);
  recorder.call("UNMAP in no I/O address space", iommufd, "UNMAP", { ioas: 99, length: PAGE });
  for (const each of [device, iommufd, file]) kernel.close(each);
}

/** Which files, and which part of them, can be mapped. They are looked at when pages are pinned. */
function recordFiles(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const device = kernel.openDevice(0);
  const file = kernel.memoryFile(4 * 4096);
  recorder.call("For files: BIND", device, "BIND", { iommufd });
  const ioas = recorder.allocate("for files: IOAS_ALLOC", iommufd);
  function map(step: string, fields: Readonly<Record<string, number | bigint>>): void {
    const usual = { flags: RW, ioas, file, offset: 3n * PAGE, length: PAGE };
    recorder.call(`MAP_FILE ${step}`, iommufd, "MAP_FILE", { ...usual, ...fields });
  }
  function unmap(step: string, iova: bigint): void {
    const fields = { ioas, iova, length: PAGE };
    recorder.call(`UNMAP ${step}`, iommufd, "UNMAP", fields, ["length"]);
  }
  map("of the last page, without a device", { iova: 0x10_0000n });
  map("of no descriptor", { iova: 0x20_0000n, file: -1 });
  map("of an open /dev/iommu, without a device", { iova: 0x20_0000n, file: iommufd });
  unmap("of that", 0x20_0000n);
  map("behind the end, without a device", { iova: 0x20_0000n, offset: 4n * PAGE });
  recorder.call("ATTACH with a mapping behind the end", device, "ATTACH", { id: ioas });
  unmap("of what is behind the end", 0x20_0000n);
  recorder.call("for files: ATTACH", device, "ATTACH", { id: ioas });
  map("behind the end, with a device", { iova: 0x20_0000n, offset: 4n * PAGE });
  map("across the end, with a device", { iova: 0x20_0000n, length: 2n * PAGE });
  unmap("of what could not be mapped", 0x20_0000n);
  kernel.close(file);
  unmap("after the file is closed", 0x10_0000n);
  for (const each of [device, iommufd]) kernel.close(each);
}

/** The ranges of an I/O address space, and mappings in a window of the device that is attached. */
function recordAperture(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const device = kernel.openDevice(0);
  const file = kernel.memoryFile(4096);
  recorder.call("For ranges: BIND", device, "BIND", { iommufd });
  const ioas = recorder.allocate("for ranges: IOAS_ALLOC", iommufd);
  recorder.call("IOVA_RANGES with no room", iommufd, "IOVA_RANGES", { ioas, count: 0 }, ["count"]);
  recorder.call("IOVA_RANGES of a device", iommufd, "IOVA_RANGES", { ioas: 1, count: 0 });
  recorder.call("IOVA_RANGES of nothing", iommufd, "IOVA_RANGES", { ioas: 99, count: 0 });
  recorder.ranges("IOVA_RANGES without a device", iommufd, ioas);
  recorder.call(
    "HWPT_ALLOC",
    iommufd,
    "HWPT_ALLOC",
    { device: 1, parent: ioas },
    ["id"],
  );
  recorder.ranges("IOVA_RANGES with a page table, no device attached", iommufd, ioas);
  recorder.call("DESTROY of an I/O address space with a page table", iommufd, "DESTROY", {
    id: ioas,
  });
  recorder.call("DESTROY of that page table", iommufd, "DESTROY", { id: 3 });
  recorder.ranges("IOVA_RANGES without the page table", iommufd, ioas);
  recorder.call("for ranges: ATTACH", device, "ATTACH", { id: ioas });
  recorder.ranges("IOVA_RANGES with a device", iommufd, ioas);
  recorder.call("for ranges: DETACH", device, "DETACH", {});
  recorder.ranges("IOVA_RANGES after the device has left", iommufd, ioas);
  recorder.call("MAP_FILE in the window while no device is there", iommufd, "MAP_FILE", {
    flags: RW,
    ioas,
    file,
    length: PAGE,
    iova: 0xfee0_0000n,
  });
  recorder.call("ATTACH with a mapping in the window", device, "ATTACH", { id: ioas });
  for (const each of [device, iommufd, file]) kernel.close(each);
}

/** Two devices of one IOMMU group. */
function recordGroups(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const other = kernel.openIommufd();
  const one = kernel.openDevice(1);
  const two = kernel.openDevice(2);
  recorder.call("BIND of the first of a group", one, "BIND", { iommufd }, ["id"]);
  recorder.call("BIND of the second to another iommufd", two, "BIND", { iommufd: other });
  recorder.call("BIND of the second to the same", two, "BIND", { iommufd }, ["id"]);
  const first = recorder.allocate("for a group: a first I/O address space", iommufd);
  const second = recorder.allocate("for a group: a second one", iommufd);
  recorder.call("ATTACH of the first of a group", one, "ATTACH", { id: first }, ["id"]);
  recorder.call("ATTACH of the second elsewhere", two, "ATTACH", { id: second });
  recorder.call("ATTACH of the second to the same", two, "ATTACH", { id: first }, ["id"]);
  recorder.call("ATTACH of the first elsewhere", one, "ATTACH", { id: second }, ["id"]);
  recorder.call("DESTROY of where both were", iommufd, "DESTROY", { id: first });
  recorder.call("DETACH of the first of a group", one, "DETACH", {});
  recorder.call("DESTROY of where the second is", iommufd, "DESTROY", { id: second });
  recorder.call("DETACH of the second of a group", two, "DETACH", {});
  recorder.call("DESTROY without a device attached", iommufd, "DESTROY", { id: second });
  for (const each of [one, two, iommufd, other]) kernel.close(each);
}

/** What is charged to the limit of locked memory. */
function recordLockedMemory(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const device = kernel.openDevice(0);
  const file = kernel.memoryFile(8 << 20);
  recorder.call("For locked memory: BIND", device, "BIND", { iommufd });
  const ioas = recorder.allocate("for locked memory: IOAS_ALLOC", iommufd);
  const half = 4n << 20n;
  const usual = { flags: RW, ioas, file, offset: 0, length: half };
  recorder.call("for locked memory: ATTACH", device, "ATTACH", { id: ioas });
  kernel.asUser(8 << 20, () => {
    recorder.call("MAP_FILE of half the limit", iommufd, "MAP_FILE", { ...usual, iova: 1n << 30n });
    recorder.call("MAP_FILE of the other half", iommufd, "MAP_FILE", { ...usual, iova: 2n << 30n });
    const page = { ...usual, iova: 3n << 30n, length: PAGE };
    recorder.call("MAP_FILE of a page more, charged before", iommufd, "MAP_FILE", page);
    recorder.call("UNMAP of one half", iommufd, "UNMAP", { ioas, iova: 1n << 30n, length: half });
    recorder.call("MAP_FILE of the page again", iommufd, "MAP_FILE", page);
    recorder.call("DETACH at the limit", device, "DETACH", {});
    recorder.call(
      "MAP_FILE beyond the limit without a device",
      iommufd,
      "MAP_FILE",
      { ...usual, iova: 4n << 30n },
    );
    recorder.call("ATTACH beyond the limit", device, "ATTACH", { id: ioas });
  });
  for (const each of [device, iommufd, file]) kernel.close(each);
}

/** What `device/vfio` does not use, and why it cannot or need not. */
function recordOthers(kernel: RecordedKernel, recorder: Recorder): void {
  const iommufd = kernel.openIommufd();
  const device = kernel.openDevice(0);
  const file = kernel.memoryFile(16 * 4096);
  recorder.call("For other calls: BIND", device, "BIND", { iommufd });
  const from = recorder.allocate("for other calls: a first I/O address space", iommufd);
  const to = recorder.allocate("for other calls: a second one", iommufd);
  // Dirty tracking, which none of the IOMMUs that QEMU emulates has.
  const tracked = { flags: 2, device: 1, parent: from };
  recorder.call("HWPT_ALLOC with dirty tracking", iommufd, "HWPT_ALLOC", tracked);
  const mapped = { flags: RW, ioas: from, file, length: 8n * PAGE, iova: 0 };
  recorder.call("MAP_FILE of what is copied", iommufd, "MAP_FILE", mapped);
  const copied = { flags: RW, to, from, source: 2n * PAGE, length: 2n * PAGE, iova: 0x10_0000n };
  recorder.call("COPY of a part of a mapping", iommufd, "COPY", copied);
  recorder.call("COPY to where something is", iommufd, "COPY", copied);
  const hole = { ...copied, source: 7n * PAGE, iova: 0x20_0000n };
  recorder.call("COPY of a part that reaches beyond the mapping", iommufd, "COPY", hole);
  for (const each of [device, iommufd, file]) kernel.close(each);
}
