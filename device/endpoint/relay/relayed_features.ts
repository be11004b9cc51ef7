/**
 * What happens to the features that a back end offers.
 *
 * Features of the device itself (virtio 1.4, 6: bits 0–23 and 50–127) are passed to the guest, unless they need more
 * than queues. Features of rings and of the transport concern one side only: the guest is offered ours, and the back
 * end gets those below, whatever the guest accepts.
 */
import { ProtocolFeature, TransportFeature } from "../../vhost_user/mod.ts";
import type { RelayedType } from "./relayed_types.ts";

/** Bits 0–23. */
const DEVICE_LOW = 0x00ff_ffff;
/** Bits 50–63. */
const DEVICE_HIGH = 0xfffc_0000 | 0;

/** Ring features that our driver supports, of bits 0–31. */
export const RING_LOW: number = TransportFeature.INDIRECT_DESC | TransportFeature.EVENT_IDX;

/** Protocol features that a relay uses. */
export const USED_PROTOCOL: number = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK |
  ProtocolFeature.BACKEND_REQ | ProtocolFeature.CONFIG | ProtocolFeature.RESET_DEVICE;

/** Names of features that are not passed and belong to no device. */
const NAMES: Readonly<Record<number, string>> = {
  24: "NOTIFY_ON_EMPTY",
  26: "LOG_ALL",
  27: "ANY_LAYOUT",
  33: "ACCESS_PLATFORM",
  34: "RING_PACKED",
  35: "IN_ORDER",
  36: "ORDER_PLATFORM",
  37: "SR_IOV",
  38: "NOTIFICATION_DATA",
  39: "NOTIF_CONFIG_DATA",
  40: "RING_RESET",
  41: "ADMIN_VQ",
};
/** Not worth a log line: each side agrees on these for itself. */
const SILENT_LOW = TransportFeature.PROTOCOL_FEATURES | RING_LOW;
const SILENT_HIGH = TransportFeature.VERSION_1;

/** Names of protocol features that a relay cannot pass, by bit. */
const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  1: "LOG_SHMFD",
  2: "RARP",
  4: "MTU",
  6: "CROSS_ENDIAN",
  7: "CRYPTO_SESSION",
  8: "PAGEFAULT",
  10: "BACKEND_SEND_FD",
  11: "HOST_NOTIFIER",
  12: "INFLIGHT_SHMFD",
  14: "INBAND_NOTIFICATIONS",
  15: "CONFIGURE_MEM_SLOTS",
  16: "STATUS",
  17: "XEN_MMAP",
  18: "SHARED_OBJECT",
  19: "DEVICE_STATE",
  20: "GET_VRING_BASE_INFLIGHT",
  21: "SHMEM",
};

/** Feature bits in two halves. */
export interface FeatureWords {
  /** Bits 0–31. */
  readonly low: number;
  /** Bits 32–63. */
  readonly high: number;
}

/** The device's own features that the guest is offered. */
export function passedFeatures(offered: FeatureWords, type: RelayedType): FeatureWords {
  return {
    low: (offered.low & DEVICE_LOW & ~type.withheldLow) >>> 0,
    high: (offered.high & DEVICE_HIGH & ~type.withheldHigh) >>> 0,
  };
}

/**
 * The features that are set at the back end.
 *
 * @param agreed What the guest has agreed to of the device's own.
 */
export function backEndFeatures(offered: FeatureWords, agreed: FeatureWords): FeatureWords {
  const own = RING_LOW | TransportFeature.PROTOCOL_FEATURES;
  return {
    low: (offered.low & ((agreed.low & DEVICE_LOW) | own)) >>> 0,
    high: (offered.high & ((agreed.high & DEVICE_HIGH) | TransportFeature.VERSION_1)) >>> 0,
  };
}

/** Names of the features that a back end offers and a relay does not pass, for a log line. */
export function withheldNames(
  offered: FeatureWords,
  protocol: number,
  type: RelayedType,
): readonly string[] {
  const passed = passedFeatures(offered, type);
  const low = offered.low & ~passed.low & ~SILENT_LOW;
  const high = offered.high & ~passed.high & ~SILENT_HIGH;
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    const word = bit < 32 ? low : high;
    if ((word & (1 << (bit % 32))) !== 0) names.push(NAMES[bit] ?? `feature ${bit}`);
  }
  for (let bit = 0; bit < 32; bit++) {
    if ((protocol & ~USED_PROTOCOL & (1 << bit)) !== 0) {
      names.push(PROTOCOL_NAMES[bit] ?? `protocol feature ${bit}`);
    }
  }
  return names;
}
