/** Output of the commands that are filters: JSON of any size, piece by piece. */
import type { Streams } from "./streams.ts";

/** Characters that are gathered before they are written. */
const PIECE = 65_536;

/** Prints a JSON value, indented by two; iterables are lists. */
export async function printJson(streams: Streams, value: unknown): Promise<void> {
  await printPieces(streams, jsonPieces(value, ""));
  await streams.write("\n");
}

/** Writes texts to standard output as they come. */
export async function printPieces(
  streams: Streams,
  pieces: Iterable<string> | AsyncIterable<string>,
): Promise<void> {
  let gathered: string[] = [];
  let length = 0;
  for await (const piece of pieces) {
    gathered.push(piece);
    length += piece.length;
    if (length < PIECE) continue;
    await streams.write(gathered.join(""));
    gathered = [];
    length = 0;
  }
  await streams.write(gathered.join(""));
}

/** A value as pieces of JSON, none much longer than the longest text in it: one string may have 512 MiB. */
export function* jsonPieces(value: unknown, indent: string): Generator<string> {
  if (!isList(value) && !hasList(value)) {
    yield JSON.stringify(value, null, 2).replaceAll("\n", `\n${indent}`);
    return;
  }
  const inner = `${indent}  `;
  let separator = "";
  if (isList(value)) {
    yield "[";
    for (const item of value) {
      yield `${separator}\n${inner}`;
      yield* jsonPieces(item, inner);
      separator = ",";
    }
    yield separator === "" ? "]" : `\n${indent}]`;
    return;
  }
  yield "{";
  for (const [name, member] of Object.entries(value)) {
    if (member === undefined) continue;
    yield `${separator}\n${inner}${JSON.stringify(name)}: `;
    yield* jsonPieces(member, inner);
    separator = ",";
  }
  yield `\n${indent}}`;
}

function isList(value: unknown): value is Iterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}

function hasList(value: unknown): value is object {
  return typeof value === "object" && value !== null &&
    Object.values(value).some((member) => isList(member) || hasList(member));
}
