/**
 * `--endpoint-proxy`: back ends of other programs behind the IOMMU, from their texts to what stands in between.
 *
 * @module
 */
import { EndpointProxy, type WriteOnly } from "../endpoint/mod.ts";
import type { SocketAccess } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import type { OptionValues } from "./command.ts";
import {
  BACK_END_PARTS,
  type BackEndChoice,
  backEndChoice,
  DEFAULT_TIMEOUT_MS,
  openBetween,
  openEach,
  parseEndpointChoices,
} from "./endpoint_choices.ts";
import { ENDPOINT, oneOf, optional, parseParts } from "./option_parts.ts";

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
export interface EndpointProxyChoice extends BackEndChoice {
  /** What becomes of mappings that may only be written. */
  readonly writeOnly: WriteOnly;
}

const OPTION = {
  name: "--endpoint-proxy",
  head: ENDPOINT,
  parts: { ...BACK_END_PARTS, "write-only": optional(oneOf("widen", "keep"), "widen") },
};

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
  return parseEndpointChoices(values, "endpoint-proxy", parseEndpointProxy, taken);
}

/** Opens the sockets and makes the proxies, in their order. */
export function openEndpointProxies(
  choices: readonly EndpointProxyChoice[],
  iommu: IommuDevice,
  log: Log,
  access: SocketAccess = {},
): readonly EndpointProxy[] {
  return openEach(choices, iommu, (choice) =>
    openBetween(choice, access, (listener, backEnd) => {
      const { endpoint, writeOnly, timeout: patience } = choice;
      return new EndpointProxy({ iommu, endpoint, listener, backEnd, writeOnly, patience, log });
    }));
}

/** `ENDPOINT,NAME=VALUE,…`. */
function parseEndpointProxy(text: string): EndpointProxyChoice {
  const [endpoint, parts] = parseParts(OPTION, text);
  return { ...backEndChoice(OPTION.name, text, endpoint, parts), writeOnly: parts["write-only"] };
}
