/**
 * Serves the sessions that the holder hands over, one after another, until the holder wants another worker.
 *
 * Nothing is tidied up when this process dies, by a bug of ours or by a signal: what is left behind is what the next worker
 * takes over. So an exception that is a bug ends the process at once, and passes no `finally`.
 */
import { packet, PacketKind } from "../holder/packet.ts";
import type { WorkerPage } from "../holder/worker_page.ts";
import { OsError, PollSet } from "../host/mod.ts";
import { failuresOf, GuardedPollSource, logFailure } from "../guarded_poll_source.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import type { PollSource } from "../poll_source.ts";
import type { ServiceTimes } from "../service_times.ts";
import { DeviceLoop } from "../serving/loop.ts";
import { BackEnd, type RingFeatures } from "../vhost_user/mod.ts";
import { HolderSource } from "./holder_source.ts";
import type { HandedSession, HolderChannel } from "./holder_channel.ts";

/** What a worker serves, and how. */
export interface HeldServerOptions {
  /** The device, which has taken over the journal. */
  readonly device: IommuDevice;
  /** The channel to the holder, after GO. */
  readonly channel: HolderChannel;
  /** What this worker shares with the holder. */
  readonly page: WorkerPage;
  /** Where log lines go. */
  readonly log: Log;
  /** How long to poll the rings after a request at most, in microseconds. */
  readonly pollMicroseconds: number;
  /** What is served besides the device. */
  readonly pollSources: readonly PollSource[];
  /** The ring features that front ends are offered. */
  readonly ringFeatures: RingFeatures;
}

/** The server of a worker. */
export class HeldServer {
  readonly #options: HeldServerOptions;
  readonly #loop: DeviceLoop;
  readonly #poll = new PollSet();
  readonly #pollSources: readonly GuardedPollSource[];
  #connected = false;
  #failures = 0;

  /** A server that serves nothing yet. */
  constructor(options: HeldServerOptions) {
    this.#options = options;
    const { device, log, pollMicroseconds } = options;
    this.#pollSources = options.pollSources.map((each) => new GuardedPollSource(each, log));
    for (const each of this.#pollSources) each.onDue = () => this.#poll.wake();
    const holder = new HolderSource(options, this);
    const all = [holder, ...this.#pollSources];
    this.#loop = new DeviceLoop(device, this.#poll, log, pollMicroseconds, all);
    this.#poll.onProblem = (line) => log.warnLimited("poll", line);
    device.onFault = () => this.#poll.wake();
  }

  /** How long requests of guests took. */
  get times(): ServiceTimes {
    return this.#loop.times;
  }

  /** Whether a front end is connected. */
  get connected(): boolean {
    return this.#connected;
  }

  /** Sessions that were ended because something failed, as `DeviceServer.failures` has them. */
  get failures(): Readonly<Record<string, number>> {
    return failuresOf(this.#failures, this.#pollSources);
  }

  /** Ends the loop: what is under way is left for the next worker. */
  stop(): void {
    this.#loop.stop();
  }

  /**
   * Takes over, and serves until the holder has released this worker. Then it does not touch the guest any more, and says
   * so.
   */
  async run(): Promise<void> {
    const { channel, device, log } = this.#options;
    let backEnd = this.#begin();
    channel.send(packet(PacketKind.SERVING));
    while (!channel.mustRelease) {
      if (backEnd === undefined) await this.#loop.servePollSources(channel);
      else await this.#serve(backEnd);
      channel.pump();
      if (channel.mustRelease) break;
      backEnd = channel.session === undefined ? undefined : this.#open(channel.session);
    }
    for (const each of this.#pollSources) each.close();
    channel.send(packet(PacketKind.RELEASED));
    log.debug(`Released with ${device.iommu.mappingCount} mappings`);
  }

  /** Goes on with the session that there was; where there was none, or nothing of it was done, the guest's has ended. */
  #begin(): BackEnd | undefined {
    const { channel, device, log } = this.#options;
    const { session } = channel;
    if (session === undefined || session.bytes.length === 0) {
      const line = device.disconnected();
      if (line !== undefined) log.info(line);
    }
    return session === undefined ? undefined : this.#open(session);
  }

  #open({ stream, bytes, descriptors }: HandedSession): BackEnd {
    const { channel, device, log, ringFeatures } = this.#options;
    channel.session = undefined;
    const earlier = bytes.length === 0 ? {} : { earlier: { bytes, descriptors } };
    const backEnd = new BackEnd(stream, device, { log, ringFeatures, ...earlier });
    // What the back end has not taken it does not need: files of memory that is mapped by now.
    const kept = new Set(backEnd.heldNumbers);
    for (const [number, descriptor] of descriptors) {
      if (!kept.has(number)) descriptor.close();
    }
    return backEnd;
  }

  /** Serves a front end until it disconnects. An error of the host ends its session and nothing else. */
  async #serve(backEnd: BackEnd): Promise<void> {
    this.#connected = true;
    try {
      await this.#loop.serve(backEnd, undefined, () => {});
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      this.#failures++;
      logFailure(this.#options.log, "The session is ended", error);
      backEnd.close();
    }
    if (this.#options.channel.mustRelease) return;
    backEnd.close();
    this.#connected = false;
  }
}
