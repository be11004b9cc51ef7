/** Answers of a walk as text: the address or the fault, and below it every entry that was read. */
import { answers } from "./exchange.ts";
import { describePath, pathLines } from "./path.ts";
import type { JsonAnswer } from "./types.ts";
import type { TableReader } from "../table_memory.ts";

/**
 * What `walk` answers, as text.
 *
 * @param json As of `walk`.
 * @param reader Where the tables are, if not in the input's `mem`.
 * @throws TypeError or RangeError for an input that is malformed.
 */
export function walkText(json: unknown, reader?: TableReader): string {
  let text = "";
  for (const { answer, walk, format } of answers(json, reader)) {
    text += `${answerText(answer)}\n`;
    for (const line of pathLines(describePath(format, walk))) text += `  ${line}\n`;
  }
  return text;
}

function answerText({ iova, access, sid, pasid, pa, size, fault }: JsonAnswer): string {
  const asked = `${sid}${pasid === undefined ? "" : ` PASID ${pasid}`} ${access} ${iova}`;
  return fault === undefined
    ? `${asked}: ${pa}, leaf of ${size} bytes`
    : `${asked}: fault ${fault.name} (${fault.code})`;
}
