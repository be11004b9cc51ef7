/**
 * `build` and `walk` on the exchange form: a description in, tables out; tables and queries in, answers out.
 *
 * With two stages the tables of the first stage (for SMMUv3 also its context descriptors) are read
 * through the second one; `build` keeps them in memory of their own and maps that memory to itself in
 * every second stage.
 */
import { createPageTable, createUnit, type PageTableOptions } from "../create.ts";
import { EADDRINUSE, EINVAL, ENOMEM, EOPNOTSUPP, ERANGE } from "../errno.ts";
import { ChunkReader, chunksOf } from "./memory.ts";
import { type BuildPlan, EXCHANGE_FORMATS, planOf } from "./plan.ts";
import type {
  BuildInput,
  BuildOutput,
  JsonAnswer,
  JsonChunk,
  JsonDomain,
  JsonEndpoint,
  JsonMapping,
  JsonQuery,
  WalkInput,
  WalkOutput,
} from "./types.ts";
import {
  hex,
  readList,
  readNumber,
  readObject,
  readPages,
  readProtection,
  readSmall,
  readWord,
} from "./values.ts";
import { HardwareTable } from "../builder/hardware_table.ts";
import { NO_PASID } from "../invalidation.ts";
import { READ, WRITE } from "../page_table.ts";
import { TableMemory, type TableReader } from "../table_memory.ts";
import type { TranslationUnit } from "../units/unit.ts";
import { AmdWalker } from "../walk/amd.ts";
import type { EndpointWalker } from "../walk/endpoint_walker.ts";
import { SmmuWalker } from "../walk/smmuv3.ts";
import { VtdLegacyWalker } from "../walk/vtd_legacy.ts";
import { VtdScalableWalker } from "../walk/vtd_scalable.ts";
import { WalkResult } from "../walk/walk_result.ts";
import { byteAddress, pageAt, pageOffset } from "../address.ts";

/** Most table memory that a build may take: 1 GiB for each of up to two arenas. */
const ARENA_BYTES = 2 ** 30;
/** Largest domain id: DID, ASID, VMID and DomainID have 16 bits. */
const LAST_DOMAIN = 0xffff;

/** What `build` made: see {@linkcode buildOutput} for its output as JSON. */
export interface Built {
  /** The completed description with registers. */
  readonly description: Omit<BuildOutput, "mem">;
  /** Device tables and the tables of a single or second stage. */
  readonly memory: TableMemory;
  /** Tables of the first of two stages; null for one stage. */
  readonly nestedMemory: TableMemory | null;
}

/** The tables of one domain. */
interface Tables {
  readonly id: number;
  readonly first: HardwareTable;
  readonly second: HardwareTable | null;
}

/**
 * Builds the tables that a description asks for.
 *
 * ```ts
 * import { build, buildOutput, walk } from "@viommu/viommu/pagetable";
 *
 * const output = buildOutput(build({
 *   format: "vtd-ss",
 *   base: "0x1000000",
 *   domains: [{ id: 1, mappings: [{ iova: 0x1000, phys: "0x4000000", length: 0x1000, prot: "r" }] }],
 *   endpoints: [{ sid: "0x20", domain: 1 }],
 * }));
 * const queries = [{ iova: "0x1008", access: "r", sid: "0x20" }];
 * walk({ ...output, queries }).results[0].pa; // "0x4000008"
 * ```
 *
 * @throws TypeError or RangeError, with a message of one line, for a description that is malformed or
 * impossible.
 */
export function build(json: unknown): Built {
  const input = readObject<BuildInput>(json, "description");
  const endpoints = readList(input.endpoints, "endpoints");
  const domains = readList(input.domains, "domains");
  checkDomains(domains);
  const plan = planOf(input, endpoints);
  if (input.base === undefined) throw new TypeError("Cannot build: base is missing");
  const baseFrame = readPages(input.base, "base");
  const memory = new TableMemory({ baseFrame, bytes: ARENA_BYTES });
  const nestedMemory = plan.second === null
    ? null
    : new TableMemory({ baseFrame: baseFrame + memory.capacity, bytes: ARENA_BYTES });
  const contextMemory = nestedMemory ?? memory;
  const unit = createUnit(plan.first, memory, { ...plan.unitOptions, contextMemory });
  const tables = new Map<number, Tables>();
  for (const domain of domains) {
    const made = buildDomain(domain, plan, memory, nestedMemory);
    tables.set(made.id, made);
  }
  for (const endpoint of endpoints) attach(unit, endpoint, tables);
  if (nestedMemory !== null) {
    for (const { id, second } of tables.values()) mapTables(second, nestedMemory, id);
  }
  const registers: Record<string, string> = {};
  for (const [name, value] of Object.entries(unit.registers())) registers[name] = hex(value);
  const description = { ...plan.parameters, domains, endpoints, ...registers };
  return { description, memory, nestedMemory };
}

/** The memory of what was built, chunk by chunk. */
export function* builtChunks({ memory, nestedMemory }: Built): Generator<JsonChunk> {
  yield* chunksOf(memory);
  if (nestedMemory !== null) yield* chunksOf(nestedMemory);
}

/** What `build` writes, as one value. Tables of hundreds of MiB are better taken chunk by chunk. */
export function buildOutput(built: Built): BuildOutput {
  return { ...built.description, mem: [...builtChunks(built)] };
}

/**
 * Answers queries about tables.
 *
 * @param reader where the tables are, if not in the input's `mem`.
 * @throws TypeError or RangeError for an input that is malformed.
 */
export function walk(json: unknown, reader?: TableReader): WalkOutput {
  return { results: Array.from(answers(json, reader), (each) => each.answer) };
}

/** An answer of {@linkcode walk}, and the walk that it is from. */
export interface AnsweredQuery {
  /** The answer. */
  readonly answer: JsonAnswer;
  /** The walk, until the next answer is asked for. */
  readonly walk: WalkResult;
  /** Format of the tables; of two stages, the name of both. */
  readonly format: string;
}

/** As {@linkcode walk}, one answer after the other. */
export function* answers(json: unknown, reader?: TableReader): Generator<AnsweredQuery, void> {
  const input = readObject<WalkInput>(json, "walk input");
  const walker = walkerOf(input, reader ?? new ChunkReader(readList(input.mem, "mem")));
  const format = readWord(input.format, "format", EXCHANGE_FORMATS);
  const result = new WalkResult();
  for (const query of readList(input.queries, "queries")) {
    yield { answer: answer(walker, query, result), walk: result, format };
  }
}

/**
 * The walker that registers and parameters of the exchange form describe.
 *
 * @throws TypeError or RangeError if they are malformed or missing.
 */
export function walkerOf(input: WalkInput, reader: TableReader): EndpointWalker {
  const format = readWord(input.format, "format", EXCHANGE_FORMATS);
  if (format === "amdv1") return new AmdWalker(reader, readNumber(input.devtab, "devtab"));
  if (format.startsWith("smmuv3")) {
    const strtabBase = readNumber(input.strtab_base, "strtab_base");
    const strtabConfig = readNumber(input.strtab_cfg, "strtab_cfg");
    return new SmmuWalker(reader, { strtabBase, strtabConfig });
  }
  const rtaddr = readNumber(input.rtaddr, "rtaddr");
  const rootFrame = pageAt(rtaddr);
  // The register itself says which mode hardware is in (VT-d §11.4.5).
  switch (Number(rtaddr >> 10n) & 3) {
    case 0:
      return new VtdLegacyWalker(reader, rootFrame);
    case 1:
      return new VtdScalableWalker(reader, rootFrame);
    default:
      throw new RangeError(`Cannot walk: rtaddr ${hex(rtaddr)} has no such table mode`);
  }
}

function answer(walker: EndpointWalker, query: JsonQuery, result: WalkResult): JsonAnswer {
  const iova = readNumber(query.iova, "iova");
  const access = readWord(query.access, "access", ["r", "w"]) === "r" ? READ : WRITE;
  const sid = readSmall(query.sid, "sid");
  const pasid = query.pasid === undefined ? NO_PASID : readSmall(query.pasid, "pasid");
  walker.walk(sid, pageAt(iova), access, result, pasid);
  const asked = {
    ...(query.id === undefined ? {} : { id: query.id }),
    iova: query.iova,
    access: query.access,
    sid: query.sid,
    ...(query.pasid === undefined ? {} : { pasid: query.pasid }),
  };
  if (!result.ok) {
    return { ...asked, ok: false, fault: { code: hex(result.faultCode), name: result.faultName } };
  }
  const pa = hex(byteAddress(result.frame) + BigInt(pageOffset(iova)));
  return { ...asked, ok: true, pa, size: hex(byteAddress(result.leafPages)) };
}

/** Throws if a domain has an id that hardware does not have, or that of another domain. */
function checkDomains(domains: readonly JsonDomain[]): void {
  const ids = new Set<number>();
  for (const domain of domains) {
    const id = readSmall(domain.id, "domain id");
    if (id > LAST_DOMAIN) {
      throw new RangeError(
        `Cannot build domain id ${id}: hardware's ids have 16 bits, up to ${LAST_DOMAIN}`,
      );
    }
    if (ids.has(id)) throw new RangeError(`Cannot build: domain ${id} is there twice`);
    ids.add(id);
  }
}

function buildDomain(
  domain: JsonDomain,
  plan: BuildPlan,
  memory: TableMemory,
  nestedMemory: TableMemory | null,
): Tables {
  const id = readSmall(domain.id, "domain id");
  const first = tableOf(plan.first, nestedMemory ?? memory, plan.firstOptions);
  mapAll(first, readList(domain.mappings, "mappings"), `domain ${id}`);
  if (plan.second === null) {
    if (domain.stage2 !== undefined) {
      throw new RangeError(`Cannot build domain ${id}: ${plan.first} has no stage2`);
    }
    return { id, first, second: null };
  }
  const second = tableOf(plan.second, memory, plan.secondOptions);
  mapAll(second, readList(domain.stage2, "stage2"), `stage2 of domain ${id}`);
  return { id, first, second };
}

function tableOf(format: string, memory: TableMemory, options: PageTableOptions): HardwareTable {
  const table = createPageTable(format, memory, options);
  if (table instanceof HardwareTable) return table;
  throw new RangeError(`Cannot build ${format}: ${explain(table)}`);
}

function mapAll(table: HardwareTable, mappings: readonly JsonMapping[], where: string): void {
  for (const mapping of mappings) {
    const first = readPages(mapping.iova, "iova");
    const frame = readPages(mapping.phys, "phys");
    const pages = readPages(mapping.length, "length");
    if (pages === 0) throw new RangeError(`Cannot map ${mapping.iova} in ${where}: length is 0`);
    const protection = readProtection(mapping.prot, mapping.mmio);
    const errno = table.map(first, first + pages - 1, frame, protection);
    if (errno !== 0) {
      throw new RangeError(`Cannot map ${hex(byteAddress(first))} in ${where}: ${explain(errno)}`);
    }
  }
}

/** Maps the memory of first-stage tables to itself, unless the second stage does so already. */
function mapTables(second: HardwareTable | null, memory: TableMemory, id: number): void {
  if (second === null || memory.touched === 0) return;
  const granule = 2 ** second.leafOrders[0];
  const last = memory.baseFrame + Math.ceil(memory.touched / granule) * granule - 1;
  const errno = second.map(memory.baseFrame, last, memory.baseFrame, READ | WRITE);
  if (errno === 0) return;
  for (let page = memory.baseFrame; page < memory.baseFrame + memory.touched; page++) {
    if (second.frameAt(page) === page) continue;
    const range = `${hex(byteAddress(memory.baseFrame))}-${hex(byteAddress(last + 1) - 1n)}`;
    throw new RangeError(
      `Cannot map the first stage's tables at ${range} in stage2 of domain ${id}: ${
        explain(errno)
      }`,
    );
  }
}

function attach(
  unit: TranslationUnit,
  endpoint: JsonEndpoint,
  tables: ReadonlyMap<number, Tables>,
): void {
  const sid = readSmall(endpoint.sid, "sid");
  const pasid = endpoint.pasid === undefined ? NO_PASID : readSmall(endpoint.pasid, "pasid");
  let errno: number;
  if (endpoint.bypass === true) {
    errno = unit.bypass(sid, pasid);
  } else {
    const id = readSmall(endpoint.domain, `domain of endpoint ${endpoint.sid}`);
    const domain = tables.get(id);
    if (domain === undefined) {
      throw new RangeError(`Cannot attach endpoint ${endpoint.sid}: there is no domain ${id}`);
    }
    errno = domain.second === null
      ? unit.attach(sid, domain.first, id, pasid)
      : unit.attachNested(sid, domain.first, domain.second, id, pasid);
  }
  if (errno !== 0) {
    throw new RangeError(`Cannot attach endpoint ${endpoint.sid}: ${explain(errno)}`);
  }
}

function explain(errno: number): string {
  switch (errno) {
    case EADDRINUSE:
      return "the range is mapped already";
    case EINVAL:
      return "a value is not one that the format has";
    case ENOMEM:
      return "out of table memory";
    case EOPNOTSUPP:
      return "the format cannot express that";
    case ERANGE:
      return "an address is beyond the format's width or in the interrupt range";
    default:
      return `error ${errno}`;
  }
}
