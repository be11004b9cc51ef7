/**
 * A page table that is a map from page to entry: obviously right, of any geometry, with a log and faults on demand.
 *
 * Leaves exist only for dirty tracking: a `map` is tiled with the largest leaves that fit, as hardware tables are.
 */
import { EADDRINUSE, ENOMEM, EOPNOTSUPP, ERANGE, type Errno, OK } from "../../pagetable/errno.ts";
import type { PageTable, Protection } from "../../pagetable/page_table.ts";
import { EventLog, FaultPlan } from "./fault_plan.ts";

interface Leaf {
  readonly first: number;
  readonly last: number;
  /** Number of the map call that installed it, and that call's range. */
  readonly call: number;
  isDirty: boolean;
}

interface Entry {
  readonly frame: number;
  readonly protection: Protection;
  readonly leaf: Leaf;
}

export interface PlainTableOptions {
  readonly name?: string;
  readonly firstPage?: number;
  readonly lastPage?: number;
  readonly lastFrame?: number;
  readonly leafOrders?: readonly number[];
  readonly tracksDirty?: boolean;
  readonly interruptPages?: { readonly first: number; readonly last: number };
  readonly log?: EventLog;
  readonly plan?: FaultPlan;
}

export class PlainTable implements PageTable {
  readonly format = "plain";
  readonly name: string;
  readonly firstPage: number;
  readonly lastPage: number;
  readonly lastFrame: number;
  readonly leafOrders: readonly number[];
  readonly tracksDirty: boolean;
  readonly interruptPages: { readonly first: number; readonly last: number } | null;
  readonly entries = new Map<number, Entry>();
  readonly log: EventLog;
  readonly plan: FaultPlan;
  /** Called in the middle of a map or unmap, to try to get in. */
  onChange: (() => void) | null = null;
  /** Called at a flush, likewise. */
  onFlush: (() => void) | null = null;
  runLast = -1;
  #calls = 0;
  #isTracking = false;

  constructor(options: PlainTableOptions = {}) {
    this.name = options.name ?? "table";
    this.firstPage = options.firstPage ?? 0;
    this.lastPage = options.lastPage ?? 2 ** 52 - 1;
    this.lastFrame = options.lastFrame ?? 2 ** 40 - 1;
    this.leafOrders = options.leafOrders ?? [0, 9, 18];
    this.tracksDirty = options.tracksDirty ?? true;
    this.interruptPages = options.interruptPages ?? null;
    this.log = options.log ?? new EventLog();
    this.plan = options.plan ?? new FaultPlan();
  }

  get tablePages(): number {
    return 1;
  }

  map(firstPage: number, lastPage: number, frame: number, protection: Protection): Errno {
    this.onChange?.();
    if (this.plan.fails(`${this.name} map`)) return ENOMEM;
    if (firstPage < this.firstPage || lastPage > this.lastPage || lastPage < firstPage) {
      return ERANGE;
    }
    if (frame < 0 || frame + (lastPage - firstPage) > this.lastFrame) return ERANGE;
    for (let page = firstPage; page <= lastPage; page++) {
      if (this.entries.has(page)) return EADDRINUSE;
    }
    const call = this.#calls++;
    for (let page = firstPage; page <= lastPage;) {
      const order = this.#order(page, frame + (page - firstPage), lastPage - page + 1);
      if (order < 0) {
        for (let gone = firstPage; gone < page; gone++) this.entries.delete(gone);
        return ERANGE;
      }
      const leaf: Leaf = { first: page, last: page + 2 ** order - 1, call, isDirty: false };
      for (; page <= leaf.last; page++) {
        this.entries.set(page, { frame: frame + (page - firstPage), protection, leaf });
      }
    }
    const count = lastPage - firstPage + 1;
    this.log.add({ kind: "map", by: this.name, first: firstPage, count, frame });
    return OK;
  }

  unmap(firstPage: number, lastPage: number): number {
    this.onChange?.();
    let removed = 0;
    const cut = new Set<number>();
    const remove = (page: number): void => {
      const entry = this.entries.get(page);
      if (entry === undefined) return;
      this.entries.delete(page);
      cut.add(entry.leaf.call);
      removed++;
      this.log.add({ kind: "unmap", by: this.name, first: page, count: 1, frame: entry.frame });
    };
    if (lastPage - firstPage < this.entries.size) {
      for (let page = firstPage; page <= lastPage; page++) remove(page);
    } else {
      const inside = [...this.entries.keys()].filter((page) =>
        page >= firstPage && page <= lastPage
      );
      for (const page of inside) remove(page);
    }
    for (const entry of this.entries.values()) {
      if (cut.has(entry.leaf.call)) {
        throw new Error(
          `Unmap of [${firstPage}, ${lastPage}] in ${this.name} splits what one map installed`,
        );
      }
    }
    return removed;
  }

  frameAt(page: number): number {
    return this.entries.get(page)?.frame ?? -1;
  }

  runAt(page: number, lastPage: number): number {
    const frame = this.frameAt(page);
    let last = page;
    while (last < lastPage) {
      const next = this.frameAt(last + 1);
      if (next !== (frame === -1 ? -1 : frame + (last + 1 - page))) break;
      last++;
    }
    this.runLast = last;
    return frame;
  }

  flush(): void {
    this.log.add({ kind: "flush", by: this.name, first: 0, count: 0 });
    this.onFlush?.();
  }

  protectionAt(page: number): Protection {
    return this.entries.get(page)?.protection ?? 0;
  }

  /** What a device's write does. */
  write(page: number): void {
    const entry = this.entries.get(page);
    if (entry === undefined) throw new Error(`Nothing mapped at page ${page}`);
    if (this.#isTracking) entry.leaf.isDirty = true;
  }

  setDirtyTracking(on: boolean): Errno {
    if (!this.tracksDirty) return EOPNOTSUPP;
    if (this.plan.fails(`${this.name} dirty`)) return ENOMEM;
    this.#isTracking = on;
    if (on) { for (const entry of this.entries.values()) entry.leaf.isDirty = false; }
    return OK;
  }

  readDirty(
    firstPage: number,
    lastPage: number,
    clear: boolean,
    report: (firstPage: number, lastPage: number) => void,
  ): Errno {
    if (!this.tracksDirty) return EOPNOTSUPP;
    const leaves = new Set<Leaf>();
    for (const [page, entry] of this.entries) {
      if (page >= firstPage && page <= lastPage && entry.leaf.isDirty) leaves.add(entry.leaf);
    }
    for (const leaf of [...leaves].sort((one, other) => one.first - other.first)) {
      report(Math.max(leaf.first, firstPage), Math.min(leaf.last, lastPage));
      if (clear && leaf.first >= firstPage && leaf.last <= lastPage) leaf.isDirty = false;
    }
    return OK;
  }

  destroy(): void {
    this.entries.clear();
  }

  #order(page: number, frame: number, count: number): number {
    for (let at = this.leafOrders.length - 1; at >= 0; at--) {
      const size = 2 ** this.leafOrders[at];
      if (page % size === 0 && frame % size === 0 && count >= size) return this.leafOrders[at];
    }
    return -1;
  }
}
