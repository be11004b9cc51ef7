/**
 * The holder: keeps what must outlive a worker, and sees to it that there is one. It decides alone which worker is active;
 * it does not look into what it keeps.
 *
 * At most three workers are there: the *active* one serves; the *spare* is ready to take its place at once; a *candidate*
 * is a worker of the version on disk that is to replace the active one between two requests (SIGHUP).
 */
import {
  type Descriptor,
  PollSet,
  type ProcessEnd,
  type UnixListener,
  type UnixStream,
} from "../host/mod.ts";
import type { Log } from "../log.ts";
import { DeathCount } from "./death_count.ts";
import { HeldSessions } from "./held_sessions.ts";
import { HeldFile, type Packet, packet, PacketKind } from "./packet.ts";
import { ProcessRecord } from "./process_record.ts";
import { StartedWorker, type WorkerCommand } from "./started_worker.ts";
import { endText, offerText, settingsBytes } from "./worker_texts.ts";

/** Milliseconds between two looks whether a process has ended that does not serve any more. */
const REAP_MS = 20;
/** Milliseconds that the active worker has to stop. */
const STOP_MS = 5000;
/** Milliseconds before a spare is started again that did not come up. */
const SPARE_REST_MS = 1000;

/** What a holder keeps and starts. */
export interface HolderOptions {
  /** Where front ends come from; owned from now on. */
  readonly socket: UnixListener | UnixStream | string;
  /** How a worker is started. */
  readonly command: WorkerCommand;
  /** Further descriptors that each worker gets, by {@linkcode HeldFile}; the caller's. */
  readonly files: ReadonlyMap<number, Descriptor>;
  /** Where log lines go. */
  readonly log: Log;
}

/** The process that holds a session while workers come and go. */
export class Holder {
  readonly #options: HolderOptions;
  readonly #log: Log;
  readonly #sessions: HeldSessions;
  readonly #poll = new PollSet();
  readonly #record: ProcessRecord;
  readonly #recordFile: Descriptor;
  readonly #deaths = new DeathCount();
  /** The newest file of each kind that workers have asked to be kept. */
  readonly #kept = new Map<number, Descriptor>();
  #active: StartedWorker | undefined;
  #spare: StartedWorker | undefined;
  #candidate: StartedWorker | undefined;
  /** The worker that has just ceased to serve, while the next one begins. */
  readonly #former: StartedWorker[] = [];
  #generation = 0;
  /** What the first worker offered: front ends know it. */
  #offer: string | undefined;
  /** Since when no worker serves; `undefined` while one does, and before the first. */
  #pausedSince: number | undefined;
  #spareFrom = 0;
  /** When the active worker began to serve. */
  #activeSince = 0;
  #stopAt = Infinity;
  #exitCode: number | undefined;

  /** A holder that has started nothing yet. */
  constructor(options: HolderOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#sessions = new HeldSessions(
      options.socket,
      options.log,
      () => this.#active?.offer === undefined ? undefined : this.#active,
      () => this.#poll.wake(),
    );
    this.#poll.onProblem = (line) => this.#log.warnLimited("poll", line);
    const { record, file } = ProcessRecord.create();
    this.#record = record;
    this.#recordFile = file;
  }

  /**
   * Serves until stopped, until an inherited connection has ended, or until workers die again and again.
   *
   * @returns The exit code of the process.
   */
  async run(): Promise<number> {
    this.#active = this.#start(false);
    while (this.#exitCode === undefined) {
      await this.#turn();
      this.#endWhenStopped();
    }
    this.#sessions.close();
    for (const file of this.#kept.values()) file.close();
    for (const worker of this.#workers()) worker.end();
    await this.#reapAll();
    this.#recordFile.close();
    this.#poll.close();
    return this.#exitCode;
  }

  /** Ends {@linkcode Holder.run}: the active worker stops between two requests. */
  stop(): void {
    if (this.#stopAt !== Infinity) return;
    this.#stopAt = performance.now() + STOP_MS;
    this.#active?.send(packet(PacketKind.RELEASE));
    this.#poll.wake();
  }

  /** Replaces the active worker by one of the version on disk, between two requests. */
  upgrade(): void {
    if (this.#stopAt !== Infinity || this.#candidate !== undefined) return;
    this.#log.info("Starting a worker of the version on disk");
    this.#candidate = this.#start(false);
    this.#poll.wake();
  }

  /** Waits for something to happen, and handles all that has. */
  async #turn(): Promise<void> {
    const poll = this.#poll;
    poll.clear();
    this.#sessions.addTo(poll);
    for (const worker of this.#workers()) poll.add(worker.descriptor, worker.events);
    await poll.wait(this.#patience());
    for (const worker of this.#workers()) {
      worker.flush();
      this.#receiveAll(worker);
    }
    for (const worker of this.#workers()) if (worker.isDead) this.#handleDeath(worker);
    this.#sessions.look(poll);
    if (this.#sessions.isOver) this.stop();
    this.#startSpare();
    this.#record.hasSpare = this.#spare?.offer !== undefined;
    this.#reap();
  }

  /** Milliseconds to wait at most, -1 for any time. */
  #patience(): number {
    const now = performance.now();
    const limits = [
      this.#former.length > 0 ? REAP_MS : Infinity,
      this.#stopAt - now,
      this.#sessions.patience,
    ];
    if (this.#spare === undefined && this.#active?.offer !== undefined) {
      limits.push(this.#spareFrom - now);
    }
    const least = Math.min(...limits);
    return least === Infinity ? -1 : Math.max(0, Math.ceil(least));
  }

  #workers(): StartedWorker[] {
    return [this.#active, this.#spare, this.#candidate].filter((each) => each !== undefined);
  }

  /** Starts a worker. One that a guest waits for is told to be quick. */
  #start(isAwaited: boolean): StartedWorker {
    const { command, files } = this.#options;
    const all = new Map([...files, ...this.#kept, [HeldFile.RECORD, this.#recordFile]]);
    const worker = new StartedWorker(
      command,
      ++this.#generation,
      all,
      settingsBytes({ isAwaited }),
    );
    worker.onDeath = () => this.#poll.wake();
    return worker;
  }

  #startSpare(): void {
    if (this.#stopAt !== Infinity || this.#exitCode !== undefined) return;
    if (this.#spare !== undefined || this.#active?.offer === undefined) return;
    if (this.#pausedSince !== undefined || performance.now() < this.#spareFrom) return;
    this.#spare = this.#start(false);
  }

  /** Handles every packet of a worker that is there; of a dead one, every packet that there will be. */
  #receiveAll(worker: StartedWorker): void {
    for (let next = worker.receive(); next !== undefined; next = worker.receive()) {
      this.#receive(worker, next);
    }
  }

  #receive(worker: StartedWorker, message: Packet): void {
    if (message.kind === PacketKind.READY) return this.#ready(worker, message);
    // What comes of a worker that is not active any more, or not yet, has no effect.
    if (worker !== this.#active || worker.isReleased) return;
    const { connection } = this.#sessions;
    switch (message.kind) {
      case PacketKind.READ:
        connection?.order(message.number, worker);
        break;
      case PacketKind.COMMIT:
        this.#deaths.progress();
        if (connection?.commit(message, worker.received) === false) worker.process.kill();
        else connection?.serve(worker);
        break;
      case PacketKind.END:
        this.#deaths.progress();
        this.#sessions.end();
        break;
      case PacketKind.KEEP: {
        const [file] = worker.received.splice(0);
        this.#kept.get(message.number)?.close();
        if (file !== undefined) this.#kept.set(message.number, file);
        break;
      }
      case PacketKind.RELEASED:
        worker.isReleased = true;
        this.#released(worker);
        break;
      case PacketKind.SERVING:
        this.#serving(worker);
        break;
    }
  }

  /** A worker can take over. */
  #ready(worker: StartedWorker, message: Packet): void {
    worker.watch();
    worker.offer = offerText(message.first);
    this.#offer ??= worker.offer;
    if (worker.offer !== this.#offer) {
      this.#log.error(
        "A worker does not offer what the guest was offered, so it cannot serve: the version on disk is another one",
      );
      worker.process.kill();
    } else if (worker === this.#active) {
      this.#go(worker);
    } else if (worker === this.#candidate) {
      this.#active?.send(packet(PacketKind.RELEASE));
    }
  }

  /** Makes a worker the one that serves. */
  #go(worker: StartedWorker): void {
    this.#active = worker;
    this.#sessions.connection?.handOver(worker);
    worker.send(packet(PacketKind.GO));
  }

  #serving(worker: StartedWorker): void {
    worker.isServing = true;
    this.#activeSince = performance.now();
    if (this.#pausedSince === undefined) return;
    const pause = performance.now() - this.#pausedSince;
    this.#pausedSince = undefined;
    this.#record.paused(pause);
    this.#log.info(`Worker ${this.#active!.generation} serves after ${pause.toFixed(1)} ms`);
  }

  /** The active worker has stopped. */
  #released(worker: StartedWorker): void {
    const next = this.#candidate;
    if (this.#stopAt !== Infinity) {
      this.#exitCode = 0;
      return;
    }
    if (next?.offer === undefined) return;
    this.#former.push(worker);
    this.#candidate = undefined;
    // The spare is of the version before.
    this.#spare?.end();
    if (this.#spare !== undefined) this.#former.push(this.#spare);
    this.#spare = undefined;
    this.#pausedSince = performance.now();
    this.#go(next);
  }

  #handleDeath(worker: StartedWorker): void {
    // It may have sent something between the last look and its death.
    this.#receiveAll(worker);
    worker.end();
    this.#former.push(worker);
    if (worker === this.#candidate) {
      this.#candidate = undefined;
      this.#log.error("The version on disk does not come up: the present worker goes on");
      return;
    }
    if (worker === this.#spare) {
      this.#spare = undefined;
      this.#spareFrom = performance.now() + SPARE_REST_MS;
      this.#log.warnLimited("spare", "The spare worker has died");
      return;
    }
    // It was replaced while its last packets were handled.
    if (worker !== this.#active) return;
    if (this.#stopAt !== Infinity) {
      this.#exitCode = 0;
      return;
    }
    this.#replace(worker);
  }

  /** Puts another worker in the place of the active one, which has died. */
  #replace(worker: StartedWorker): void {
    if (this.#offer === undefined) {
      // The very first one: what is wrong, it has said itself.
      this.#exitCode = -1;
      return;
    }
    this.#pausedSince ??= performance.now();
    this.#record.died();
    const active = worker.isServing ? performance.now() - this.#activeSince : 0;
    this.#deaths.died(worker.page.progress > 0, active);
    if (this.#deaths.isTooMany) {
      this.#log.error(
        `Worker ${worker.generation} has died, the ${this.#deaths.inARow}th in a row that served nothing: giving up. ` +
          "The endpoints that the guest has attached are blocked",
      );
      this.#exitCode = 1;
      return;
    }
    this.#log.error(`Worker ${worker.generation} has died`);
    const { connection } = this.#sessions;
    if (connection?.hasUnconfirmed && ++connection.deathsAtMessage > 2) {
      this.#log.error("Three workers have died at the same message: its connection is closed");
      this.#sessions.end();
    }
    const spare = this.#spare;
    this.#spare = undefined;
    this.#active = spare ?? this.#start(true);
    if (spare?.offer !== undefined) this.#go(spare);
  }

  /** Forgets the processes that have ended. */
  #reap(): void {
    for (const worker of [...this.#former]) {
      this.#receiveAll(worker);
      const { end } = worker.process;
      if (end === undefined) continue;
      this.#former.splice(this.#former.indexOf(worker), 1);
      this.#tellEnd(worker, end);
      worker.end();
    }
  }

  #tellEnd(worker: StartedWorker, end: ProcessEnd): void {
    if (worker.isReleased || worker.offer === undefined) return;
    this.#record.ended(end);
    this.#log.debug(`Worker ${worker.generation} has ended: ${endText(end)}`);
  }

  /** Ends in time where the active worker does not stop by itself. */
  #endWhenStopped(): void {
    if (performance.now() >= this.#stopAt) this.#exitCode ??= 0;
  }

  /** Waits for the ends of all processes; the exit code of the first one, where that has not come up. */
  async #reapAll(): Promise<void> {
    const all = [...this.#workers(), ...this.#former];
    while (all.some(({ process }) => process.end === undefined)) {
      await new Promise<void>((resolve) => setTimeout(resolve, 1));
    }
    if (this.#exitCode === -1) this.#exitCode = all[0].process.end?.code ?? 1;
    this.#log.debug("Stopped");
  }
}
