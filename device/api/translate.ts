/** `GET /v1/translate`: one address through the tables of an endpoint. */
import {
  type DescribedEntry,
  describePath,
  MEMORY_TYPE_NAMES,
  type WalkResult,
} from "../../pagetable/mod.ts";
import {
  type Address,
  addressText,
  endpointText,
  PAGE_SIZE,
  parseAddress,
  parseEndpoint,
  parseNumber,
} from "../address.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { type ApiContext, ApiError } from "./context.ts";
import { protectionText } from "./mappings.ts";
import { parameter, parseAccess } from "./parameters.ts";

/** The answer to `GET /v1/translate`. */
export type TranslateAnswer =
  | {
    /** Where the byte is, as the tables say: a guest-physical address, or with `--frames host` a host-physical one. */
    readonly phys: string;
    /** With `--frames host`, the guest-physical address that it stands for. */
    readonly guest?: string;
    /** With `--frames host`, where the kernel has the byte at this moment, if that is not `phys`; null if nowhere. */
    readonly moved?: string | null;
    /** What is allowed: `r`, `w` or both. */
    readonly access: string;
    /** Bytes of the leaf. */
    readonly pageSize: number;
    /** What the leaf says the memory is: `normal` or `device`; `normal` where a format cannot say. */
    readonly memory: string;
    /** Format of the tables, or `bypass`. */
    readonly format: string;
    /** Every entry read, device tables first. */
    readonly path: readonly DescribedEntry[];
  }
  | {
    /** Why not. */
    readonly fault: FaultState;
    /** Format of the tables. */
    readonly format: string;
    /** Every entry read; the last one is the one that refused, if any was read. */
    readonly path: readonly DescribedEntry[];
  };

/** Why an access was refused. */
export interface FaultState {
  /** In a word. */
  readonly reason: string;
  /** The hardware's own code. */
  readonly code: string;
}

/** `GET /v1/translate`: `endpoint`, `iova` or `ring`, and `access` (`r`, the default, or `w`). */
export function translate(context: ApiContext, query: URLSearchParams): TranslateAnswer {
  const id = parameter(
    "endpoint",
    query.get("endpoint"),
    parseEndpoint,
    "an endpoint such as 24, 0x18 or 00:03.0",
  );
  const iova = query.get("ring") === null
    ? parameter(
      "iova",
      query.get("iova"),
      parseAddress,
      "a byte address such as 0x1000 or 4096",
    )
    : ringAddress(context, id, query);
  const access = parameter("access", query.get("access") ?? "r", parseAccess, "r or w");
  const format = context.device.endpoints.formatOf(id);
  if (format === undefined) throw new ApiError(404, `There is no endpoint ${id}`);
  const walk = context.device.walk(id, iova.page, access);
  const path = describePath(format, walk);
  if (!walk.ok) return { fault: faultOf(walk), format, path };
  return {
    ...placeOf(context.device, walk, iova.offset),
    access: protectionText(walk.permission),
    pageSize: walk.bypass ? PAGE_SIZE : walk.leafPages * PAGE_SIZE,
    memory: MEMORY_TYPE_NAMES[walk.memoryType],
    format: walk.bypass ? "bypass" : format,
    path,
  };
}

/** Where a ring of the device begins that is served at an endpoint. */
function ringAddress(
  { services = [], relays = [] }: ApiContext,
  endpoint: number,
  query: URLSearchParams,
): Address {
  if (query.get("iova") !== null) throw new ApiError(400, "Cannot take both iova and ring");
  const ring = parameter(
    "ring",
    query.get("ring"),
    (text) => parseNumber(text, 0xffff),
    "the index of a ring such as 0",
  );
  const service = relays.find((each) => each.endpoint === endpoint)?.service ??
    services.find((each) => each.endpoint === endpoint);
  const address = service?.ringAddress(ring);
  if (address !== undefined) return address;
  throw new ApiError(
    404,
    `There is no ring ${ring} at endpoint ${endpointText(endpoint)}: ` +
      (service === undefined ? "no device is served there" : "its guest has not placed it"),
  );
}

/** Where a translated byte is. */
function placeOf(
  device: IommuDevice,
  walk: WalkResult,
  offset: number,
): { readonly phys: string; readonly guest?: string; readonly moved?: string | null } {
  const guest = addressText(walk.frame, offset);
  if (!device.holdsHostFrames || walk.bypass) return { phys: guest };
  const phys = addressText(device.tableFrame, offset);
  const now = device.hostFrameNow(walk.frame);
  if (now === device.tableFrame) return { phys, guest };
  return { phys, guest, moved: now < 0 ? null : addressText(now, offset) };
}

/** The fault that a walk ended in. */
export function faultOf(walk: WalkResult): FaultState {
  return { reason: walk.faultName, code: `0x${walk.faultCode.toString(16)}` };
}
