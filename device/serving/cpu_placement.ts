/**
 * Moves the loop away from the processor that its front end needs.
 *
 * A guest that waits for its IOMMU spins. If its thread and the loop's are on the same processor, each request costs a
 * time slice of 4 ms, in which one of the two waits for the other. The kernel separates them after 10 to 30 ms, when
 * it finds two busy threads there and an idle processor elsewhere. The kernel also brings them together, as it tends
 * to wake a thread where it was woken from. With a guest that maps page by page this was seen in a third of its
 * bursts: 20 to 30 µs a call instead of 14.
 *
 * So when the guest is quiet just after the loop woke up, or after the loop was preempted, the loop looks up where the
 * threads of the front end are, and moves away if one of them is on its processor.
 *
 * All times are milliseconds.
 */
import { currentProcessor, moveAwayFrom, type PeerThreads, ProcessorSet } from "../host/mod.ts";

/** Silence after which the loop may be the one that keeps the guest from going on. */
const SILENT_MS = 0.05;
/** Time between two looks at the clock that tells that this thread did not run meanwhile. */
const INTERRUPTED_MS = 1;

/** Room for the threads of one front end. */
export class CpuPlacement {
  readonly #threads: PeerThreads | undefined;
  readonly #busy = new ProcessorSet();
  /** Whether no thread of the front end was on this processor at the last look, and nothing has happened since. */
  #isMade = false;
  #lastLook = 0;

  /** @param threads The front end's, if they can be seen; closed with this object. */
  constructor(threads: PeerThreads | undefined) {
    this.#threads = threads;
  }

  /** The loop woke up. */
  begin(now: number): void {
    this.#isMade = false;
    this.#lastLook = now;
  }

  /** The loop comes back from something it did itself: that was no interruption. */
  back(now: number): void {
    this.#lastLook = now;
  }

  /**
   * To be called often while the loop polls the rings.
   *
   * @param silence For how long there has been no request.
   */
  look(now: number, silence: number): void {
    if (now - this.#lastLook >= INTERRUPTED_MS) this.#isMade = false;
    this.#lastLook = now;
    if (this.#isMade || silence < SILENT_MS) return;
    this.#isMade = true;
    this.make();
  }

  /**
   * Moves the calling thread to another processor if a thread of the front end runs on the same, or wants to.
   * Looking takes 3 to 7 µs a thread, moving 100.
   *
   * @returns whether it moved.
   */
  make(): boolean {
    if (this.#threads === undefined) return false;
    this.#busy.clear();
    this.#threads.addProcessors(this.#busy);
    return this.#busy.has(currentProcessor()) && moveAwayFrom(this.#busy);
  }

  /** Closes what shows the threads of the front end. */
  [Symbol.dispose](): void {
    this.#threads?.close();
  }
}
