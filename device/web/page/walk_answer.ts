/**
 * What hardware says of one access, kept: the entries that were read, with their fields and bits, and for a fault the bits
 * that refused it.
 */
import {
  bitName,
  describePath,
  MEMORY_TYPE_NAMES,
  PAGE_SIZE,
  READ,
  WRITE,
} from "../../../pagetable/mod.ts";
import { addressText, sizeText } from "../../address.ts";
import { type FaultText, faultText } from "./fault_text.ts";
import type { Playground, PlaygroundEndpoint } from "./playground.ts";
import { refusingBits } from "./refusing_bits.ts";

/** A bit of an entry. */
export interface EntryBit {
  /** Which of the 64. */
  readonly bit: number;
  /** The field that it is in, or empty. */
  readonly name: string;
  /** Whether it is set. */
  readonly isSet: boolean;
  /** Whether it differs from what the device wrote. */
  readonly isFlipped: boolean;
  /** Whether it, alone, refused the access. */
  readonly refuses: boolean;
}

/** An entry that hardware read. */
export interface ReadEntry {
  /** The table it was in. */
  readonly table: string;
  /** Byte address of the entry. */
  readonly at: bigint;
  /** Its value in hexadecimal. */
  readonly value: string;
  /** Its fields as text, such as `R=1 W=1`. */
  readonly fields: string;
  /** Its bits, 63 first. */
  readonly bits: readonly EntryBit[];
}

/** What hardware says of one access. */
export interface WalkAnswer {
  /** Whether it is translated. */
  readonly ok: boolean;
  /** Where it leads, or the name of the fault. */
  readonly outcome: string;
  /** What more there is to say of a fault. */
  readonly fault: FaultText | undefined;
  /** The entries, in the order in which they were read. */
  readonly path: readonly ReadEntry[];
}

/**
 * Walks the tables of an endpoint.
 *
 * @param page The page, and
 * @param offset the offset in it, of the access.
 * @param access `READ` or `WRITE`.
 */
export function walkAnswer(
  playground: Playground,
  { id, format }: PlaygroundEndpoint,
  page: number,
  offset: number,
  access: number,
): WalkAnswer {
  const refusing = refusingBits(playground, id, page, access);
  const walk = playground.walk(id, page, access);
  const path = describePath(format, walk).map(({ table, entry, fields }, index): ReadEntry => {
    const at = walk.entryAddress(index);
    const value = walk.entryValue(index);
    const flipped = playground.flipped.filter((each) => each.at === at);
    const bits = Array.from({ length: 64 }, (_, place): EntryBit => {
      const bit = 63 - place;
      return {
        bit,
        name: bitName(format, walk, index, bit),
        isSet: (value >> BigInt(bit) & 1n) === 1n,
        isFlipped: flipped.some((each) => each.bit === bit),
        refuses: refusing.some((each) => each.entry === index && each.bit === bit),
      };
    });
    const texts = Object.entries(fields).map(([name, field]) => `${name}=${field}`);
    return { table, at, value: entry, fields: texts.join(" "), bits };
  });
  if (walk.ok) {
    const permission = ((walk.permission & READ) !== 0 ? "r" : "") +
      ((walk.permission & WRITE) !== 0 ? "w" : "");
    const outcome = `${addressText(walk.frame, offset)} ${permission}, ` +
      `${sizeText(walk.leafPages * PAGE_SIZE)} leaf, ${MEMORY_TYPE_NAMES[walk.memoryType]} memory`;
    return { ok: true, outcome, fault: undefined, path };
  }
  const stage = walk.depth === 0 ? undefined : walk.pathStage[walk.depth - 1];
  const fault = faultText(format, walk.faultName, walk.faultCode, stage);
  return { ok: false, outcome: walk.faultName, fault, path };
}
