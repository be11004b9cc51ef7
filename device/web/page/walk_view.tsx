/** A walk: each entry that hardware reads for one access, its bits as buttons, and for a fault the bits that refused it. */
/// <reference lib="dom" />
import type { VNode } from "preact";
import type { Playground, PlaygroundEndpoint } from "./playground.ts";
import { type EntryBit, type ReadEntry, walkAnswer } from "./walk_answer.ts";

/** The access that is walked. */
export interface Access {
  readonly page: number;
  readonly offset: number;
  /** `READ` or `WRITE`. */
  readonly permission: number;
}

/** The walk of one endpoint. `onFlip` is called with the address of an entry and a bit. */
export function WalkView(
  { playground, endpoint, access, onFlip }: {
    readonly playground: Playground;
    readonly endpoint: PlaygroundEndpoint;
    readonly access: Access;
    readonly onFlip: (at: bigint, bit: number) => void;
  },
): VNode {
  const { page, offset, permission } = access;
  const { ok, outcome, fault, path } = walkAnswer(playground, endpoint, page, offset, permission);
  return (
    <section class="walk" aria-label={`Walk of ${endpoint.name}`} data-format={endpoint.format}>
      <h3>
        {endpoint.name} <small>{endpoint.address}</small>
      </h3>
      <p class={ok ? "outcome ok" : "outcome refused"} aria-live="polite">
        {ok ? "Translated to " : "Fault: "}
        <strong>{outcome}</strong>
      </p>
      {fault !== undefined && (
        <p class="fault">
          {fault.text} ({fault.recorded}). Specification: {fault.sections}.
        </p>
      )}
      <ol>
        {path.map((entry) => (
          <li key={`${entry.at}`}>
            <EntryView entry={entry} canFlip={playground.canFlip(entry.at)} onFlip={onFlip} />
          </li>
        ))}
      </ol>
    </section>
  );
}

function EntryView(
  { entry, canFlip, onFlip }: {
    readonly entry: ReadEntry;
    readonly canFlip: boolean;
    readonly onFlip: (at: bigint, bit: number) => void;
  },
): VNode {
  const refusing = entry.bits.filter(({ refuses }) => refuses);
  return (
    <details class={refusing.length > 0 ? "entry refused" : "entry"}>
      <summary>
        <b>{entry.table}</b> <code>0x{entry.at.toString(16)} = {entry.value}</code>{" "}
        <span class="fields">{entry.fields}</span>
        {refusing.length > 0 && (
          <strong class="reason">refused by {refusing.map(bitText).join(", ")}</strong>
        )}
      </summary>
      <div class="bits" role="group" aria-label={`Bits of ${entry.table}`}>
        {entry.bits.map((bit) => (
          <button
            key={bit.bit}
            type="button"
            disabled={!canFlip}
            class={`${bit.isFlipped ? "flipped " : ""}${bit.refuses ? "refuses" : ""}`}
            aria-pressed={bit.isSet}
            aria-label={`${bitText(bit)} of ${entry.table}${bit.isFlipped ? ", flipped" : ""}`}
            title={bitText(bit)}
            onClick={() => onFlip(entry.at, bit.bit)}
          >
            {bit.isSet ? "1" : "0"}
          </button>
        ))}
      </div>
    </details>
  );
}

/** A bit as text: its number, and the field that it is in. */
function bitText({ bit, name }: EntryBit): string {
  return name === "" ? `bit ${bit}` : `bit ${bit} (${name})`;
}
