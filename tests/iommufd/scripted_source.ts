/** Sources for tests: frames as scripted, faults on demand, every pin counted and logged. */
import { EFAULT, type Errno, OK } from "../../iommufd/errno.ts";
import {
  DEVICE_RUN,
  type FrameBatch,
  RAM_RUN,
  type SourceRegion,
  type StableSource,
  type UnstableSource,
} from "../../iommufd/memory_source.ts";
import type { PageList } from "../../iommufd/page_list.ts";
import { PinBudget } from "../../iommufd/pin_budget.ts";
import { EventLog, FaultPlan } from "./fault_plan.ts";

/** Frames of which none are adjacent. */
export function disc(count: number, base: number = 1000): number[] {
  return Array.from({ length: count }, (_, at) => base + at * 3);
}

/** Adjacent frames. */
export function contig(count: number, base: number = 1000): number[] {
  return Array.from({ length: count }, (_, at) => base + at);
}

export interface ScriptOptions {
  /** First index of the device memory at the end; none unless said. */
  readonly deviceFrom?: number;
  /** Device memory in [from, to] instead. */
  readonly device?: readonly [number, number];
  /** Most pages one call pins. */
  readonly pinLimit?: number;
  readonly log?: EventLog;
  readonly plan?: FaultPlan;
}

/** Index i has frame frames[i], whatever the sort of the source. */
abstract class Script {
  readonly pages: number;
  runLast = 0;
  runKind: number = RAM_RUN;
  runFrame = -1;
  readonly runRegion: SourceRegion;
  /** Index that cannot be pinned or reached, or -1. */
  faultAt = -1;
  /** Answers OK without pinning anything, which is a bug of the source. */
  pinsNothing = false;
  /** The owner has died: nothing new can be pinned or read by index. */
  isGone = false;
  pinCalls = 0;
  /** Called in the middle of a pin, an unpin or a copy, to try to get in. */
  onPin: (() => void) | null = null;
  readonly log: EventLog;
  readonly plan: FaultPlan;
  readonly memory = new Map<number, Uint8Array>();
  readonly #device: readonly [number, number];

  constructor(readonly frames: readonly number[], options: ScriptOptions) {
    this.pages = frames.length;
    this.runRegion = { id: 0, firstIndex: 0, lastIndex: frames.length - 1 };
    this.log = options.log ?? new EventLog();
    this.plan = options.plan ?? new FaultPlan();
    this.#device = options.device ?? [options.deviceFrom ?? frames.length, frames.length - 1];
  }

  /** Pins by frame. */
  abstract get pins(): ReadonlyMap<number, number>;

  get pinnedFrames(): number {
    return this.pins.size;
  }

  isDevice(index: number): boolean {
    return index >= this.#device[0] && index <= this.#device[1];
  }

  frameBytes(frame: number): Uint8Array {
    this.onPin?.();
    let bytes = this.memory.get(frame);
    if (bytes === undefined) this.memory.set(frame, bytes = new Uint8Array(4096));
    return bytes;
  }

  moveBytes(
    _region: SourceRegion,
    index: number,
    offset: number,
    bytes: Uint8Array,
    isWrite: boolean,
  ): Errno {
    for (let done = 0; done < bytes.length; index++, offset = 0) {
      if (this.isGone || index === this.faultAt || index >= this.pages) return EFAULT;
      const memory = this.frameBytes(this.frames[index]);
      const part = bytes.subarray(done, done + 4096 - offset);
      if (isWrite) memory.set(part, offset);
      else part.set(memory.subarray(offset, offset + part.length));
      done += part.length;
    }
    return OK;
  }

  /** Finds the run that an index begins; it ends where the kind changes, or frames do that are told. */
  protected findKind(index: number, last: number, isTold: boolean): void {
    this.runKind = this.isDevice(index) ? DEVICE_RUN : RAM_RUN;
    const isKnown = isTold || this.runKind === DEVICE_RUN;
    this.runFrame = isKnown ? this.frames[index] : -1;
    let end = index;
    while (
      end < last && this.isDevice(end + 1) === this.isDevice(index) &&
      (!isKnown || this.frames[end + 1] === this.frames[end] + 1)
    ) end++;
    this.runLast = end;
  }
}

/** A stable source. What is pinned is what its list holds. */
export class StableScript extends Script implements StableSource {
  readonly isStable = true;
  /** The list over it. */
  list: PageList | null = null;

  get pins(): ReadonlyMap<number, number> {
    const pins = new Map<number, number>();
    this.frames.forEach((frame, index) => {
      if (!this.isDevice(index) && !this.list!.held.isUnheld(index, index)) pins.set(frame, 1);
    });
    return pins;
  }

  findRun(index: number, last: number): void {
    this.findKind(index, last, true);
  }
}

/** An unstable source. */
export class ScriptedSource extends Script implements UnstableSource {
  readonly isStable = false;
  readonly pins = new Map<number, number>();
  readonly #pinLimit: number;

  constructor(frames: readonly number[], options: ScriptOptions = {}) {
    super(frames, options);
    this.#pinLimit = options.pinLimit ?? Infinity;
  }

  findRun(index: number, last: number): void {
    this.findKind(index, last, false);
  }

  pin(firstIndex: number, lastIndex: number, into: FrameBatch): Errno {
    this.pinCalls++;
    this.onPin?.();
    if (this.plan.fails("pin") || this.isGone) return EFAULT;
    if (this.pinsNothing) return OK;
    const last = Math.min(lastIndex, firstIndex + this.#pinLimit - 1);
    let pinned = 0;
    for (let index = firstIndex; index <= last; index++) {
      if (index === this.faultAt) break;
      if (this.isDevice(index)) throw new Error(`Device memory at ${index} is to be pinned`);
      const frame = this.frames[index];
      if (!into.append(frame, 1, RAM_RUN)) break;
      this.pins.set(frame, (this.pins.get(frame) ?? 0) + 1);
      this.log.add({ kind: "pin", by: "source", first: frame, count: 1 });
      pinned++;
    }
    return pinned === 0 ? EFAULT : OK;
  }

  unpin(frame: number, count: number): void {
    this.onPin?.();
    for (let at = frame; at < frame + count; at++) {
      const pins = this.pins.get(at) ?? 0;
      if (pins === 0) throw new Error(`Frame ${at} is unpinned but not pinned`);
      if (pins === 1) this.pins.delete(at);
      else this.pins.set(at, pins - 1);
      this.log.add({ kind: "unpin", by: "source", first: at, count: 1 });
    }
  }
}

/** A budget that can be told to refuse. */
export class PlannedBudget extends PinBudget {
  constructor(limitPages: number, readonly plan: FaultPlan, readonly log: EventLog) {
    super(limitPages);
  }

  override charge(pages: number): boolean {
    if (this.plan.fails("charge")) return false;
    const isCharged = super.charge(pages);
    if (isCharged) this.log.add({ kind: "charge", by: "budget", first: 0, count: pages });
    return isCharged;
  }

  override uncharge(pages: number): void {
    super.uncharge(pages);
    this.log.add({ kind: "uncharge", by: "budget", first: 0, count: pages });
  }
}
