/** `--endpoint-proxy`: back ends of other programs behind the IOMMU, from their texts to what stands in between. */
import { EndpointProxy, type WriteOnly } from "../endpoint/mod.ts";
import {
  BACK_END_PARTS,
  type BackEndChoice,
  backEndChoice,
  DEFAULT_TIMEOUT_MS,
  type EndpointOption,
  listensOf,
  openBetween,
} from "./endpoint_choices.ts";
import { ENDPOINT, oneOf, optional, parseParts } from "./option_parts.ts";

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

/** Back ends that translate for themselves. */
export const endpointProxy: EndpointOption = {
  definition: {
    name: "endpoint-proxy",
    value:
      "ENDPOINT,listen=PATH,backend=PATH[,timeout-ms=N][,backend-mode=connect|listen][,write-only=widen|keep]",
    help:
      'a vhost-user back end of another program, such as a DPDK port: the VMM connects to "listen", we to ' +
      '"backend" (or the back end to us, with "listen"), and the back end gets the translations of the endpoint; ' +
      "can be repeated; see docs/endpoints.md (default connect, widen: what the guest maps for writing alone may be " +
      `read, too; ${DEFAULT_TIMEOUT_MS} ms for an invalidation, then the back end is disconnected)`,
    repeats: true,
  },
  parse(text) {
    const choice = parseEndpointProxy(text);
    const { endpoint, writeOnly, timeout: patience } = choice;
    return {
      endpoint,
      listens: listensOf(choice),
      connects: choice.backEndMode === "connect",
      files: [],
      qemuArguments: [],
      open: ({ iommu, log, access }) =>
        openBetween(
          choice,
          access,
          (sockets) => new EndpointProxy({ iommu, endpoint, ...sockets, writeOnly, patience, log }),
        ),
    };
  },
};

/**
 * Reads `ENDPOINT,NAME=VALUE,…`.
 *
 * @throws {UsageError} If the text is wrong.
 */
export function parseEndpointProxy(text: string): EndpointProxyChoice {
  const [endpoint, parts] = parseParts(OPTION, text);
  return { ...backEndChoice(OPTION.name, text, endpoint, parts), writeOnly: parts["write-only"] };
}
