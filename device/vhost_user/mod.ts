/**
 * vhost-user: how a VMM attaches a device that lives in another process. The back end that serves it and a
 * small front end that plays the VMM.
 *
 * May import `device/host`, `vring`, and of `device` itself only addresses, the log and the device interface. What the
 * requests in a ring mean is not known here.
 *
 * @module
 */
export { BackEnd, type BackEndOptions } from "./back_end.ts";
export { Connection, ProtocolError, type ReadResult } from "./connection.ts";
export { FrontEnd, type FrontEndOptions, type FrontEndRegion } from "./front_end.ts";
export { FrontEndQueue, type FrontEndQueueOptions } from "./front_end_queue.ts";
export * from "./protocol.ts";
export {
  ALL_RING_FEATURES,
  RING_FEATURE_NAMES,
  type RingFeatures,
  ringFeatures,
} from "./ring_features.ts";
