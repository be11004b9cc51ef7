/**
 * What the messages of one session have in common: the connection, the device behind it, guest memory, the
 * rings, and what has been agreed.
 */
import type { Log } from "../log.ts";
import type { AddressSpace, GuestMemory } from "../../vring/mod.ts";
import type { Refusal, VirtioDevice } from "../virtio_device.ts";
import type { Connection } from "./connection.ts";
import { MemoryTable } from "./memory_table.ts";
import { FLAG_REPLY } from "./protocol.ts";
import { RingSet } from "./ring_set.ts";

export type { Refusal };

/** The state of a session. */
export class Session {
  /** The messages; the one being served can be read from it. */
  readonly connection: Connection;
  /** The device. */
  readonly device: VirtioDevice;
  /** Where log lines go. */
  readonly log: Log;
  /** Guest memory as the front end handed it over. */
  readonly table: MemoryTable;
  /** The rings. */
  readonly rings: RingSet;
  /** Whether the device is behind an IOMMU, so that addresses may mean something else than guest memory. */
  readonly translates: boolean;
  /** Virtio features 0–31 that are agreed. */
  featuresLow = 0;
  /** Virtio features 32–63 that are agreed. */
  featuresHigh = 0;
  /** Protocol features that are agreed. */
  protocolFeatures = 0;

  /**
   * Begins a session.
   *
   * @param addressSpace What queue and buffer addresses mean; by default guest-physical ones.
   */
  constructor(
    connection: Connection,
    device: VirtioDevice,
    log: Log,
    addressSpace?: (memory: GuestMemory) => AddressSpace,
  ) {
    this.connection = connection;
    this.device = device;
    this.log = log;
    this.table = new MemoryTable(device);
    this.translates = addressSpace !== undefined;
    const space = addressSpace?.(this.memory) ?? this.memory;
    this.rings = new RingSet(device, this.table, space, log);
  }

  /** Guest memory. */
  get memory(): GuestMemory {
    return this.table.memory;
  }

  /** Whether any of some protocol features is agreed. */
  agreed(features: number): boolean {
    return (this.protocolFeatures & features) !== 0;
  }

  /** Most bytes that a state of the device has. */
  get stateSizeMax(): number {
    return this.device.stateSizeMax ?? 0;
  }

  /**
   * Loads a saved device.
   *
   * @param done Called at the end, with one line that says why if it has failed.
   */
  loadState(bytes: Uint8Array, done: (refusal: Refusal) => void): void {
    const { device } = this;
    const end = (error: Refusal) => {
      if (error === undefined) this.rings.stateLoaded();
      done(error);
    };
    // Rings may have been started since the transfer began.
    if (this.rings.anyRuns) done("a queue runs");
    else if (device.beginLoad !== undefined) device.beginLoad(bytes, end);
    else end(device.loadState?.(bytes));
  }

  /** Saves the whole device. */
  saveState(done: (bytes: Uint8Array) => void): void {
    const { device } = this;
    if (device.beginSave !== undefined) device.beginSave(done);
    else done(device.saveState?.() ?? new Uint8Array(0));
  }

  /** Replies to the message being served with a u64 in two halves. */
  reply64(low: number, high: number): undefined {
    const payload = new Uint8Array(8);
    const data = new DataView(payload.buffer);
    data.setUint32(0, low >>> 0, true);
    data.setUint32(4, high >>> 0, true);
    return this.reply(payload);
  }

  /** Replies to the message being served. If the peer is gone, the next read finds out. */
  reply(payload: Uint8Array): undefined {
    this.connection.send(this.connection.request, FLAG_REPLY, payload);
    return undefined;
  }
}
