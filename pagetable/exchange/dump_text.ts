import { DUMP_ENTRIES } from "./dump.ts";
import type { DumpEndpoint, DumpEntry } from "./dump_types.ts";

/** The dump as text: one line for each entry or run, indented by level. */
export function dumpText(endpoints: readonly DumpEndpoint[]): string {
  const lines: string[] = [];
  for (const endpoint of endpoints) {
    const pasid = endpoint.pasid === undefined ? "" : ` PASID ${endpoint.pasid}`;
    const state = endpoint.bypass === true
      ? "passes untranslated"
      : endpoint.fault ?? `domain ${endpoint.domain}`;
    lines.push(`endpoint ${endpoint.sid}${pasid}: ${state}`);
    for (const { at, entry } of endpoint.device) lines.push(`  device entry ${at} = ${entry}`);
    for (const entry of endpoint.tables) pushLines(lines, entry, "  ");
    if (endpoint.stopped !== undefined) {
      lines.push(`  stopped at ${endpoint.stopped}: a dump has at most ${DUMP_ENTRIES} entries`);
    }
  }
  return lines.map((line) => `${line}\n`).join("");
}

function pushLines(lines: string[], entry: DumpEntry, indent: string): void {
  const head = `${indent}L${entry.level} ${entry.at}`;
  if (entry.seen !== undefined) {
    lines.push(`${head} = ${entry.entry}  from ${entry.iova}: table seen at ${entry.seen}`);
  } else if (entry.table !== undefined) {
    lines.push(`${head} = ${entry.entry}  from ${entry.iova}`);
    for (const below of entry.table) pushLines(lines, below, `${indent}  `);
  } else if (entry.fault !== undefined) {
    lines.push(`${head} = ${entry.entry}  ${entry.iova}: ${entry.fault}`);
  } else {
    const count = entry.count === 1 ? "" : ` x${entry.count}`;
    const type = entry.type === "device" ? " device" : "";
    lines.push(
      `${head} = ${entry.entry}  ${entry.iova}-${entry.last} -> ${entry.phys} ` +
        `${entry.prot} ${entry.size}${count}${type}`,
    );
  }
}
