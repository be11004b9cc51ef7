/** The tables of an endpoint, drawn as a tree. */
/// <reference lib="dom" />
import type { VNode } from "preact";
import type { Playground, PlaygroundEndpoint } from "./playground.ts";
import { tableTree, type TreeEntry } from "./table_tree.ts";

/** The tree of one endpoint. `onWalk` is called with the byte address that an entry is the first to translate. */
export function TreeView(
  { playground, endpoint, onWalk }: {
    readonly playground: Playground;
    readonly endpoint: PlaygroundEndpoint;
    readonly onWalk: (address: bigint) => void;
  },
): VNode {
  const { device, top, note } = tableTree(playground, endpoint);
  return (
    <section class="tree" aria-label={`Tables of ${endpoint.name}`} data-format={endpoint.format}>
      <h3>
        {endpoint.name} <small>{endpoint.address}</small>
      </h3>
      {note !== "" && <p>{note}</p>}
      {device.length > 0 && (
        <ol>
          {device.map((entry) => (
            <li key={entry.at}>
              <EntryLine entry={entry} />
            </li>
          ))}
        </ol>
      )}
      <Entries entries={top} onWalk={onWalk} />
    </section>
  );
}

function Entries(
  { entries, onWalk }: {
    readonly entries: readonly TreeEntry[];
    readonly onWalk: (address: bigint) => void;
  },
): VNode | null {
  if (entries.length === 0) return null;
  return (
    <ul>
      {entries.map((entry) => (
        <li key={`${entry.at} ${entry.iova}`}>
          {entry.below.length > 0
            ? (
              <details open>
                <summary>
                  <EntryLine entry={entry} />
                </summary>
                <Entries entries={entry.below} onWalk={onWalk} />
              </details>
            )
            : (
              <>
                <EntryLine entry={entry} />{" "}
                <button
                  type="button"
                  class="link"
                  aria-label={`Walk 0x${entry.iova.toString(16)}`}
                  onClick={() => onWalk(entry.iova)}
                >
                  {entry.leads}
                </button>
              </>
            )}
        </li>
      ))}
    </ul>
  );
}

function EntryLine({ entry }: { readonly entry: TreeEntry }): VNode {
  return (
    <>
      <b>{entry.table}</b> <code>{entry.at} = {entry.value}</code>{" "}
      <span class="fields">{entry.fields}</span>
    </>
  );
}
