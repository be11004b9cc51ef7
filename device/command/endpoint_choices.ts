/**
 * What the options about endpoints have in common: `--endpoint-device`, `--endpoint-proxy` and `--endpoint-relay`.
 *
 * An endpoint has one device; what stands between a VMM and a back end of another program has two sockets.
 *
 * @module
 */
import { endpointText } from "../address.ts";
import { type SocketAccess, UnixListener } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { type OptionValues, textOptions, UsageError } from "./command.ts";
import {
  numberFrom,
  oneOf,
  optional,
  type PartValues,
  required,
  SOCKET_PATH,
} from "./option_parts.ts";

/** Milliseconds that a back end has to answer a message, unless the option says otherwise. */
export const DEFAULT_TIMEOUT_MS = 5000;

/** Parts about a back end of another program. */
export const BACK_END_PARTS = {
  "listen": required(SOCKET_PATH),
  "backend": required(SOCKET_PATH),
  "backend-mode": optional(oneOf("connect", "listen"), "connect"),
  "timeout-ms": optional(numberFrom(1, 60_000), DEFAULT_TIMEOUT_MS),
};

/** What they say. */
export interface BackEndChoice {
  /** The endpoint it is. */
  readonly endpoint: number;
  /** Where the VMM comes to. */
  readonly listen: string;
  /** The back end's socket. */
  readonly backEnd: string;
  /** Which side listens there: the back end, or we. */
  readonly backEndMode: "connect" | "listen";
  /** Milliseconds for an answer. */
  readonly timeout: number;
}

/**
 * Reads every option of a name.
 *
 * @param name The option's name, without dashes.
 * @param taken Endpoints that have a device already.
 * @throws {UsageError} If one is wrong, or its endpoint has a device.
 */
export function parseEndpointChoices<C extends { readonly endpoint: number }>(
  values: OptionValues,
  name: string,
  parse: (text: string) => C,
  taken: readonly number[],
): readonly C[] {
  const seen = new Set(taken);
  return textOptions(values, name).map(parse).map((choice) => {
    const { endpoint } = choice;
    if (seen.has(endpoint)) {
      throw new UsageError(
        `Cannot take --${name} for endpoint ${endpointText(endpoint)}: it has a device already`,
      );
    }
    seen.add(endpoint);
    return choice;
  });
}

/**
 * What an option says of a back end.
 *
 * @param option The option's name, dashes included.
 * @param text Its text, for the message.
 * @throws {UsageError} If both sockets are the same.
 */
export function backEndChoice(
  option: string,
  text: string,
  endpoint: number,
  parts: PartValues<typeof BACK_END_PARTS>,
): BackEndChoice {
  const { listen, backend: backEnd } = parts;
  if (listen === backEnd) {
    throw new UsageError(`Cannot take ${option} ${text}: listen and backend are the same socket`);
  }
  const { "backend-mode": backEndMode, "timeout-ms": timeout } = parts;
  return { endpoint, listen, backEnd, backEndMode, timeout };
}

/**
 * Opens what was chosen, in its order; where one cannot be opened, those before it are closed.
 *
 * @throws {UsageError} If one cannot be.
 */
export function openEach<
  C extends { readonly endpoint: number },
  S extends { close(): void },
>(choices: readonly C[], iommu: IommuDevice, open: (choice: C) => S): readonly S[] {
  const opened: S[] = [];
  try {
    for (const choice of choices) {
      if (iommu.endpoints.formatOf(choice.endpoint) === undefined) {
        throw new UsageError(
          `Cannot serve a device at ${endpointText(choice.endpoint)}: no --endpoint includes it`,
        );
      }
      opened.push(open(choice));
    }
    return opened;
  } catch (error) {
    for (const each of opened) each.close();
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
}

/**
 * Opens the sockets of a choice for what stands between them; where that cannot be had, they are closed.
 *
 * @param make Gets the listener for the VMM, and the back end's path, or the listener for it.
 */
export function openBetween<S>(
  { listen, backEnd, backEndMode }: BackEndChoice,
  access: SocketAccess,
  make: (listener: UnixListener, backEnd: string | UnixListener) => S,
): S {
  const opened = [UnixListener.listen(listen, access)];
  try {
    if (backEndMode === "listen") opened.push(UnixListener.listen(backEnd, access));
    return make(opened[0], opened[1] ?? backEnd);
  } catch (error) {
    for (const each of opened) each.close();
    throw error;
  }
}
