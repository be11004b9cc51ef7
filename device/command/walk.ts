import { type JsonQuery, walk as walkTables, walkText } from "../../pagetable/mod.ts";
import { parseAddress, parseEndpoint, parseNumber } from "../address.ts";
import type { Command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { type OptionValues, parsedOption, textOption } from "./options.ts";
import { printJson, printPieces } from "./output.ts";
import { checkTables } from "./table_description.ts";
import { checked, IMAGE_OPTIONS, openImage, readJson } from "./table_input.ts";

/** `walk`: translates addresses through tables as hardware would. */
export const walk: Command = {
  name: "walk",
  summary: "translate addresses through tables in JSON or a raw image",
  usage: [
    "< tables-with-queries.json",
    "--iova ADDR --endpoint ID [--access r|w] < tables.json",
    "--image FILE --base ADDR ... < description.json",
  ],
  description: `
A filter: what "viommu build" writes, with "queries" added, on standard input;
one result a query on standard output. Each begins at the endpoint's entry in
the device tables and ends with an output address, or with the fault that the
hardware's specification names.`,
  options: [{
    title: "Options",
    options: [
      ...IMAGE_OPTIONS,
      {
        name: "iova",
        value: "ADDR",
        help: "ask this one question instead of the input's queries",
      },
      {
        name: "endpoint",
        value: "ID",
        help: "of this endpoint: a number or a PCI address (00:03.0)",
      },
      {
        name: "access",
        value: "r|w",
        help: "with this access (default r)",
      },
      { name: "pasid", value: "N", help: "with this PASID" },
      {
        name: "text",
        help: "text instead of JSON: below each answer every entry that was read, " +
          "with its table and fields as the specification names them",
      },
    ],
  }],
  ending: `
Example:
  viommu walk --text --iova 0x1008 --endpoint 00:04.0 < tables.json
`,
  async run({ values }, streams) {
    const query = queryOf(values);
    using image = await openImage(values);
    const input = await readJson(streams);
    const asked = query === undefined || typeof input !== "object" || input === null
      ? input
      : { ...input, queries: [query] };
    checkTables(asked, "Cannot walk");
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
