/**
 * Hardware I/O page tables: builds the tables that VT-d, SMMUv3 and AMD IOMMUs walk, edits them while hardware looks,
 * walks them as hardware would, and writes the invalidation commands that follow an edit.
 *
 * ```ts
 * import {
 *   createPageTable,
 *   createUnit,
 *   HardwareTable,
 *   READ,
 *   TableMemory,
 *   WalkResult,
 * } from "@viommu/viommu/pagetable";
 *
 * const memory = new TableMemory({ baseFrame: 0x100000, bytes: 2 ** 24 });
 * const table = createPageTable("vtd-ss", memory, { levels: 4 });
 * if (!(table instanceof HardwareTable)) throw new Error("Out of table memory");
 * const unit = createUnit("vtd-ss", memory);
 * unit.attach(0x0318, table);
 * table.map(0x40201, 0x40201, 0x123456, READ);
 *
 * const result = new WalkResult();
 * unit.walk(0x0318, 0x40201, READ, result); // result.frame is 0x123456
 *
 * table.unmap(0x40201, 0x40201);
 * table.flush();
 * ```
 *
 * Pages and frames are numbers of {@linkcode PAGE_SIZE} bytes up to 2^52 - 1, ranges are inclusive, and endpoints are PCI
 * source ids or StreamIDs. An operation that a guest can make fail answers with an {@linkcode Errno}; options that do not
 * exist throw. The module imports nothing else of this project and no package.
 *
 * @module
 */

// What everything else is about.
export {
  EADDRINUSE,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  ERANGE,
  type Errno,
  OK,
} from "./errno.ts";
export {
  type InterruptPages,
  MMIO,
  PAGE_SHIFT,
  PAGE_SIZE,
  type PageTable,
  type Protection,
  READ,
  WRITE,
} from "./page_table.ts";
export {
  TableMemory,
  type TableMemoryOptions,
  type TableReader,
  type TableWriter,
} from "./table_memory.ts";

// Page tables and units, by format.
export {
  createPageTable,
  createUnit,
  describeFormat,
  formatNames,
  type PageTableOptions,
  type UnitOptions,
} from "./create.ts";
export type { DirtyBits, FormatOptions, LeafFormat, TableFormat } from "./format.ts";
export { HardwareTable } from "./builder/hardware_table.ts";
export type { ReportRange } from "./builder/dirty_scan.ts";
export type { TranslationUnit } from "./units/unit.ts";
export type { AmdUnitOptions } from "./units/amd.ts";
export type { SmmuUnitOptions } from "./units/smmuv3.ts";
export type { VtdUnitOptions } from "./units/vtd_unit.ts";

// Walks.
export { type FoundLeaf, MEMORY_TYPE_NAMES, WalkResult } from "./walk/walk_result.ts";
export { STAGE_DEVICE, STAGE_ONE, STAGE_TWO } from "./walk/walk_result.ts";
export { BLOCKED, type Fault, FAULT_NAMES } from "./walk/fault.ts";
export type { EndpointWalker, RecordingWalker } from "./walk/endpoint_walker.ts";
export { AmdWalker } from "./walk/amd.ts";
export { type SmmuCapabilities, type SmmuRegisters, SmmuWalker } from "./walk/smmuv3.ts";
export { VtdLegacyWalker } from "./walk/vtd_legacy.ts";
export { VtdScalableWalker } from "./walk/vtd_scalable.ts";
export type { VtdCapabilities } from "./walk/vtd_capabilities.ts";

// Invalidation.
export {
  DEVICE_DIRECTORY,
  DEVICE_ENTRY,
  InvalidationGather,
  type InvalidationSink,
  NO_PASID,
  PASID_DIRECTORY,
  PASID_ENTRY,
} from "./invalidation.ts";
export { CommandBuffer } from "./invalidate/command_buffer.ts";
export { amdDeviceCommands, amdTableCommands, type AmdWait } from "./invalidate/amd_commands.ts";
export {
  smmuDeviceCommands,
  type SmmuQueueOptions,
  smmuStageOneCommands,
  smmuStageTwoCommands,
} from "./invalidate/smmuv3_commands.ts";
export {
  vtdDeviceCommands,
  vtdFirstStageCommands,
  type VtdQueueOptions,
  vtdSecondStageCommands,
} from "./invalidate/vtd_commands.ts";

// Tables as JSON, images and trees.
export { build, buildOutput, type Built, builtChunks } from "./exchange/exchange.ts";
export { walk, walkerOf } from "./exchange/exchange.ts";
export { ChunkReader, chunksOf, imageOf } from "./exchange/memory.ts";
export { dumpEndpoint, dumpTables } from "./exchange/dump.ts";
export { dumpText } from "./exchange/dump_text.ts";
export { walkText } from "./exchange/walk_text.ts";
export { bitName, type DescribedEntry, describePath, pathLines } from "./exchange/path.ts";
export type { EntryFields } from "./exchange/entry_fields.ts";
export type { DumpBudget } from "./exchange/dump_tree.ts";
export type { DumpEndpoint, DumpEntry } from "./exchange/dump_types.ts";
export type {
  BuildInput,
  BuildOutput,
  JsonAnswer,
  JsonChunk,
  JsonDomain,
  JsonEndpoint,
  JsonMapping,
  JsonNumber,
  JsonParameters,
  JsonQuery,
  JsonRegisters,
  WalkInput,
  WalkOutput,
} from "./exchange/types.ts";
