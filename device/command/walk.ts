/**
 * `walk`: translates addresses through tables as hardware would.
 *
 * @module
 */
import { type JsonQuery, walk as walkTables, walkText } from "../../pagetable/mod.ts";
import { parseAddress, parseEndpoint, parseNumber } from "../address.ts";
import {
  type Command,
  type OptionValues,
  parsedOption,
  parseOptions,
  refusePositionals,
  textOption,
  UsageError,
} from "./command.ts";
import { printJson, printPieces } from "./output.ts";
import { checked, IMAGE_OPTIONS, openImage, readJson } from "./table_input.ts";

/** Walks tables. */
export const walk: Command = {
  name: "walk",
  summary: "translate addresses through tables in JSON or a raw image",
  help: `Usage: viommu walk < tables-with-queries.json
       viommu walk --iova ADDR --endpoint ID [--access r|w] < tables.json
       viommu walk --image FILE --base ADDR ... < description.json

A filter: what "viommu build" writes, with "queries" added, on standard input;
one result a query on standard output. Each begins at the endpoint's entry in
the device tables and ends with an output address, or with the fault that the
hardware's specification names.

Options:
  --image FILE    read the tables from a raw image instead of "mem"
  --base ADDR     the address that the image begins at
  --iova ADDR     ask this one question instead of the input's queries
  --endpoint ID   of this endpoint: a number or a PCI address (00:03.0)
  --access r|w    with this access (default r)
  --pasid N       with this PASID
  --text          text instead of JSON: below each answer every entry that was
                  read, with its table and fields as the specification names them

Example:
  viommu walk --text --iova 0x1008 --endpoint 00:04.0 < tables.json
`,
  async run(args, streams) {
    const { values, positionals } = parseOptions(args, {
      ...IMAGE_OPTIONS,
      "iova": { type: "string" },
      "endpoint": { type: "string" },
      "access": { type: "string" },
      "pasid": { type: "string" },
      "text": { type: "boolean" },
    });
    refusePositionals(positionals);
    const query = queryOf(values);
    using image = await openImage(values);
    const input = await readJson(streams);
    const asked = query === undefined || typeof input !== "object" || input === null
      ? input
      : { ...input, queries: [query] };
    if (values["text"] === true) {
      await printPieces(streams, [checked(() => walkText(asked, image))]);
    } else {
      await printJson(streams, checked(() => walkTables(asked, image)));
    }
    return 0;
  },
};

/** The one question of the options, if there is one. */
function queryOf(values: OptionValues): JsonQuery | undefined {
  const iova = parsedOption(values, "iova", parseAddress, "a byte address such as 0x1000");
  const endpoint = parsedOption(
    values,
    "endpoint",
    parseEndpoint,
    "an endpoint such as 24, 0x18 or 00:03.0",
  );
  const pasid = parsedOption(
    values,
    "pasid",
    (text) => parseNumber(text, 2 ** 20 - 1),
    "a number below 2^20",
  );
  const access = textOption(values, "access") ?? "r";
  if (access !== "r" && access !== "w") {
    throw new UsageError(`Cannot take --access ${access}: it must be r or w`);
  }
  if (iova === undefined && endpoint === undefined) return undefined;
  if (iova === undefined || endpoint === undefined) {
    throw new UsageError("Cannot ask one question without both --iova ADDR and --endpoint ID");
  }
  return {
    iova: textOption(values, "iova")!,
    sid: endpoint,
    access,
    ...(pasid === undefined ? {} : { pasid }),
  };
}
