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
export * from "./errno.ts";
export * from "./format.ts";
export * from "./hardware_table.ts";
export * from "./invalidation.ts";
export type { ReportRange } from "./marks.ts";
export * from "./page_table.ts";
export * from "./table_memory.ts";
export * from "./units/unit.ts";
export * from "./units/vtd_legacy.ts";
export * from "./walk/endpoint_walker.ts";
export * from "./walk/fault.ts";
export * from "./walk/stage.ts";
export * from "./walk/vtd_legacy.ts";
export * from "./walk/vtd_second_stage.ts";
export * from "./walk/walk_result.ts";
