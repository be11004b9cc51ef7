/**
 * The one door to all formats: names, limits, and making page tables and units by name.
 *
 * @module
 */
import type { Errno } from "./errno.ts";
import type { FormatOptions, TableFormat } from "./format.ts";
import { vtdSecondStage } from "./formats/vtd_second_stage.ts";
import { HardwareTable } from "./hardware_table.ts";
import type { TableMemory } from "./table_memory.ts";
import type { TranslationUnit } from "./units/unit.ts";
import { VtdLegacyUnit, type VtdUnitOptions } from "./units/vtd_legacy.ts";

/** What a page table can be made with; every format takes the fields that it has. */
export type PageTableOptions = FormatOptions;

/** What a unit can be made with; every family takes the fields that it has. */
export type UnitOptions = VtdUnitOptions;

interface FormatEntry {
  readonly family: string;
  readonly describe: (options: FormatOptions) => TableFormat;
  readonly unit: (memory: TableMemory, options: UnitOptions) => TranslationUnit;
}

const ENTRIES: ReadonlyMap<string, FormatEntry> = new Map([
  ["vtd-ss", { family: "vtd", describe: vtdSecondStage, unit: vtdUnit }],
]);

/** Names of the formats, as the command line spells them. */
export function formatNames(): readonly string[] {
  return [...ENTRIES.keys()];
}

/**
 * The geometry and limits that page tables of a format have with these options: `inputBits`,
 * `outputBits`, `firstPage`, `lastPage`, `leaves`, `marks`.
 *
 * @throws RangeError for an unknown format or for options that it does not have.
 */
export function describeFormat(format: string, options: PageTableOptions = {}): TableFormat {
  return entry(format).describe(options);
}

/**
 * Makes an empty page table.
 *
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
 * @throws RangeError for an unknown format or for options that it does not have.
 */
export function createUnit(
  format: string,
  memory: TableMemory,
  options: UnitOptions = {},
): TranslationUnit {
  return entry(format).unit(memory, options);
}

/** Which IOMMU walks a format: `vtd`, `smmuv3` or `amd`. Formats of one family can share a unit. */
export function formatFamily(format: string): string {
  return entry(format).family;
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
  return new VtdLegacyUnit(memory, options);
}
