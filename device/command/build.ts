import {
  build as buildTables,
  builtChunks,
  imageOf,
  type TableMemory,
} from "../../pagetable/mod.ts";
import { addressText, PAGE_SIZE } from "../address.ts";
import type { Command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { textOption } from "./options.ts";
import { STANDARD_STREAM, writeAll, writeFile } from "./output_file.ts";
import { printJson } from "./output.ts";
import { checkDescription } from "./table_description.ts";
import { baseOption, checked, readJson } from "./table_input.ts";

/** `build`: makes page tables and device tables from a description. */
export const build: Command = {
  name: "build",
  summary: "make page tables and device tables from a description in JSON",
  usage: [
    "< description.json > tables.json",
    "--image FILE [--base ADDR] < description.json",
  ],
  description: `
A filter: a description in JSON on standard input, the tables as chunks of
memory in JSON on standard output, which "viommu walk" and "viommu dump" take.

The description: format (vtd-ss, vtd-fs, vtd-nested, smmuv3-s1, smmuv3-s2,
smmuv3-nested, amdv1) and its parameters (mode, levels, granule, iaBits, oaBits,
streamTable), base, domains with mappings, endpoints. Numbers may be texts such
as "0x1000". StreamIDs have up to 32 bits; beyond 18 the streamTable is 2-level.
In the output a long run of zeros is a chunk that has only the number of its bytes ("zeros").`,
  options: [{
    title: "Options",
    options: [{
      name: "image",
      value: "FILE",
      help:
        "write the tables as a raw image that begins at the base, and the completed description " +
        "without them to standard output",
    }, {
      name: "base",
      value: "ADDR",
      help: "address of the first table page, instead of the description's",
    }],
  }],
  ending: `
Example:
  echo '{ "format": "vtd-ss", "base": "0x1000000",
          "domains": [{ "id": 1, "mappings": [{ "iova": "0x1000",
            "phys": "0x4000000", "length": "0x1000", "prot": "rw" }] }],
          "endpoints": [{ "sid": "0x20", "domain": 1 }] }' | viommu build
`,
  async run({ values }, streams) {
    const base = baseOption(values);
    const file = textOption(values, "image");
    if (file === STANDARD_STREAM) {
      throw new UsageError("Cannot take --image -: standard output is for the description");
    }
    const input = await readJson(streams, "describe fewer mappings");
    const description = base === undefined || typeof input !== "object" || input === null
      ? input
      : { ...input, base: addressText(base.page, base.offset) };
    checkDescription(description);
    const built = checked(() => buildTables(description));
    if (file === undefined) {
      await printJson(streams, { ...built.description, mem: builtChunks(built) });
      return 0;
    }
    const { memory, nestedMemory } = built;
    await writeImage(file, nestedMemory === null ? [memory] : [memory, nestedMemory]);
    await printJson(streams, built.description);
    return 0;
  },
};

/** Writes memories at their distances from the first; what lies between takes no space on the disk. */
async function writeImage(path: string, memories: readonly TableMemory[]): Promise<void> {
  await writeFile(path, async (file) => {
    for (const memory of memories) {
      await file.seek((memory.baseFrame - memories[0].baseFrame) * PAGE_SIZE, Deno.SeekMode.Start);
      await writeAll(file, imageOf(memory));
    }
  });
}
