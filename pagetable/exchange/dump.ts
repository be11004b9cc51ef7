/**
 * Tables as a tree: what hardware finds for an endpoint, with runs of leaves in one entry, as JSON or as text.
 *
 * The tree is found by walking, so it shows what hardware sees, faults included. Endpoints are
 * walked one by one, and those that are blocked left out; input addresses are covered from 0 up to the first
 * that the tables cannot have, so the upper half of tables that have one is left out.
 */
import { type DumpBudget, isBeyond, readTree } from "./dump_tree.ts";
import type { DumpEndpoint } from "./dump_types.ts";
import { hex } from "./values.ts";
import { NO_PASID } from "../invalidation.ts";
import type { EndpointWalker } from "../walk/endpoint_walker.ts";
import { BLOCKED } from "../walk/fault.ts";
import { STAGE_DEVICE, WalkResult } from "../walk/walk_result.ts";
import { byteAddress } from "../address.ts";

/** Most entries and runs that one dump has. */
export const DUMP_ENTRIES: number = 2 ** 18;
/** Most addresses that one dump looks up: some minutes. */
const DUMP_WALKS = 2 ** 27;

/**
 * Dumps every endpoint in `[0, lastEndpoint]` that has an entry, those beyond that `others` lists, and the PASIDs
 * that `pasids` lists by endpoint. After 2^18 entries the dump stops; the `stopped` of its last endpoint
 * says where.
 */
export function dumpTables(
  walker: EndpointWalker,
  lastEndpoint: number,
  pasids: ReadonlyMap<number, readonly number[]> = new Map(),
  others: readonly number[] = [],
): readonly DumpEndpoint[] {
  const budget = fullBudget();
  const found: DumpEndpoint[] = [];
  for (const endpoint of endpointsOf(lastEndpoint, others)) {
    for (const pasid of [NO_PASID, ...pasids.get(endpoint) ?? []]) {
      const one = dumpEndpoint(walker, endpoint, pasid, budget);
      if (one === null) continue;
      found.push(one);
      if (one.stopped !== undefined) return found;
    }
  }
  return found;
}

function fullBudget(): DumpBudget {
  return { entries: DUMP_ENTRIES, walks: DUMP_WALKS };
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
  budget: DumpBudget = fullBudget(),
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
  if (!result.ok && result.faultStage === STAGE_DEVICE && !isBeyond(result.fault)) {
    return { ...head, fault: result.faultName, device, tables: [] };
  }
  const domain = result.domainId;
  const { tables, stoppedAt } = readTree(walker, endpoint, pasid, result, budget);
  const found = { ...head, domain, device, tables };
  return stoppedAt === -1 ? found : { ...found, stopped: hex(byteAddress(stoppedAt)) };
}
