/**
 * Memory that the holder and one worker share: a mutex by which the holder knows at once that the worker is dead, and a
 * count of what the worker has done.
 *
 * The holder never unmaps it, as the host requires of such a mutex (`device/host/robust_mutex.ts`): a page for each worker.
 */
import {
  createMemoryFile,
  type Descriptor,
  holdRobustMutex,
  initRobustMutex,
  mapMemoryFile,
  MUTEX_BYTES,
  robustMutexReleased,
  type SharedMemory,
} from "../host/mod.ts";

const PAGE_BYTES = 4096;
/** Where the count is, in words of 32 bits. */
const PROGRESS = 16;

/** The page of one worker, on either side. */
export class WorkerPage {
  readonly #mutex: Uint8Array<ArrayBuffer>;
  readonly #words: Int32Array<ArrayBuffer>;

  private constructor(memory: SharedMemory) {
    this.#mutex = new Uint8Array(memory.buffer, 0, MUTEX_BYTES);
    this.#words = new Int32Array(memory.buffer);
  }

  /** A new page, and its file, which is the caller's. */
  static create(): { readonly page: WorkerPage; readonly file: Descriptor } {
    const file = createMemoryFile("viommu-worker", PAGE_BYTES);
    const page = WorkerPage.map(file);
    initRobustMutex(page.#mutex);
    return { page, file };
  }

  /** The page in a file. */
  static map(file: Descriptor): WorkerPage {
    return new WorkerPage(mapMemoryFile(file, 0, PAGE_BYTES));
  }

  /** The worker holds the mutex from now on until its end. */
  hold(): void {
    if (!holdRobustMutex(this.#mutex)) throw new Error("Cannot hold the mutex of this worker");
  }

  /** Resolves when the worker that has called {@linkcode WorkerPage.hold} is dead. */
  async death(): Promise<void> {
    await robustMutexReleased(this.#mutex);
  }

  /** What the worker has done so far: a number that changes with each request that is served. */
  get progress(): number {
    return Atomics.load(this.#words, PROGRESS);
  }

  set progress(count: number) {
    Atomics.store(this.#words, PROGRESS, count | 0);
  }
}
