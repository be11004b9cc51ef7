/**
 * The kernel of `fake_iommufd.ts` answers as a real one did: what tests of `device/vfio` prove over it, they prove of a
 * kernel that is no kinder than Linux. `recorded_calls.ts` has the calls, `recorded_answers.json` the real answers.
 */
import { assertEquals } from "@std/assert";
import { createMemoryFile, type Descriptor } from "../../../device/host/mod.ts";
import { FakeKernel } from "./fake_iommufd.ts";
import { type FakeDevice, FakeGroup, type FakeIommufd } from "./fake_objects.ts";
import { CALLS } from "./kernel_structures.ts";
import { type Answer, recordAnswers, type RecordedKernel } from "./recorded_calls.ts";

/** What is not asked of the fake: `device/vfio` never calls it, or it is the VMM's to call. */
const NOT_ASKED: readonly string[] = ["BIND", "COPY"];
/** Nor these calls: nothing of ours gives flags, and a mapping always has an access. */
const NOT_MADE = [
  "MAP_FILE with an unknown flag",
  "HWPT_ALLOC with dirty tracking",
];

const EINVAL = 22;
const EPERM = 1;

/** The fake kernel as a machine with three devices. It is made anew whenever everything is closed. */
class FakeMachine implements RecordedKernel, Disposable {
  #kernel = new FakeKernel();
  #shared = new FakeGroup();
  readonly #files = new Map<number, Descriptor>();
  readonly #iommufds = new Map<number, FakeIommufd>();
  readonly #devices = new Map<number, FakeDevice>();

  ioctl(file: number, request: number, argument: Uint8Array<ArrayBuffer>): number {
    if (request !== CALLS.BIND.number) return this.#kernel.ioctl(file, request, argument);
    return this.#bind(file, new DataView(argument.buffer));
  }

  /** What a VMM does, which is no call of the fake's. */
  #bind(file: number, argument: DataView): number {
    const device = this.#devices.get(file);
    const iommufd = this.#iommufds.get(argument.getInt32(8, true));
    const isFirst = [...this.#devices.keys()][0] === file;
    const isSibling = device?.group === this.#shared;
    if (device === undefined || iommufd === undefined || device.owner !== null) return EINVAL;
    if (argument.getUint32(4, true) !== 0 || (!isFirst && !isSibling)) return EINVAL;
    const owners = [...this.#devices.values()].map(({ owner }) => owner);
    if (owners.some((owner) => owner !== null && owner !== iommufd)) return EPERM;
    device.owner = iommufd;
    argument.setUint32(12, iommufd.add(device), true);
    return 0;
  }

  openIommufd(): number {
    const opened = this.#kernel.openIommufd();
    this.#iommufds.set(opened.file.number, opened);
    return this.#opened(opened.file);
  }

  openDevice(index: number): number {
    const group = index === 0 ? new FakeGroup() : this.#shared;
    const opened = this.#kernel.openDevice({ group });
    this.#devices.set(opened.file.number, opened);
    return this.#opened(opened.file);
  }

  memoryFile(bytes: number): number {
    return this.#opened(createMemoryFile("recorded", bytes));
  }

  #opened(file: Descriptor): number {
    this.#files.set(file.number, file);
    return file.number;
  }

  close(number: number): void {
    this.#files.get(number)?.close();
    for (const map of [this.#files, this.#iommufds, this.#devices]) map.delete(number);
    if (this.#files.size > 0) return;
    this[Symbol.dispose]();
    this.#kernel = new FakeKernel();
    this.#shared = new FakeGroup();
  }

  asUser(bytes: number, calls: () => void): void {
    this.#kernel.mostPinned = bytes / 4096;
    calls();
  }

  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }
}

/** The answers that are compared. */
function comparable(answers: readonly Answer[]): readonly Answer[] {
  return answers.filter(({ step, call }) => !NOT_ASKED.includes(call) && !NOT_MADE.includes(step));
}

Deno.test("the kernel that tests of device/vfio run over answers as a real one did", async () => {
  const record = await Deno.readTextFile(new URL("recorded_answers.json", import.meta.url));
  using machine = new FakeMachine();
  assertEquals(comparable(recordAnswers(machine)), comparable(JSON.parse(record)));
});
