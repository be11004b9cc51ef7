/**
 * A page table like an I/O address space of a kernel: what was mapped at once can only be unmapped as a whole.
 *
 * @module
 */
import { EADDRINUSE, EOPNOTSUPP, type Errno, OK, type PageTable } from "../../pagetable/mod.ts";

/** What one `map` was given. */
interface Whole {
  readonly first: number;
  readonly last: number;
  readonly frame: number;
  readonly protection: number;
}

/** The table. Throws where a kernel would remove a part and fail. */
export class WholeTable implements PageTable {
  readonly format = "whole";
  readonly firstPage = 0;
  readonly lastPage = 2 ** 48 - 1;
  readonly interruptPages = null;
  readonly lastFrame = 2 ** 52 - 1;
  readonly leafOrders = [0];
  readonly tracksDirty = false;
  readonly tablePages = 0;
  readonly unmapsWhole = true;
  readonly runLast = 0;
  /** What is mapped, by its first page. */
  readonly wholes: Map<number, Whole> = new Map();
  /** Says with which error a `map` fails. */
  fail: (first: number, last: number) => Errno = () => OK;

  map(first: number, last: number, frame: number, protection: number): Errno {
    const error = this.fail(first, last);
    if (error !== OK) return error;
    for (const whole of this.wholes.values()) {
      if (whole.first <= last && whole.last >= first) return EADDRINUSE;
    }
    this.wholes.set(first, { first, last, frame, protection });
    return OK;
  }

  unmap(first: number, last: number): number {
    let pages = 0;
    for (const whole of [...this.wholes.values()]) {
      if (whole.first > last || whole.last < first) continue;
      if (whole.first < first || whole.last > last) {
        throw new Error(`Cannot unmap ${first}-${last}: it splits ${whole.first}-${whole.last}`);
      }
      this.wholes.delete(whole.first);
      pages += whole.last - whole.first + 1;
    }
    return pages;
  }

  flush(): void {}

  frameAt(page: number): number {
    for (const { first, last, frame } of this.wholes.values()) {
      if (page >= first && page <= last) return frame + (page - first);
    }
    return -1;
  }

  runAt(): number {
    throw new Error("Cannot read frames back from the kernel");
  }

  setDirtyTracking(): Errno {
    return EOPNOTSUPP;
  }

  readDirty(): Errno {
    return EOPNOTSUPP;
  }

  destroy(): void {
    this.wholes.clear();
  }
}
