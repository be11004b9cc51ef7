/** The tables of an endpoint as a tree, each entry with its fields: what the page draws, found by walking. */
import {
  describePath,
  dumpEndpoint,
  type DumpEntry,
  NO_PASID,
  PAGE_SIZE,
} from "../../../pagetable/mod.ts";
import type { Playground, PlaygroundEndpoint } from "./playground.ts";

/** Entries that a tree has at most, and addresses that are looked up for it. */
const MOST_ENTRIES = 1000;
const MOST_WALKS = 100_000;

/** An entry of a table. */
export interface TreeEntry {
  /** The table that it is in, such as `L4`. */
  readonly table: string;
  /** Byte address of the entry, in hexadecimal. */
  readonly at: string;
  /** Its value in hexadecimal. */
  readonly value: string;
  /** Its fields as text. */
  readonly fields: string;
  /** First byte address that it translates. */
  readonly iova: bigint;
  /** What it leads to, if it is a leaf or a run of leaves, or why hardware stops here. */
  readonly leads: string;
  /** The entries of the table that it leads to. */
  readonly below: readonly TreeEntry[];
}

/** The tables of an endpoint. */
export interface TableTree {
  /** The entries of the device tables, the last one leading to the page tables. */
  readonly device: readonly TreeEntry[];
  /** The entries of the top page table that lead to something. */
  readonly top: readonly TreeEntry[];
  /** Why there are none, or not all; empty if there is nothing to say. */
  readonly note: string;
}

/** The tables of an endpoint as they are, flipped bits included. */
export function tableTree(
  playground: Playground,
  { id, format }: PlaygroundEndpoint,
): TableTree {
  const unit = playground.device.endpoints.seen(id)?.unit;
  if (unit === undefined || playground.domainOf(id) === undefined) {
    return { device: [], top: [], note: "The endpoint is attached to no domain." };
  }
  const budget = { entries: MOST_ENTRIES, walks: MOST_WALKS };
  const dump = dumpEndpoint(unit, id, NO_PASID, budget);
  const path = describePath(format, playground.walk(id, 0, 0));
  const device = (dump?.device ?? []).map(({ at, entry }) => {
    const found = path.find((each) => each.at === at);
    const fields = found === undefined ? "" : fieldsText(found.fields);
    return { table: found?.table ?? "", at, value: entry, fields, iova: 0n, leads: "", below: [] };
  });
  const top = (dump?.tables ?? []).map((entry) => treeEntry(playground, id, format, entry));
  return { device, top, note: noteOf(dump) };
}

function noteOf(dump: ReturnType<typeof dumpEndpoint>): string {
  if (dump === null) return "Hardware finds no entry for the endpoint.";
  if (dump.fault !== undefined) return `Hardware stops at the device tables: ${dump.fault}.`;
  if (dump.bypass === true) return "Accesses of the endpoint pass untranslated.";
  if (dump.stopped !== undefined) return `The tree ends before ${dump.stopped}: it is too large.`;
  return dump.tables.length === 0 ? "Nothing is mapped: no entry of the top table leads on." : "";
}

function treeEntry(
  playground: Playground,
  id: number,
  format: string,
  entry: DumpEntry,
): TreeEntry {
  const { at, entry: value, table = [] } = entry;
  const iova = BigInt(entry.iova);
  const walk = playground.walk(id, Number(iova / BigInt(PAGE_SIZE)), 0);
  const found = describePath(format, walk).find((each) => each.at === at);
  return {
    table: found?.table ?? `L${entry.level}`,
    at,
    value,
    fields: found === undefined ? "" : fieldsText(found.fields),
    iova,
    leads: leadsText(entry),
    below: table.map((each) => treeEntry(playground, id, format, each)),
  };
}

/** What is behind an entry that leads to no further table. */
function leadsText(
  { iova, last, phys, prot, size, count = 1, fault, seen, type }: DumpEntry,
): string {
  if (fault !== undefined) return `${iova}: ${fault}`;
  if (seen !== undefined) return `the table seen at ${seen}`;
  if (phys === undefined) return "";
  const leaves = count === 1 ? `a leaf of ${size}` : `${count} leaves of ${size}`;
  return `${iova}-${last} to ${phys} ${prot}, ${leaves}, ${type} memory`;
}

function fieldsText(fields: Readonly<Record<string, number | string>>): string {
  return Object.entries(fields).map(([name, value]) => `${name}=${value}`).join(" ");
}
