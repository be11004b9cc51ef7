/**
 * vhost-user: how a VMM attaches a device that lives in another process. {@linkcode BackEnd} serves the device,
 * {@linkcode FrontEnd} is a small front end that plays the VMM.
 *
 * Both ends in one process (`--allow-ffi`):
 *
 * ```ts
 * import { UnixStream } from "@viommu/viommu/host";
 * import { IommuDevice } from "@viommu/viommu/iommu";
 * import { BackEnd, FrontEnd } from "@viommu/viommu/vhost-user";
 *
 * const [front, back] = UnixStream.pair();
 * const device = new IommuDevice({
 *   endpoints: [{ first: 0, last: 0xff, format: "vtd-ss" }],
 *   reserved: [],
 *   bypass: false,
 *   maxDomains: 64,
 *   maxMappings: 65536,
 *   maxTableMemory: 16 << 20,
 *   tableBaseFrame: 2 ** 31,
 * });
 * const backEnd = new BackEnd(back, device);
 * const serving = setInterval(() => backEnd.onReadable(), 1);
 *
 * const frontEnd = new FrontEnd(front);
 * await frontEnd.negotiate();
 * console.log(await frontEnd.readConfig(0, 8)); // the mask of page sizes
 *
 * clearInterval(serving);
 * frontEnd.close();
 * backEnd.close();
 * ```
 *
 * May import `device/host`, `vring`, and of `device` itself only addresses, the log and the device interface. What the
 * requests in a ring mean is not known here.
 *
 * @module
 */
export type { Address } from "../address.ts";
export { BackEnd, type BackEndOptions } from "./back_end.ts";
export type { EarlierSession } from "./held_session.ts";
export { Connection, type MessageStream, ProtocolError, type ReadResult } from "./connection.ts";
export { FrontEnd, type FrontEndOptions, type FrontEndRegion } from "./front_end.ts";
export { FrontEndQueue, type FrontEndQueueOptions } from "./front_end_queue.ts";
export {
  BackEndRequest,
  CONFIG_HEADER_BYTES,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  FLAG_VERSION,
  MAX_CONFIG,
  MAX_TABLE_REGIONS,
  ProtocolFeature,
  REGION_BYTES,
  Request,
  requestName,
  RING_INDEX_MASK,
  TransportFeature,
  writeU64,
} from "./protocol.ts";
export {
  ALL_RING_FEATURES,
  RING_FEATURE_NAMES,
  type RingFeatures,
  ringFeatures,
} from "./ring_features.ts";
