/**
 * `--endpoint-proxy`: back ends of other programs behind the IOMMU, from their texts to what stands in between.
 *
 * @module
 */
import { endpointText, parseEndpoint, parseNumber } from "../address.ts";
import { EndpointProxy, type WriteOnly } from "../endpoint/mod.ts";
import { type SocketAccess, UnixListener } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { type OptionValues, parseText, textOptions, UsageError } from "./command.ts";

/** Milliseconds that a back end has for an acknowledgement, unless the option says otherwise. */
const DEFAULT_TIMEOUT_MS = 5000;

/** What `--help` says of the option. */
export const ENDPOINT_PROXY_HELP =
  `  --endpoint-proxy ENDPOINT,listen=PATH,backend=PATH[,timeout-ms=N]
                   [,backend-mode=connect|listen][,write-only=widen|keep]
                           a vhost-user back end of another program, such as
                           a DPDK port: the VMM connects to "listen", we to
                           "backend" (or the back end to us, with "listen"),
                           and the back end gets the translations of the
                           endpoint; can be repeated; see docs/endpoints.md
                           (default connect, widen: what the guest maps for
                           writing alone may be read, too; ${DEFAULT_TIMEOUT_MS} ms for an
                           invalidation, then the back end is disconnected)
`;

/** One `--endpoint-proxy`. */
export interface EndpointProxyChoice {
  /** The endpoint it is. */
  readonly endpoint: number;
  /** Where the VMM comes to. */
  readonly listen: string;
  /** The back end's socket. */
  readonly backEnd: string;
  /** Which side listens there: the back end, or we. */
  readonly backEndMode: "connect" | "listen";
  /** What becomes of mappings that may only be written. */
  readonly writeOnly: WriteOnly;
  /** Milliseconds for an acknowledgement. */
  readonly timeout: number;
}

const PARTS = ["listen", "backend", "backend-mode", "write-only", "timeout-ms"];

/**
 * Reads every `--endpoint-proxy`.
 *
 * @param taken Endpoints that this process serves a device at.
 * @throws {UsageError} If one is wrong.
 */
export function parseEndpointProxies(
  values: OptionValues,
  taken: readonly number[],
): readonly EndpointProxyChoice[] {
  const proxies = textOptions(values, "endpoint-proxy").map(parseEndpointProxy);
  const seen = new Set(taken);
  for (const { endpoint } of proxies) {
    if (seen.has(endpoint)) {
      throw new UsageError(
        `Cannot take --endpoint-proxy for endpoint ${
          endpointText(endpoint)
        }: it has a device already`,
      );
    }
    seen.add(endpoint);
  }
  return proxies;
}

/** Opens the sockets and makes the proxies, in their order. */
export function openEndpointProxies(
  choices: readonly EndpointProxyChoice[],
  iommu: IommuDevice,
  log: Log,
  access: SocketAccess = {},
): readonly EndpointProxy[] {
  const proxies: EndpointProxy[] = [];
  try {
    for (const choice of choices) {
      const { endpoint, writeOnly, timeout } = choice;
      if (iommu.endpoints.formatOf(endpoint) === undefined) {
        throw new UsageError(
          `Cannot proxy ${endpointText(endpoint)}: no --endpoint includes it`,
        );
      }
      const listener = UnixListener.listen(choice.listen, access);
      let backEnd: string | UnixListener = choice.backEnd;
      try {
        if (choice.backEndMode === "listen") {
          backEnd = UnixListener.listen(choice.backEnd, access);
        }
        proxies.push(
          new EndpointProxy({
            iommu,
            endpoint,
            listener,
            backEnd,
            writeOnly,
            patience: timeout,
            log,
          }),
        );
      } catch (error) {
        listener.close();
        if (typeof backEnd !== "string") backEnd.close();
        throw error;
      }
    }
  } catch (error) {
    for (const proxy of proxies) proxy.close();
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
  return proxies;
}

/** `ENDPOINT,NAME=VALUE,…`. */
function parseEndpointProxy(text: string): EndpointProxyChoice {
  const [head, ...rest] = text.split(",");
  const endpoint = parseText(
    "--endpoint-proxy",
    head,
    parseEndpoint,
    "an endpoint such as 00:03.0",
  );
  const parts = new Map<string, string>();
  for (const part of rest) {
    const equals = part.indexOf("=");
    const name = part.slice(0, Math.max(0, equals));
    if (!PARTS.includes(name)) {
      throw new UsageError(
        `Cannot take "${part}" in --endpoint-proxy ${text}: it must be ` +
          PARTS.map((each) => `${each}=…`).join(" or "),
      );
    }
    parts.set(name, part.slice(equals + 1));
  }
  const listen = required(text, parts, "listen");
  const backEnd = required(text, parts, "backend");
  if (listen === backEnd) {
    throw new UsageError(
      `Cannot take --endpoint-proxy ${text}: listen and backend are the same socket`,
    );
  }
  return {
    endpoint,
    listen,
    backEnd,
    backEndMode: oneOf(text, parts, "backend-mode", ["connect", "listen"]),
    writeOnly: oneOf(text, parts, "write-only", ["widen", "keep"]),
    timeout: timeoutOf(text, parts),
  };
}

function required(text: string, parts: ReadonlyMap<string, string>, name: string): string {
  const value = parts.get(name) ?? "";
  if (value === "") {
    throw new UsageError(`Cannot take --endpoint-proxy ${text}: ${name}=… is missing`);
  }
  return value;
}

/** The value of a part, the first of the choices where it is missing. */
function oneOf<T extends string>(
  text: string,
  parts: ReadonlyMap<string, string>,
  name: string,
  choices: readonly [T, ...T[]],
): T {
  const value = parts.get(name);
  if (value === undefined) return choices[0];
  const found = choices.find((choice) => choice === value);
  if (found === undefined) {
    throw new UsageError(
      `Cannot take --endpoint-proxy ${text}: ${name} must be ${choices.join(" or ")}`,
    );
  }
  return found;
}

function timeoutOf(text: string, parts: ReadonlyMap<string, string>): number {
  const value = parts.get("timeout-ms");
  if (value === undefined) return DEFAULT_TIMEOUT_MS;
  const number = parseNumber(value, 60_000);
  if (number === undefined || number < 1) {
    throw new UsageError(
      `Cannot take --endpoint-proxy ${text}: timeout-ms must be a number from 1 to 60000`,
    );
  }
  return number;
}
