/** The guest driver as a form: its requests, and DMA of an endpoint. */
/// <reference lib="dom" />
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { MAP_F_MMIO, MAP_F_READ, MAP_F_WRITE } from "../../iommu/mod.ts";
import { READ, WRITE } from "../../../pagetable/mod.ts";
import { parseNumber } from "../../address.ts";
import { bytesOf, Choice, endpointOptions, type Options, TextField, textOf } from "./inputs.tsx";
import { ENDPOINTS, type LogLine, type Playground } from "./playground.ts";

const REQUESTS = [
  ["MAP", "MAP"],
  ["UNMAP", "UNMAP"],
  ["ATTACH", "ATTACH"],
  ["DETACH", "DETACH"],
  ["DMA", "DMA of an endpoint"],
] as const;
type RequestKind = typeof REQUESTS[number][0];

const FLAGS: Options = [
  [`${MAP_F_READ | MAP_F_WRITE}`, "read, write"],
  [`${MAP_F_READ}`, "read"],
  [`${MAP_F_WRITE}`, "write"],
  [`${MAP_F_READ | MAP_F_WRITE | MAP_F_MMIO}`, "read, write, MMIO"],
  ["0", "none"],
];

/** The form. `onSent` is called with the line that the log has got. */
export function RequestForm(
  { playground, onSent }: {
    readonly playground: Playground;
    readonly onSent: (line: LogLine) => void;
  },
): VNode {
  const [kind, setKind] = useState<RequestKind>("MAP");
  const [problem, setProblem] = useState("");
  const hasDomain = kind !== "DMA";
  const hasEndpoint = kind === "ATTACH" || kind === "DETACH" || kind === "DMA";
  const hasRange = kind === "MAP" || kind === "UNMAP";
  return (
    <form
      aria-label="Request"
      onSubmit={(event) => {
        event.preventDefault();
        try {
          const line = send(playground, kind, event.currentTarget);
          setProblem("");
          onSent(line);
        } catch (error) {
          if (!(error instanceof RangeError)) throw error;
          setProblem(error.message);
        }
      }}
    >
      <Choice
        name="kind"
        label="Request"
        options={REQUESTS}
        value={kind}
        onChange={(value) => setKind(value as RequestKind)}
      />
      {hasDomain && <TextField name="domain" label="domain" value="1" />}
      {hasEndpoint && (
        <Choice name="endpoint" label="endpoint" options={endpointOptions(ENDPOINTS)} />
      )}
      {hasRange && <TextField name="start" label="virt_start" value="0x40600000" />}
      {hasRange && <TextField name="end" label="virt_end (inclusive)" value="0x407fffff" />}
      {kind === "MAP" && <TextField name="phys" label="phys_start" value="0x600000" />}
      {kind === "MAP" && <Choice name="flags" label="flags" options={FLAGS} />}
      {kind === "DMA" && <TextField name="address" label="address" value="0x40000000" />}
      {kind === "DMA" && (
        <Choice
          name="access"
          label="access"
          options={[[`${READ}`, "read"], [`${WRITE}`, "write"]]}
        />
      )}
      <button type="submit">Send</button>
      <output class="problem" role="alert">{problem}</output>
    </form>
  );
}

/** Sends what the form says. Throws a RangeError of one line if a field cannot be read. */
function send(playground: Playground, kind: RequestKind, form: HTMLFormElement): LogLine {
  const endpoint = Number(textOf(form, "endpoint"));
  if (kind === "DMA") {
    const address = bytesOf(textOf(form, "address"));
    return playground.dma(endpoint, address, Number(textOf(form, "access")));
  }
  const text = textOf(form, "domain").trim();
  const domain = parseNumber(text, 0xffffffff);
  if (domain === undefined) throw new RangeError(`"${text}" is no domain: give 0 to 4294967295`);
  if (kind === "ATTACH") return playground.attach(domain, endpoint);
  if (kind === "DETACH") return playground.detach(domain, endpoint);
  const virtStart = bytesOf(textOf(form, "start"));
  const virtEnd = bytesOf(textOf(form, "end"));
  if (kind === "UNMAP") return playground.unmap(domain, virtStart, virtEnd);
  const physStart = bytesOf(textOf(form, "phys"));
  const flags = Number(textOf(form, "flags"));
  return playground.map({ domain, virtStart, virtEnd, physStart, flags });
}

/** What was asked for, and what came of it. */
export function RequestLog({ lines }: { readonly lines: readonly LogLine[] }): VNode {
  return (
    <ol class="log" reversed aria-label="Requests, the last first" aria-live="polite" tabIndex={0}>
      {lines.map(({ number, request, ok, answer, reason }) => (
        <li key={number} value={number} class={ok ? "ok" : "refused"}>
          <code>{request}</code> <strong>{answer}</strong>
          {reason !== "" && <span>: {reason}</span>}
        </li>
      ))}
    </ol>
  );
}
