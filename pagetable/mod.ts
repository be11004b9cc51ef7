/**
 * Hardware I/O page tables: formats, table memory, building, walking, device tables, invalidation.
 *
 * Lives here: everything that knows what a bit of a table entry means. It imports nothing else of this
 * project and no package, so it can be used alone. Start with {@linkcode createPageTable} and
 * {@linkcode createUnit}; `README.md` has the words and a picture.
 *
 * @module
 */
export * from "./create.ts";
export * from "./exchange/dump.ts";
export * from "./exchange/dump_text.ts";
export type { DumpBudget } from "./exchange/dump_tree.ts";
export * from "./exchange/dump_types.ts";
export * from "./errno.ts";
export * from "./exchange/exchange.ts";
export type { EntryFields } from "./exchange/entry_fields.ts";
export * from "./exchange/memory.ts";
export * from "./exchange/path.ts";
export * from "./exchange/types.ts";
export { walkText } from "./exchange/walk_text.ts";
export * from "./format.ts";
export * from "./builder/hardware_table.ts";
export * from "./invalidate/amd_commands.ts";
export * from "./invalidate/command_buffer.ts";
export * from "./invalidate/smmuv3_commands.ts";
export * from "./invalidate/vtd_commands.ts";
export * from "./invalidation.ts";
export type { ReportRange } from "./builder/dirty_scan.ts";
export * from "./page_table.ts";
export * from "./table_memory.ts";
export * from "./units/amd.ts";
export * from "./units/smmuv3.ts";
export * from "./units/unit.ts";
export * from "./units/vtd_legacy.ts";
export * from "./units/vtd_scalable.ts";
export * from "./units/unit_base.ts";
export * from "./units/vtd_unit.ts";
export type { DeviceTableForm } from "./units/device_tables.ts";
export * from "./walk/amd.ts";
export * from "./walk/endpoint_walker.ts";
export * from "./walk/fault.ts";
export * from "./walk/smmuv3.ts";
export * from "./walk/vtd_capabilities.ts";
export * from "./walk/vtd_legacy.ts";
export * from "./walk/vtd_scalable.ts";
export * from "./walk/walk_result.ts";
