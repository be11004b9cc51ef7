/**
 * Tables as a tree: what hardware finds behind an endpoint, equal runs folded, as JSON or as text.
 *
 * The tree is found by walking, so it shows what hardware sees, faults included. Endpoints are looked
 * for one by one, and those that are blocked left out; input addresses are covered from 0 up to the first that the tables cannot have, so
 * the upper half of tables that have one is left out.
 *
 * @module
 */
import { hex } from "./exchange_values.ts";
import { NO_PASID } from "./invalidation.ts";
import { READ, WRITE } from "./page_table.ts";
import type { EndpointWalker } from "./walk/endpoint_walker.ts";
import {
  BLOCKED,
  INPUT_TOO_WIDE,
  INTERRUPT_REQUEST,
  NOT_CANONICAL,
  NOT_PRESENT,
} from "./walk/fault.ts";
import {
  MEMORY_TYPE_NAMES,
  STAGE_DEVICE,
  STAGE_ONE,
  STAGE_TWO,
  WalkResult,
} from "./walk/walk_result.ts";

const LAST_PAGE = 2 ** 52 - 1;
const INTERRUPT_PAGES = 256;

/** One entry, or a run of leaves of equal size to consecutive addresses. Addresses are bytes. */
export interface DumpEntry {
  /** Level, as the specification counts. */
  readonly level: number;
  /** Address of the entry, the first of a run. */
  readonly at: string;
  /** Its value. */
  readonly entry: string;
  /** First input address at which something is found behind it. */
  readonly iova: string;
  /** Entries below, if it leads to a table. */
  readonly table?: readonly DumpEntry[];
  /** Leaves in the run, if it is a leaf. */
  readonly count?: number;
  /** Last input address of the run, inclusive. */
  readonly last?: string;
  /** First output address. */
  readonly phys?: string;
  /** Bytes of each leaf. */
  readonly size?: string;
  /** What the whole path permits. */
  readonly prot?: string;
  /** Memory type. */
  readonly type?: string;
  /** Why hardware stops here, if it does. */
  readonly fault?: string;
}

/** What is behind one endpoint. */
export interface DumpEndpoint {
  /** Source id or StreamID. */
  readonly sid: string;
  /** PASID, for requests that have one. */
  readonly pasid?: number;
  /** Hardware domain id. */
  readonly domain?: number;
  /** Whether its accesses pass. */
  readonly bypass?: boolean;
  /** Why nothing is reached, where the device tables stop hardware. */
  readonly fault?: string;
  /** The entries of the device tables on the way. */
  readonly device: readonly { readonly at: string; readonly entry: string }[];
  /** The entries of the top page table. */
  readonly tables: readonly DumpEntry[];
}

interface Mutable {
  level: number;
  at: string;
  entry: string;
  iova: string;
  table?: Mutable[];
  count?: number;
  last?: string;
  phys?: string;
  size?: string;
  prot?: string;
  type?: string;
  fault?: string;
}

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

/**
 * Dumps every endpoint in `[0, lastEndpoint]` that has an entry, those beyond that `others` lists, and the PASIDs
 * that `pasids` lists by endpoint.
 */
export function dumpTables(
  walker: EndpointWalker,
  lastEndpoint: number,
  pasids: ReadonlyMap<number, readonly number[]> = new Map(),
  others: readonly number[] = [],
): readonly DumpEndpoint[] {
  const found: DumpEndpoint[] = [];
  for (const endpoint of endpointsOf(lastEndpoint, others)) {
    const plain = dumpEndpoint(walker, endpoint, NO_PASID);
    if (plain !== null) found.push(plain);
    for (const pasid of pasids.get(endpoint) ?? []) {
      const one = dumpEndpoint(walker, endpoint, pasid);
      if (one !== null) found.push(one);
    }
  }
  return found;
}

/** Endpoints `[0, lastEndpoint]`, then those beyond in ascending order. */
function* endpointsOf(lastEndpoint: number, others: readonly number[]): Generator<number> {
  for (let endpoint = 0; endpoint <= lastEndpoint; endpoint++) yield endpoint;
  const beyond = others.filter((endpoint) => endpoint > lastEndpoint);
  yield* [...new Set(beyond)].sort((a, b) => a - b);
}

/** Dumps one endpoint, or one PASID of it; null if it has no entry at all. */
export function dumpEndpoint(
  walker: EndpointWalker,
  endpoint: number,
  pasid: number,
): DumpEndpoint | null {
  const result = new WalkResult();
  walker.walk(endpoint, 0, 0, result, pasid);
  const device: { at: string; entry: string }[] = [];
  let used = false;
  for (let at = 0; at < result.depth; at++) {
    if (result.pathStage[at] !== STAGE_DEVICE) continue;
    device.push({ at: hex(result.entryAddress(at)), entry: hex(result.entryValue(at)) });
    used = result.pathLow[at] !== 0 || result.pathHigh[at] !== 0;
  }
  // An AMD device table is full of entries that block.
  if (!used || result.fault === BLOCKED) return null;
  const head = { sid: hex(endpoint), ...(pasid === NO_PASID ? {} : { pasid }) };
  if (result.bypass) return { ...head, bypass: true, device, tables: [] };
  if (!result.ok && result.faultStage === STAGE_DEVICE && !beyond(result.fault)) {
    return { ...head, fault: result.faultName, device, tables: [] };
  }
  const domain = result.domainId;
  return { ...head, domain, device, tables: readTree(walker, endpoint, pasid, result) };
}

/** The dump as text: one line an entry or run, indented by level. */
export function dumpText(endpoints: readonly DumpEndpoint[]): string {
  const lines: string[] = [];
  for (const endpoint of endpoints) {
    const pasid = endpoint.pasid === undefined ? "" : ` PASID ${endpoint.pasid}`;
    const state = endpoint.bypass === true
      ? "passes untranslated"
      : endpoint.fault ?? `domain ${endpoint.domain}`;
    lines.push(`endpoint ${endpoint.sid}${pasid}: ${state}`);
    for (const { at, entry } of endpoint.device) lines.push(`  device entry ${at} = ${entry}`);
    for (const entry of endpoint.tables) pushLines(lines, entry, "  ");
  }
  return lines.map((line) => `${line}\n`).join("");
}

function pushLines(lines: string[], entry: DumpEntry, indent: string): void {
  const head = `${indent}L${entry.level} ${entry.at}`;
  if (entry.table !== undefined) {
    lines.push(`${head} = ${entry.entry}  from ${entry.iova}`);
    for (const below of entry.table) pushLines(lines, below, `${indent}  `);
  } else if (entry.fault !== undefined) {
    lines.push(`${head} = ${entry.entry}  ${entry.iova}: ${entry.fault}`);
  } else {
    const count = entry.count === 1 ? "" : ` x${entry.count}`;
    const type = entry.type === "device" ? " device" : "";
    lines.push(
      `${head} = ${entry.entry}  ${entry.iova}-${entry.last} -> ${entry.phys} ` +
        `${entry.prot} ${entry.size}${count}${type}`,
    );
  }
}

function readTree(
  walker: EndpointWalker,
  endpoint: number,
  pasid: number,
  result: WalkResult,
): Mutable[] {
  const top: Mutable[] = [];
  const nodes = new Map<string, Mutable>();
  let run: Run | null = null;
  let page = 0;
  while (page <= LAST_PAGE) {
    const ok = walker.walk(endpoint, page, 0, result, pasid);
    if (!ok && result.fault === INTERRUPT_REQUEST) {
      page += INTERRUPT_PAGES;
      continue;
    }
    if (!ok && beyond(result.fault)) break;
    const pages = ok ? result.leafPages : result.reachPages;
    const first = page - (page % pages);
    if (!ok && result.fault === NOT_PRESENT && result.faultStage !== STAGE_TWO) {
      page = first + pages;
      continue;
    }
    if (ok && run !== null && continues(run, first, result)) {
      grow(run, first, pages);
    } else {
      const [parent, node] = place(result, first, top, nodes);
      run = ok ? start(node, first, result) : null;
      if (!ok) node.fault = result.faultName;
      parent.push(node);
    }
    page = first + pages;
  }
  return top;
}

function beyond(fault: number): boolean {
  return fault === INPUT_TOO_WIDE || fault === NOT_CANONICAL || fault === INTERRUPT_REQUEST;
}

/** The node of the last entry of the path, with those of the tables above it made where they are missing. */
function place(
  result: WalkResult,
  first: number,
  top: Mutable[],
  nodes: Map<string, Mutable>,
): [Mutable[], Mutable] {
  let parent = top;
  let node: Mutable | null = null;
  let key = "";
  for (let at = 0; at < result.depth; at++) {
    if (result.pathStage[at] !== STAGE_ONE) continue;
    if (node !== null) parent = descend(parent, node, key, nodes);
    const address = hex(result.entryAddress(at));
    key = `${key}/${address}`;
    node = {
      level: result.pathLevel[at],
      at: address,
      entry: hex(result.entryValue(at)),
      iova: hex(BigInt(first) * 4096n),
    };
  }
  return [parent, node ?? { level: 0, at: "0x0", entry: "0x0", iova: hex(BigInt(first) * 4096n) }];
}

function descend(
  parent: Mutable[],
  node: Mutable,
  key: string,
  nodes: Map<string, Mutable>,
): Mutable[] {
  let known = nodes.get(key);
  if (known === undefined) {
    known = node;
    nodes.set(key, known);
    parent.push(known);
  }
  known.table ??= [];
  return known.table;
}

function start(node: Mutable, first: number, result: WalkResult): Run {
  const pages = result.leafPages;
  // The walk asked for the page it came to; a leaf may begin before it.
  const frame = result.frame - (result.frame % pages);
  node.count = 1;
  node.last = hex(BigInt(first + pages) * 4096n - 1n);
  node.phys = hex(BigInt(frame) * 4096n);
  node.size = hex(BigInt(pages) * 4096n);
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
  run.into.last = hex(BigInt(first + pages) * 4096n - 1n);
  run.nextPage += pages;
  run.nextFrame += pages;
}
