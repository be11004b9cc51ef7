/**
 * The virtio-iommu device model: requests, configuration space, endpoints, domains and fault reports.
 *
 * It uses no sockets, no FFI and nothing of Deno, so an emulator written in TypeScript can embed it, in Deno, in Node and
 * in a browser. The emulator gives it guest memory and running queues, calls {@linkcode IommuDevice.service} when the
 * guest kicks, and asks {@linkcode IommuDevice.walk} where an access of an endpoint leads.
 *
 * ```ts
 * import { IommuDevice } from "@viommu/viommu/iommu";
 * import { READ } from "@viommu/viommu/pagetable";
 *
 * const device = new IommuDevice({
 *   endpoints: [{ first: 0, last: 0xff, format: "vtd-ss" }],
 *   reserved: [],
 *   bypass: false,
 *   maxDomains: 64,
 *   maxMappings: 65536,
 *   maxTableMemory: 16 << 20,
 *   tableBaseFrame: 2 ** 31,
 * });
 * console.log(device.walk(8, 0x1000, READ).ok); // false: endpoint 8 is attached to no domain
 *
 * // What the requests ATTACH and MAP of a guest do:
 * device.iommu.attach(1, 8, false);
 * device.iommu.map(device.iommu.domain(1)!, 0x1000, 0x1000, 5, READ);
 * console.log(device.walk(8, 0x1000, READ).frame); // 5
 * device.close();
 * ```
 *
 * Pages and frames are numbers of 4096 bytes, 0 to 2^52 - 1, ranges are inclusive, endpoint and domain ids have 32 bits.
 * `examples/embed_iommu.ts` drives one over a virtqueue. `README.md` follows a request.
 *
 * @module
 */
export {
  type AttachmentEvent,
  type DeviceEvent,
  DeviceEvents,
  type EventHead,
  type FaultEvent,
  type RefusedEvent,
  type ResetEvent,
} from "./device_events.ts";
export { type Refusal, type RefusalKey, REFUSALS, type RequestField } from "./refusals.ts";
export { type DeviceOptions, IommuDevice, type LockableMemory } from "./iommu_device.ts";

// The parts of a device that its fields give.
export { Domain, type DomainContext } from "./domain.ts";
export { type Attachable, Endpoint, type EndpointRange, EndpointTable } from "./endpoint_table.ts";
export { FaultEvents } from "./fault_events.ts";
export { GuestLife, type LifeRecord, type LifeState } from "./guest_life.ts";
export { Hardware, type HardwareOptions, type TranslatedEndpoint } from "./hardware.ts";
export type {
  HostDevice,
  HostIommu,
  HostLimits,
  HostReservedRange,
  HostTable,
} from "./host_devices.ts";
export { HostGroup, type HostPlace, type HostTarget } from "./host_group.ts";
export { type HostDomain, HostRegistry, type HostRegistryParts } from "./host_registry.ts";
export { Passthrough, type PassthroughParts, type PassthroughState } from "./passthrough.ts";
export { DeviceJournal } from "./journal/device_journal.ts";
export { Entry, Journal } from "./journal/journal.ts";
export { type IotlbListener, IotlbListeners, type RemoteIotlbListener } from "./iotlb_listeners.ts";
export type { Pieces } from "./pieces.ts";
export { PiecewiseUnmap } from "./piecewise_unmap.ts";
export type { ModelRecorder } from "./model_recorder.ts";
export { Request } from "./request.ts";
export type { MapLimits } from "./request_checks.ts";
export { Requests, type RequestsOptions, UNDER_WAY } from "./requests.ts";
export {
  type ReservedRegion,
  ReservedRegions,
  RESV_MEM_MSI,
  RESV_MEM_RESERVED,
} from "./reserved_region.ts";
export { Turn } from "./turn.ts";
export { VirtioIommu, type VirtioIommuOptions } from "./virtio_iommu.ts";

// What limits cost.
export { memoryBound, type MemoryLimits } from "./memory_bound.ts";

// The driver's side.
export {
  attachRequest,
  detachRequest,
  type MapFields,
  mapRequest,
  probeRequest,
  type Property,
  readProperties,
  statusName,
  unmapRequest,
  writableSize,
} from "./driver_requests.ts";
export {
  ATTACH_F_BYPASS,
  DEVICE_ID,
  EVENT_QUEUE,
  F_BYPASS_CONFIG,
  F_DOMAIN_RANGE,
  F_INPUT_RANGE,
  F_MAP_UNMAP,
  F_MMIO,
  F_PROBE,
  FAULT_F_ADDRESS,
  FAULT_F_READ,
  FAULT_F_WRITE,
  FAULT_R_DOMAIN,
  FAULT_R_MAPPING,
  FAULT_R_UNKNOWN,
  FAULT_SIZE,
  FEATURE_NAMES,
  MAP_F_MMIO,
  MAP_F_READ,
  MAP_F_WRITE,
  QUEUE_COUNT,
  REQUEST_NAMES,
  REQUEST_QUEUE,
  S_DEVERR,
  S_FAULT,
  S_INVAL,
  S_IOERR,
  S_NOENT,
  S_NOMEM,
  S_OK,
  S_RANGE,
  S_UNSUPP,
  type Status,
  STATUS_NAMES,
  T_ATTACH,
  T_DETACH,
  T_MAP,
  T_PROBE,
  T_UNMAP,
} from "./wire.ts";
