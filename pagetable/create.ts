/** Formats by name: their limits, and their page tables and units. */
import type { Errno } from "./errno.ts";
import type { FormatOptions, TableFormat } from "./format.ts";
import { amdV1 } from "./formats/amd_v1.ts";
import { armStage1, armStage2 } from "./formats/arm_lpae.ts";
import { vtdFirstStage } from "./formats/vtd_first_stage.ts";
import { vtdSecondStage } from "./formats/vtd_second_stage.ts";
import { HardwareTable } from "./builder/hardware_table.ts";
import type { TableMemory } from "./table_memory.ts";
import type { TranslationUnit } from "./units/unit.ts";
import { AmdUnit, type AmdUnitOptions } from "./units/amd.ts";
import { SmmuUnit, type SmmuUnitOptions } from "./units/smmuv3.ts";
import { VtdLegacyUnit } from "./units/vtd_legacy.ts";
import { VtdScalableUnit } from "./units/vtd_scalable.ts";
import type { VtdUnitOptions } from "./units/vtd_unit.ts";

/** What a page table can be made with; every format takes the fields that it has. */
export type PageTableOptions = FormatOptions;

/** What a unit can be made with; every family takes the fields that it has. */
export type UnitOptions = VtdUnitOptions & SmmuUnitOptions & AmdUnitOptions & {
  /** VT-d: which translation table mode; default scalable for `vtd-fs`, legacy for `vtd-ss`. */
  readonly mode?: "legacy" | "scalable";
};

interface FormatEntry {
  readonly describe: (options: FormatOptions) => TableFormat;
  readonly unit: (memory: TableMemory, options: UnitOptions) => TranslationUnit;
}

const ENTRIES: ReadonlyMap<string, FormatEntry> = new Map([
  ["vtd-ss", { describe: vtdSecondStage, unit: vtdUnit }],
  ["vtd-fs", { describe: vtdFirstStage, unit: vtdScalableUnit }],
  ["smmuv3-s1", { describe: armStage1, unit: smmuUnit }],
  ["smmuv3-s2", { describe: armStage2, unit: smmuUnit }],
  ["amdv1", { describe: amdV1, unit: (memory, options) => new AmdUnit(memory, options) }],
]);

/** Names of the formats, as the command line spells them. */
export function formatNames(): readonly string[] {
  return [...ENTRIES.keys()];
}

/**
 * The geometry and limits that page tables of a format have with these options: `inputBits`,
 * `outputBits`, `firstPage`, `lastPage`, `leaves`, `dirtyBits`.
 *
 * @throws RangeError for an unknown format or for options that it does not have.
 */
export function describeFormat(format: string, options: PageTableOptions = {}): TableFormat {
  return entry(format).describe(options);
}

/**
 * Makes an empty page table.
 *
 * @param format one of {@linkcode formatNames}.
 * @param memory where its tables are, the top table from the start.
 * @returns the table, or ENOMEM without table memory for its top table.
 * @throws RangeError for an unknown format or for options that it does not have.
 */
export function createPageTable(
  format: string,
  memory: TableMemory,
  options: PageTableOptions = {},
): HardwareTable | Errno {
  return HardwareTable.create(describeFormat(format, options), memory);
}

/**
 * Makes the device tables of one IOMMU of the kind that walks `format`. Takes no table memory yet.
 *
 * @param format one of {@linkcode formatNames}.
 * @throws RangeError for an unknown format or for options that it does not have.
 */
export function createUnit(
  format: string,
  memory: TableMemory,
  options: UnitOptions = {},
): TranslationUnit {
  return entry(format).unit(memory, options);
}

function entry(format: string): FormatEntry {
  const found = ENTRIES.get(format);
  if (found === undefined) {
    const names = formatNames().join(", ");
    throw new RangeError(`Cannot use format ${format}: it is none of ${names}`);
  }
  return found;
}

function vtdUnit(memory: TableMemory, options: UnitOptions): TranslationUnit {
  if (options.mode === "scalable") return new VtdScalableUnit(memory, options);
  return new VtdLegacyUnit(memory, options);
}

function vtdScalableUnit(memory: TableMemory, options: UnitOptions): TranslationUnit {
  if (options.mode === "legacy") {
    throw new RangeError("Cannot use mode legacy: first-stage tables need scalable mode");
  }
  return new VtdScalableUnit(memory, options);
}

function smmuUnit(memory: TableMemory, options: UnitOptions): TranslationUnit {
  return new SmmuUnit(memory, options);
}
