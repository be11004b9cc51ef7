import {
  ChunkReader,
  dumpEndpoint,
  dumpTables,
  dumpText,
  NO_PASID,
  walkerOf,
  type WalkInput,
} from "../../pagetable/mod.ts";
import { parseEndpoint, parseNumber } from "../address.ts";
import type { Command } from "./command.ts";
import { CommandError } from "./errors.ts";
import { parsedOption } from "./options.ts";
import { printJson, printPieces } from "./output.ts";
import { checkTables } from "./table_description.ts";
import { checked, IMAGE_OPTIONS, openImage, readJson } from "./table_input.ts";

/** The last endpoint that is looked for without being named: PCI ids have 16 bits. */
const LAST_ENDPOINT = 0xffff;

/** `dump`: prints tables as a tree, equal runs folded. */
export const dump: Command = {
  name: "dump",
  summary: "print tables as a tree",
  usage: ["[options] < tables.json"],
  description: `
Prints what hardware finds behind each endpoint: the device-table entries, then
the page tables as a tree, with runs of equal leaves folded into one line. A
table that several entries lead to, or that leads to itself, is printed once a
level, and "seen at" an input address from then on. A dump stops after 262144
entries and says so. Takes what "viommu build" writes on standard input; of
endpoints above 0xffff it finds those that the description names.`,
  options: [{
    title: "Options",
    options: [
      {
        name: "endpoint",
        value: "ID",
        help: "one endpoint: a number or a PCI address (default: all)",
      },
      {
        name: "pasid",
        value: "N",
        help: "with --endpoint: its tables for this PASID",
      },
      ...IMAGE_OPTIONS,
      { name: "json", help: "JSON instead of text" },
    ],
  }],
  ending: `
Example:
  viommu build < description.json | viommu dump
`,
  async run({ values }, streams) {
    const form = "an endpoint such as 24, 0x18 or 00:03.0";
    const endpoint = parsedOption(values, "endpoint", parseEndpoint, form);
    const pasid = parsedOption(
      values,
      "pasid",
      (text) => parseNumber(text, 2 ** 20 - 1),
      "a number below 2^20",
    ) ?? NO_PASID;
    using image = await openImage(values);
    const input = await readJson(streams);
    checkTables(input, "Cannot dump");
    const found = checked(() => {
      const tables = input as WalkInput;
      const walker = walkerOf(tables, image ?? new ChunkReader(tables.mem ?? []));
      if (endpoint === undefined) {
        const named = (tables.endpoints ?? []).map(({ sid }) => Number(sid));
        return dumpTables(walker, LAST_ENDPOINT, pasidsOf(tables), named);
      }
      const one = dumpEndpoint(walker, endpoint, pasid);
      return one === null ? [] : [one];
    });
    if (values["json"] === true) await printJson(streams, found);
    else if (found.length === 0) throw new CommandError("Cannot dump: no endpoint has an entry");
    else await printPieces(streams, [dumpText(found)]);
    return 0;
  },
};

/** The PASIDs that a description names, by endpoint. */
function pasidsOf(tables: WalkInput): ReadonlyMap<number, readonly number[]> {
  const pasids = new Map<number, number[]>();
  for (const { sid, pasid } of tables.endpoints ?? []) {
    if (pasid === undefined) continue;
    const id = Number(sid);
    pasids.set(id, [...pasids.get(id) ?? [], Number(pasid)]);
  }
  return pasids;
}
