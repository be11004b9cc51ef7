/**
 * A running device, by its API: who is attached where, and how much is mapped. It asks when it is opened and when a button
 * is pressed, never by itself.
 */
/// <reference lib="dom" />
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { PAGE_SIZE } from "../../../pagetable/mod.ts";
import { endpointText, sizeText } from "../../address.ts";
import type { State } from "../../api/mod.ts";

/** The device whose API is at `api`, a path relative to the page that ends with a slash. */
export function DeviceView({ api }: { readonly api: string }): VNode {
  const [state, setState] = useState<State | undefined>(undefined);
  const [problem, setProblem] = useState("");
  async function ask(): Promise<void> {
    try {
      const response = await fetch(`${api}v1/state`);
      const answer = await response.json();
      if (!response.ok) throw new TypeError(answer.error);
      setState(answer);
      setProblem("");
    } catch (error) {
      setProblem(error instanceof Error ? error.message : `${error}`);
    }
  }
  useEffect(() => void ask(), []);
  return (
    <section aria-labelledby="device-heading" class="device">
      <h2 id="device-heading">Running device</h2>
      <p class="tools">
        <button type="button" onClick={() => void ask()}>Ask again</button>
        {problem !== "" && (
          <span role="alert" class="problem">Cannot ask the device: {problem}</span>
        )}
        {state !== undefined && (
          <span>
            viommu {state.version}, {state.connected ? "a VMM is connected" : "no VMM is connected"}
          </span>
        )}
      </p>
      {state !== undefined && (
        <>
          <table>
            <caption>Endpoints</caption>
            <thead>
              <tr>
                <th scope="col">endpoint</th>
                <th scope="col">domain</th>
                <th scope="col">format</th>
                <th scope="col">faults</th>
              </tr>
            </thead>
            <tbody>
              {state.endpoints.map(({ id, domain, format, faults }) => (
                <tr key={id}>
                  <th scope="row">{endpointText(id)}</th>
                  <td>{domain ?? "none"}</td>
                  <td>{format}</td>
                  <td>{faults}</td>
                </tr>
              ))}
            </tbody>
          </table>
          <table>
            <caption>Domains</caption>
            <thead>
              <tr>
                <th scope="col">domain</th>
                <th scope="col">mappings</th>
                <th scope="col">mapped</th>
              </tr>
            </thead>
            <tbody>
              {state.domains.map(({ id, mappings, pages }) => (
                <tr key={id}>
                  <th scope="row">{id}</th>
                  <td>{mappings}</td>
                  <td>{sizeText(pages * PAGE_SIZE)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </>
      )}
    </section>
  );
}
