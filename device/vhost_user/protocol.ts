/**
 * The vhost-user protocol in numbers: messages, bits and layouts, as QEMU's `docs/interop/vhost-user.rst`
 * defines them.
 *
 * A message is a header of 12 bytes (request u32, flags u32, payload size u32) and its payload, all in the
 * byte order of the host, which is little-endian on every machine we run on. Descriptors travel with the
 * first byte.
 */

/** Messages from the front end to the back end. */
export const Request = {
  /** Asks for the virtio features on offer. */
  GET_FEATURES: 1,
  /** Sets the agreed virtio features. */
  SET_FEATURES: 2,
  /** Makes the sender the owner of the session. */
  SET_OWNER: 3,
  /** Deprecated: ends the ownership. */
  RESET_OWNER: 4,
  /** Hands over all of guest memory, a descriptor for each region. */
  SET_MEM_TABLE: 5,
  /** Hands over the log of written pages. */
  SET_LOG_BASE: 6,
  /** Hands over the event that is signalled when pages are logged. */
  SET_LOG_FD: 7,
  /** Sets a ring's size. */
  SET_VRING_NUM: 8,
  /** Sets a ring's addresses. */
  SET_VRING_ADDR: 9,
  /** Sets where a ring begins or goes on. */
  SET_VRING_BASE: 10,
  /** Stops a ring, and asks where it would go on. */
  GET_VRING_BASE: 11,
  /** Hands over the event that the driver signals; starts the ring. */
  SET_VRING_KICK: 12,
  /** Hands over the event that the device signals. */
  SET_VRING_CALL: 13,
  /** Hands over the event that the device signals when a ring is broken. */
  SET_VRING_ERR: 14,
  /** Asks for the protocol features on offer. */
  GET_PROTOCOL_FEATURES: 15,
  /** Sets the agreed protocol features. */
  SET_PROTOCOL_FEATURES: 16,
  /** Asks for the number of queues. */
  GET_QUEUE_NUM: 17,
  /** Enables or disables a ring. */
  SET_VRING_ENABLE: 18,
  /** For a network device only. */
  SEND_RARP: 19,
  /** For a network device only. */
  NET_SET_MTU: 20,
  /** A socket for messages the other way. */
  SET_BACKEND_REQ_FD: 21,
  /** Updates the front end's own I/O translation. */
  IOTLB_MSG: 22,
  /** Sets a ring's byte order. */
  SET_VRING_ENDIAN: 23,
  /** Reads the config space. */
  GET_CONFIG: 24,
  /** Writes the config space. */
  SET_CONFIG: 25,
  /** For a crypto device only. */
  CREATE_CRYPTO_SESSION: 26,
  /** For a crypto device only. */
  CLOSE_CRYPTO_SESSION: 27,
  /** For memory that arrives after the guest. */
  POSTCOPY_ADVISE: 28,
  /** For memory that arrives after the guest. */
  POSTCOPY_LISTEN: 29,
  /** For memory that arrives after the guest. */
  POSTCOPY_END: 30,
  /** Asks for a new record of requests in flight. */
  GET_INFLIGHT_FD: 31,
  /** Hands over a record of requests in flight. */
  SET_INFLIGHT_FD: 32,
  /** For a display device only. */
  GPU_SET_SOCKET: 33,
  /** Resets the device. */
  RESET_DEVICE: 34,
  /** A kick as a message. */
  VRING_KICK: 35,
  /** Asks how many memory regions there may be. */
  GET_MAX_MEM_SLOTS: 36,
  /** Adds a memory region. */
  ADD_MEM_REG: 37,
  /** Removes a memory region. */
  REM_MEM_REG: 38,
  /** Sets the device status. */
  SET_STATUS: 39,
  /** Asks for the device status. */
  GET_STATUS: 40,
  /** Asks for the descriptor of a shared object. */
  GET_SHARED_OBJECT: 41,
  /** Hands over a descriptor through which the device's state is saved or loaded. */
  SET_DEVICE_STATE_FD: 42,
  /** Asks whether saving or loading has succeeded. */
  CHECK_DEVICE_STATE: 43,
  /** Asks for the shared memory of the device. */
  GET_SHMEM_CONFIG: 44,
} as const;

/** Messages from the back end to the front end, on a socket of their own. */
export const BackEndRequest = {
  /** The config space has changed. */
  CONFIG_CHANGE: 2,
  /** A call as a message. */
  VRING_CALL: 4,
  /** A broken ring as a message. */
  VRING_ERR: 5,
} as const;

const names: string[] = [];
for (const [name, number] of Object.entries(Request)) names[number] = name;

/** A message's name for a log line. */
export function requestName(request: number): string {
  return names[request] ?? `message ${request}`;
}

/** Bytes of a message's header. */
export const HEADER_BYTES = 12;
/** Bits of the header's flags that hold the version. */
export const FLAG_VERSION_MASK = 3;
/** The only version. */
export const FLAG_VERSION = 1;
/** The message is a reply. */
export const FLAG_REPLY = 4;
/** The sender wants a reply that says whether it worked, if REPLY_ACK is agreed. */
export const FLAG_NEED_REPLY = 8;

/**
 * Longest payload accepted. It has room for the longest message that the kernel can carry descriptors for, a memory
 * table of 253 regions, so that a table of too many is refused instead of being mistaken for broken framing.
 */
export const MAX_PAYLOAD = 8192;
/** Most descriptors that come with one message: as many as the kernel passes on at once (`SCM_MAX_FD`). */
export const MAX_DESCRIPTORS = 253;
/**
 * Regions in SET_MEM_TABLE. The protocol's text says 8; rust-vmm's front ends send up to 32, and cloud-hypervisor
 * needs 10 and more for a guest with slots for hotplug.
 */
export const MAX_TABLE_REGIONS = 32;
/** Memory regions that may be there with CONFIGURE_MEM_SLOTS; QEMU uses up to 512. */
export const MAX_MEMORY_SLOTS = 512;
/** Bytes of config space that one message can carry: what cloud-hypervisor and crosvm show the guest. */
export const MAX_CONFIG = 4096;
/** Bytes in front of the data in GET_CONFIG and SET_CONFIG: offset u32, size u32, flags u32. */
export const CONFIG_HEADER_BYTES = 12;
/** Bytes of one memory region description: guest address, size, user address, mmap offset, u64 each. */
export const REGION_BYTES = 32;

/** Bits 0–7 of a u64 that names a ring and may come with a descriptor. */
export const RING_INDEX_MASK = 0xff;
/** Bit of the same: no descriptor comes; poll the ring, or do not signal. */
export const RING_NO_DESCRIPTOR = 0x100;
/** Flag of SET_VRING_ADDR: writes to the ring are logged. */
export const RING_FLAG_LOG = 1;

/** Protocol features, as masks of a 32-bit word. */
export const ProtocolFeature = {
  /** More than one queue; GET_QUEUE_NUM exists. */
  MQ: 1 << 0,
  /** The dirty log is shared memory. */
  LOG_SHMFD: 1 << 1,
  /** Every message can ask for a reply. */
  REPLY_ACK: 1 << 3,
  /** A socket for messages from back end to front end. */
  BACKEND_REQ: 1 << 5,
  /** The config space is the back end's. */
  CONFIG: 1 << 9,
  /** Requests in flight are recorded in shared memory. */
  INFLIGHT_SHMFD: 1 << 12,
  /** RESET_DEVICE exists. */
  RESET_DEVICE: 1 << 13,
  /** Kicks and calls may be messages. */
  INBAND_NOTIFICATIONS: 1 << 14,
  /** Memory regions come and go one by one. */
  CONFIGURE_MEM_SLOTS: 1 << 15,
  /** The device status is passed on. */
  STATUS: 1 << 16,
  /** The device's state can be saved and loaded. */
  DEVICE_STATE: 1 << 19,
} as const;

/** Feature bits of the transport, as masks of the low or high word. */
export const TransportFeature = {
  /** Low: log all writes to guest memory. */
  LOG_ALL: 1 << 26,
  /** Low: indirect descriptors. */
  INDIRECT_DESC: 1 << 28,
  /** Low: used and available event indices. */
  EVENT_IDX: 1 << 29,
  /** Low: the protocol features exist; rings start disabled. */
  PROTOCOL_FEATURES: 1 << 30,
  /** High: a device of virtio 1.0 or later. */
  VERSION_1: 1 << 0,
  /** High: ring and buffer addresses go through an IOMMU. */
  ACCESS_PLATFORM: 1 << 1,
  /** High: packed rings. */
  RING_PACKED: 1 << 2,
  /** High: buffers are used in the order they were made available. */
  IN_ORDER: 1 << 3,
  /** High: notifications carry where the driver is. */
  NOTIFICATION_DATA: 1 << 6,
} as const;

/** Reads a u64 as a number; -1 if it is 2^53 or more, which no address or size can be. */
export function readU64(data: DataView, at: number): number {
  const high = data.getUint32(at + 4, true);
  return high < 0x200000 ? high * 2 ** 32 + data.getUint32(at, true) : -1;
}

/** Writes a number below 2^53 as a u64. */
export function writeU64(data: DataView, at: number, value: number): void {
  data.setUint32(at, value >>> 0, true);
  data.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
