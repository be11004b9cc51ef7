/**
 * The messages about the session as a whole, one method each in the order of their numbers: features, guest
 * memory, config space, status, reset.
 *
 * A method returns nothing when the message is done, or one line that says why it was *refused*. Form (sizes,
 * numbers of descriptors, agreed protocol features) has been checked against `message_table.ts` before.
 */
import { type Descriptor, isOtherEnd, isUnixStream, UnixStream } from "../host/mod.ts";
import { configReply, writeConfig } from "./config_access.ts";
import { Connection } from "./connection.ts";
import { readRegion } from "./memory_table.ts";
import type { MigrationMessages } from "./migration_messages.ts";
import {
  MAX_MEMORY_SLOTS,
  MAX_TABLE_REGIONS,
  ProtocolFeature,
  REGION_BYTES,
  TransportFeature,
} from "./protocol.ts";
import type { RingFeatures } from "./ring_features.ts";
import type { Refusal, Session } from "./session.ts";

const { LOG_ALL, PROTOCOL_FEATURES, VERSION_1, ACCESS_PLATFORM } = TransportFeature;

/** What in-band notifications need, by the protocol: a channel for calls, and replies that say when a kick was served. */
const INBAND_NEEDS = ProtocolFeature.BACKEND_REQ | ProtocolFeature.REPLY_ACK;

const OFFERED_PROTOCOL = ProtocolFeature.MQ | ProtocolFeature.LOG_SHMFD |
  ProtocolFeature.REPLY_ACK | ProtocolFeature.BACKEND_REQ | ProtocolFeature.CONFIG |
  ProtocolFeature.INFLIGHT_SHMFD | ProtocolFeature.RESET_DEVICE |
  ProtocolFeature.INBAND_NOTIFICATIONS | ProtocolFeature.CONFIGURE_MEM_SLOTS |
  ProtocolFeature.STATUS;

/** Transport features that the driver does not see. */
const SESSION_FEATURES = PROTOCOL_FEATURES | LOG_ALL;
/** The reply to a GET_CONFIG that fails. */
const NO_BYTES = new Uint8Array(0);

/** What was agreed as a process that takes over is told of it. */
export interface AgreementState {
  /** Virtio features 0–31. */
  readonly featuresLow: number;
  /** Virtio features 32–63. */
  readonly featuresHigh: number;
  /** Protocol features. */
  readonly protocolFeatures: number;
  /** The device status of SET_STATUS. */
  readonly status: number;
  /** The channel of SET_BACKEND_REQ_FD, as `Descriptor.heldAs` numbers it; 0 for none. */
  readonly requests: number;
}

/** The messages about the session as a whole. */
export class Messages {
  /** Messages to the front end, on a socket of their own. */
  requests: Connection | undefined;
  /** Whether the message refused last leaves no way to go on, whether or not it asked for a reply. */
  mustEnd = false;

  readonly #session: Session;
  readonly #migration: MigrationMessages;
  readonly #offeredLow: number;
  readonly #offeredHigh: number;
  readonly #offeredProtocol: number;
  #status = 0;

  /** For a session that offers these features of rings. */
  constructor(session: Session, migration: MigrationMessages, rings: RingFeatures) {
    this.#session = session;
    this.#migration = migration;
    const { device, translates } = session;
    this.#offeredLow = device.featuresLow | rings.low | SESSION_FEATURES;
    this.#offeredHigh = device.featuresHigh | rings.high | VERSION_1 |
      (translates ? ACCESS_PLATFORM : 0);
    const migrates = device.saveState !== undefined && device.loadState !== undefined;
    this.#offeredProtocol = OFFERED_PROTOCOL | (migrates ? ProtocolFeature.DEVICE_STATE : 0);
  }

  /** Ends the channel of messages to the front end. */
  closeRequests(): void {
    this.requests?.close();
    this.requests = undefined;
  }

  /** What was agreed, for {@linkcode Messages.restore}. */
  save(): AgreementState {
    const { featuresLow, featuresHigh, protocolFeatures } = this.#session;
    const requests = this.requests?.stream.descriptor.heldAs ?? 0;
    return { featuresLow, featuresHigh, protocolFeatures, status: this.#status, requests };
  }

  /**
   * What was agreed with an earlier process.
   *
   * @returns nothing, or why it cannot be agreed with this one.
   */
  restore(
    { featuresLow, featuresHigh, protocolFeatures, status, requests }: AgreementState,
    descriptors: ReadonlyMap<number, Descriptor>,
  ): string | undefined {
    const foreignLow = featuresLow & ~this.#offeredLow;
    const foreignHigh = featuresHigh & ~this.#offeredHigh;
    if (
      foreignLow !== 0 || foreignHigh !== 0 || (protocolFeatures & ~this.#offeredProtocol) !== 0
    ) {
      return "features that were agreed are not on offer any more";
    }
    const session = this.#session;
    session.featuresLow = featuresLow;
    session.featuresHigh = featuresHigh;
    session.protocolFeatures = protocolFeatures;
    session.rings.setFeatures(featuresLow, featuresHigh);
    session.device.featuresAgreed((featuresLow & ~SESSION_FEATURES) >>> 0, featuresHigh);
    this.#status = status;
    const channel = descriptors.get(requests);
    if (channel !== undefined) this.requests = new Connection(new UnixStream(channel));
    return undefined;
  }

  /** GET_FEATURES. */
  getFeatures(): Refusal {
    return this.#session.reply64(this.#offeredLow, this.#offeredHigh);
  }

  /** SET_FEATURES. While a queue runs, only the dirty log may be switched. */
  setFeatures(): Refusal {
    const { data } = this.#session.connection;
    const low = data.getUint32(0, true);
    const high = data.getUint32(4, true);
    const foreignLow = low & ~this.#offeredLow;
    const foreignHigh = high & ~this.#offeredHigh;
    if (foreignLow !== 0 || foreignHigh !== 0) {
      return `features ${hex64(foreignLow, foreignHigh)} were not on offer`;
    }
    const changed = ((low ^ this.#session.featuresLow) & ~LOG_ALL) !== 0 ||
      high !== this.#session.featuresHigh;
    if (changed && this.#session.rings.anyRuns) return "a queue runs with other features";
    this.#session.featuresLow = low;
    this.#session.featuresHigh = high;
    this.#migration.applyLogFeature();
    if (this.#session.rings.anyRuns) return undefined;
    this.#session.rings.setFeatures(low, high);
    this.#session.device.featuresAgreed((low & ~SESSION_FEATURES) >>> 0, high);
    return this.#session.rings.startAll();
  }

  /** SET_OWNER: there is one owner, the front end that is connected. */
  setOwner(): Refusal {
    return undefined;
  }

  /** RESET_OWNER: deprecated; disables all rings. */
  resetOwner(): Refusal {
    for (const ring of this.#session.rings.rings) {
      ring.enabled = false;
      this.#session.rings.halt(ring);
    }
    return undefined;
  }

  /** SET_MEM_TABLE: count u32, padding u32, regions. */
  setMemTable(): Refusal {
    const { data, size, descriptors } = this.#session.connection;
    const count = data.getUint32(0, true);
    if (count < 1 || count > MAX_TABLE_REGIONS) {
      return `it has ${count} regions, not 1 to ${MAX_TABLE_REGIONS}`;
    }
    if (size !== 8 + count * REGION_BYTES) return `its size is ${size} with ${count} regions`;
    if (descriptors.length !== count) {
      return `it has ${count} regions and ${descriptors.length} descriptors`;
    }
    const regions = [];
    for (let i = 0; i < count; i++) regions.push(readRegion(data, 8 + i * REGION_BYTES));
    return this.#session.table.replace(regions, descriptors) ??
      this.#session.rings.memoryChanged();
  }

  /** GET_PROTOCOL_FEATURES. */
  getProtocolFeatures(): Refusal {
    return this.#session.reply64(this.#offeredProtocol, 0);
  }

  /** SET_PROTOCOL_FEATURES. */
  setProtocolFeatures(): Refusal {
    const { data } = this.#session.connection;
    const low = data.getUint32(0, true);
    const high = data.getUint32(4, true);
    const foreign = low & ~this.#offeredProtocol;
    if (foreign !== 0 || high !== 0) {
      return `protocol features ${hex64(foreign, high)} were not on offer`;
    }
    if (
      (low & ProtocolFeature.INBAND_NOTIFICATIONS) !== 0 && (low & INBAND_NEEDS) !== INBAND_NEEDS
    ) {
      // "The back-end should close the connection" (vhost-user.rst, "In-band notifications").
      this.mustEnd = true;
      return "INBAND_NOTIFICATIONS needs BACKEND_REQ and REPLY_ACK as well";
    }
    this.#session.protocolFeatures = low;
    return undefined;
  }

  /** GET_QUEUE_NUM. */
  getQueueNum(): Refusal {
    return this.#session.reply64(this.#session.device.queueCount, 0);
  }

  /** SET_BACKEND_REQ_FD. */
  setBackendReqFd(): Refusal {
    const { descriptors } = this.#session.connection;
    if (descriptors.length !== 1) return "its descriptor is missing";
    if (!isUnixStream(descriptors[0])) return "its descriptor is not a unix stream socket";
    if (isOtherEnd(descriptors[0], this.#session.connection.stream)) {
      return "its descriptor is an end of this connection";
    }
    const [descriptor] = descriptors.splice(0);
    this.closeRequests();
    this.requests = new Connection(new UnixStream(descriptor));
    return undefined;
  }

  /** IOTLB_MSG: the front end's view of I/O addresses. A device behind our IOMMU goes by our own tables. */
  iotlbMsg(): Refusal {
    return undefined;
  }

  /** GET_CONFIG: offset u32, size u32, flags u32. */
  getConfig(): Refusal {
    const { data, size } = this.#session.connection;
    this.#session.rings.noteConfigRead();
    const reply = configReply(this.#session.device, data, size);
    if (typeof reply !== "string") return this.#session.reply(reply);
    // Failure has a reply of its own: one without payload.
    this.#session.log.warnLimited("refused", `GET_CONFIG failed: ${reply}`);
    return this.#session.reply(NO_BYTES);
  }

  /** SET_CONFIG: offset u32, size u32, flags u32, bytes. */
  setConfig(): Refusal {
    const { payload, size } = this.#session.connection;
    return writeConfig(this.#session.device, payload, size);
  }

  /** RESET_DEVICE. Memory and features stay agreed. */
  resetDevice(): Refusal {
    this.#status = 0;
    this.#migration.transfer?.deviceReset();
    this.#session.rings.resetDevice();
    return undefined;
  }

  /** GET_MAX_MEM_SLOTS. */
  getMaxMemSlots(): Refusal {
    return this.#session.reply64(MAX_MEMORY_SLOTS, 0);
  }

  /** ADD_MEM_REG: padding u64, region, and its file. */
  addMemReg(): Refusal {
    const { data, descriptors } = this.#session.connection;
    if (descriptors.length !== 1) return "its descriptor is missing";
    return this.#session.table.add(readRegion(data, 8), descriptors[0]) ??
      this.#session.rings.memoryChanged();
  }

  /** REM_MEM_REG: padding u64, region; a descriptor that comes along is closed. */
  remMemReg(): Refusal {
    return this.#session.table.remove(readRegion(this.#session.connection.data, 8)) ??
      this.#session.rings.memoryChanged();
  }

  /** SET_STATUS. A status of 0 is no reset: QEMU sends it when the machine stops, too. */
  setStatus(): Refusal {
    this.#status = this.#session.connection.data.getUint32(0, true);
    return undefined;
  }

  /** GET_STATUS. */
  getStatus(): Refusal {
    return this.#session.reply64(this.#status, 0);
  }
}

function hex64(low: number, high: number): string {
  return `0x${((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16)}`;
}
