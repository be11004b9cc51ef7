/**
 * The holder as a poll source of the loop: its packets are taken whatever else is served, it is told that requests are,
 * and it is given the snapshot that takes the place of a part of the journal.
 */
import { HeldFile, packet, PacketKind } from "../holder/packet.ts";
import type { WorkerPage } from "../holder/worker_page.ts";
import { createMemoryFile, mapMemoryFile, type PollSet } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { PollSource } from "../poll_source.ts";
import type { ServiceTimes } from "../service_times.ts";
import type { HolderChannel } from "./holder_channel.ts";

/** What it needs of a worker. */
export interface HolderSourceParts {
  /** The device, whose journal is written. */
  readonly device: IommuDevice;
  /** The channel to the holder. */
  readonly channel: HolderChannel;
  /** What this worker shares with the holder. */
  readonly page: WorkerPage;
}

/** The server whose loop it is in. */
export interface ServingServer {
  /** Whether a session is served. */
  readonly connected: boolean;
  /** How long requests took. */
  readonly times: ServiceTimes;
  /** Ends the loop. */
  stop(): void;
}

/** The holder as a poll source. */
export class HolderSource implements PollSource {
  readonly name: string = "the holder";
  onDue: () => void = () => {};
  readonly mustPoll = false;
  readonly #parts: HolderSourceParts;
  readonly #server: ServingServer;

  /** A source for the loop of a server. */
  constructor(parts: HolderSourceParts, server: ServingServer) {
    this.#parts = parts;
    this.#server = server;
  }

  addTo(poll: PollSet): void {
    poll.add(this.#parts.channel.descriptor);
  }

  look(_poll: PollSet): void {
    const { channel } = this.#parts;
    // Otherwise the channel is what the loop waits for, and what is in it is taken when the loop has ended.
    if (!this.#server.connected) return;
    channel.pump();
    if (channel.mustRelease) this.#server.stop();
  }

  /** Takes a snapshot where it is time. Returns whether it did. */
  serve(): boolean {
    const { device: { journal }, page } = this.#parts;
    if (page.progress === 0 && this.#server.times.total > 0) page.progress = 1;
    if (!journal.wantsSnapshot || !journal.canSnapshot) return false;
    this.#keepSnapshot();
    return true;
  }

  setNotifications(_on: boolean): boolean {
    return false;
  }

  endSession(): void {}

  close(): void {}

  #keepSnapshot(): void {
    const { device: { journal }, channel } = this.#parts;
    const snapshot = journal.takeSnapshot();
    using file = createMemoryFile("viommu-snapshot", snapshot.length);
    using memory = mapMemoryFile(file, 0, snapshot.length);
    new Uint8Array(memory.buffer).set(snapshot);
    // In the channel it outlives this process: only then the journal may forget.
    channel.send(packet(PacketKind.KEEP, { number: HeldFile.SNAPSHOT }), [file]);
    journal.snapshotKept(snapshot);
  }
}
