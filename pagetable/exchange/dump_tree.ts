/**
 * Page tables as a tree, found by walking every input address that leads to something.
 *
 * A table that was already printed at the same level is not printed again: an entry that leads to it says where it was
 * seen. So tables that refer to themselves, or share tables, take time and space once for each table and level.
 */
import type { DumpEntry } from "./dump_types.ts";
import { hex } from "./values.ts";
import { READ, WRITE } from "../page_table.ts";
import type { EndpointWalker } from "../walk/endpoint_walker.ts";
import {
  INPUT_TOO_WIDE,
  INTERRUPT_REQUEST,
  NOT_CANONICAL,
  NOT_PRESENT,
  TABLE_UNREADABLE,
} from "../walk/fault.ts";
import { MEMORY_TYPE_NAMES, STAGE_ONE, STAGE_TWO, type WalkResult } from "../walk/walk_result.ts";
import { byteAddress } from "../address.ts";

const LAST_PAGE = 2 ** 52 - 1;
const INTERRUPT_PAGES = 256;

/** How much a dump may do before it stops. */
export interface DumpBudget {
  /** Entries that may still be printed. */
  entries: number;
  /** Addresses that may still be looked up. */
  walks: number;
}

/** What {@linkcode readTree} found. */
export interface DumpTree {
  /** Entries of the top table. */
  readonly tables: readonly DumpEntry[];
  /** The page at which the budget was used up; -1 if it was not. */
  readonly stoppedAt: number;
}

/** An entry that is still being filled in. */
type Mutable = { -readonly [Key in keyof DumpEntry]: DumpEntry[Key] } & { table?: Mutable[] };

/** A run of leaves that is still growing. */
interface Run {
  readonly into: Mutable;
  readonly parent: number;
  readonly pages: number;
  readonly permission: number;
  readonly memoryType: number;
  nextPage: number;
  nextFrame: number;
}

/** A table on the path of a walk. */
interface SeenTable {
  /** First page of the entry that led to it. */
  readonly first: number;
  /** Whether something in it was printed. */
  printed: boolean;
}

/** Whether a fault says that no table could have the input address. */
export function isBeyond(fault: number): boolean {
  return fault === INPUT_TOO_WIDE || fault === NOT_CANONICAL || fault === INTERRUPT_REQUEST;
}

/** Reads what is behind an endpoint (or a PASID of it) from page 0 on; `result` is scratch. */
export function readTree(
  walker: EndpointWalker,
  endpoint: number,
  pasid: number,
  result: WalkResult,
  budget: DumpBudget,
): DumpTree {
  const tree = new Tree();
  let run: Run | null = null;
  let lastFailed = -1;
  let lastFault = 0;
  let page = 0;
  while (page <= LAST_PAGE) {
    if (budget.walks-- <= 0) return { tables: tree.top, stoppedAt: page };
    const asked = page;
    const ok = walker.walk(endpoint, page, 0, result, pasid);
    if (!ok && result.fault === INTERRUPT_REQUEST) {
      page += INTERRUPT_PAGES;
      continue;
    }
    if (!ok && isBeyond(result.fault)) break;
    const repeated = tree.enter(result, page);
    const pages = repeated === -1 ? reachOf(result) : result.pathReach[repeated];
    const first = page - (page % pages);
    if (ok && repeated === -1 && run !== null && continues(run, first, result)) {
      grow(run, first, pages);
      page = first + pages;
      continue;
    }
    // The second stage of two, that is: tables that are one stage only are numbered as stage 1 in a path.
    const isBehind = result.pathStage[result.depth - 1] === STAGE_TWO;
    const missing = !ok && result.fault === NOT_PRESENT && !isBehind;
    if (repeated === -1 ? missing : !tree.wasPrinted(result, page, repeated)) {
      page = first + pages;
      continue;
    }
    // A first-stage table or output that the second stage lacks fails page by page: printed once for each entry.
    const failed = ok || repeated !== -1 ? -1 : entryOf(result);
    page = first + pages;
    if (failed !== -1 && failed === lastFailed && result.fault === lastFault) continue;
    lastFailed = failed;
    lastFault = result.fault;
    if (budget.entries-- <= 0) return { tables: tree.top, stoppedAt: asked };
    const node = tree.place(result, asked, first, repeated === -1 ? result.depth - 1 : repeated);
    run = ok && repeated === -1 ? start(node, first, result) : null;
    if (repeated !== -1) node.seen = hex(byteAddress(tree.seenAt(result, asked, repeated)));
    else if (!ok) node.fault = result.faultName;
  }
  return { tables: tree.top, stoppedAt: -1 };
}

/** Pages, aligned to their number, of which a walk tells the same. */
function reachOf(result: WalkResult): number {
  if (result.ok) return result.leafPages;
  if (result.fault !== TABLE_UNREADABLE || result.faultStage === STAGE_TWO) {
    return result.reachPages;
  }
  // All of the table's 512 entries in this page of memory are as unreadable as this one.
  const at = lastOfStageOne(result);
  const whole = result.reachPages * 512;
  return at === -1 ? whole : Math.min(whole, result.pathReach[at]);
}

/** The last entry of a path as a number; -1 if it has none. */
function entryOf(result: WalkResult): number {
  const at = lastOfStageOne(result);
  return at === -1 ? -1 : result.pathFrame[at] * 512 + result.pathIndex[at];
}

function lastOfStageOne(result: WalkResult): number {
  let at = result.depth - 1;
  while (at >= 0 && result.pathStage[at] !== STAGE_ONE) at--;
  return at;
}

/** The tree that was found so far. */
class Tree {
  /** Entries of the top table. */
  readonly top: Mutable[] = [];
  readonly #nodes = new Map<string, Mutable>();
  /** Tables by their address and level. */
  readonly #seen = new Map<number, SeenTable>();

  /**
   * Remembers the tables on a path.
   *
   * @returns the position in the path of the first entry that leads to a table that was seen elsewhere, or -1.
   */
  enter(result: WalkResult, page: number): number {
    for (let at = 0; at < result.depth; at++) {
      const table = tableBehind(result, page, at);
      if (table === -1) continue;
      const first = page - (page % result.pathReach[at]);
      const seen = this.#seen.get(table);
      if (seen === undefined) this.#seen.set(table, { first, printed: false });
      else if (seen.first !== first) return at;
    }
    return -1;
  }

  /** Whether something was printed of the table behind entry `at` of a path. */
  wasPrinted(result: WalkResult, page: number, at: number): boolean {
    return this.#seen.get(tableBehind(result, page, at))?.printed ?? false;
  }

  /** First page of the entry that led to the table behind entry `at` first. */
  seenAt(result: WalkResult, page: number, at: number): number {
    return this.#seen.get(tableBehind(result, page, at))?.first ?? 0;
  }

  /** Adds a node for entry `last` of the path, with those of the tables above it where they are missing. */
  place(result: WalkResult, page: number, first: number, last: number): Mutable {
    const iova = hex(byteAddress(first));
    let parent = this.top;
    let node: Mutable | null = null;
    let key = "";
    for (let at = 0; at <= last; at++) {
      if (result.pathStage[at] !== STAGE_ONE) continue;
      if (node !== null) parent = this.#descend(parent, node, key);
      const address = hex(result.entryAddress(at));
      key = `${key}/${address}`;
      node = {
        level: result.pathLevel[at],
        at: address,
        entry: hex(result.entryValue(at)),
        iova,
      };
      const seen = this.#seen.get(tableBehind(result, page, at));
      if (seen !== undefined && at < last) seen.printed = true;
    }
    node ??= { level: 0, at: "0x0", entry: "0x0", iova };
    parent.push(node);
    return node;
  }

  #descend(parent: Mutable[], node: Mutable, key: string): Mutable[] {
    let known = this.#nodes.get(key);
    if (known === undefined) {
      known = node;
      this.#nodes.set(key, known);
      parent.push(known);
    }
    known.table ??= [];
    return known.table;
  }
}

/** Address and level of the table that entry `at` of a path leads to, as one number; -1 if it leads to none of stage 1. */
function tableBehind(result: WalkResult, page: number, at: number): number {
  if (result.pathStage[at] !== STAGE_ONE) return -1;
  let next = at + 1;
  while (next < result.depth && result.pathStage[next] !== STAGE_ONE) next++;
  if (next >= result.depth) return -1;
  const index = Math.floor((page % result.pathReach[at]) / result.pathReach[next]);
  const start = result.pathFrame[next] * 512 + result.pathIndex[next] - index;
  return start * 8 + result.pathLevel[next];
}

function start(node: Mutable, first: number, result: WalkResult): Run {
  const pages = result.leafPages;
  // The walk asked for the page it came to; a leaf may begin before it.
  const frame = result.frame - (result.frame % pages);
  node.count = 1;
  node.last = hex(byteAddress(first + pages) - 1n);
  node.phys = hex(byteAddress(frame));
  node.size = hex(byteAddress(pages));
  node.prot = `${(result.permission & READ) !== 0 ? "r" : ""}${
    (result.permission & WRITE) !== 0 ? "w" : ""
  }`;
  node.type = MEMORY_TYPE_NAMES[result.memoryType];
  return {
    into: node,
    parent: parentOf(result),
    pages,
    permission: result.permission,
    memoryType: result.memoryType,
    nextPage: first + pages,
    nextFrame: frame + pages,
  };
}

/** Whether the leaf just found goes on where the run ends, in the same table. */
function continues(run: Run, first: number, result: WalkResult): boolean {
  if (
    first !== run.nextPage || result.leafPages !== run.pages ||
    result.frame - (result.frame % run.pages) !== run.nextFrame ||
    result.permission !== run.permission || result.memoryType !== run.memoryType
  ) return false;
  return parentOf(result) === run.parent;
}

/** Which entry leads to the table that the last entry of the path is in, as a number; -1 for the top table. */
function parentOf(result: WalkResult): number {
  let last = -1;
  let parent = -1;
  for (let at = 0; at < result.depth; at++) {
    if (result.pathStage[at] !== STAGE_ONE) continue;
    parent = last;
    last = result.pathFrame[at] * 512 + result.pathIndex[at];
  }
  return parent;
}

function grow(run: Run, first: number, pages: number): void {
  run.into.count = (run.into.count ?? 0) + 1;
  run.into.last = hex(byteAddress(first + pages) - 1n);
  run.nextPage += pages;
  run.nextFrame += pages;
}
