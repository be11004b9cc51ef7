/**
 * The sessions of front ends, one after another, by the rules of `serve`: a second front end is refused, unless the first
 * has lost its claim; then it is replaced.
 */
import { POLLIN, type PollSet, type UnixListener, type UnixStream } from "../host/mod.ts";
import type { Log } from "../log.ts";
import { FrontDoor } from "./front_door.ts";
import { HeldConnection, type PacketTaker } from "./held_connection.ts";

/** The sessions. */
export class HeldSessions {
  /** The connection of the front end that is there. */
  connection: HeldConnection | undefined;
  readonly #door: FrontDoor;
  readonly #log: Log;
  /** The worker that serves, once it can. */
  readonly #active: () => PacketTaker | undefined;
  #began = 0;
  /** A front end that replaces the one that is connected, once its session has ended. */
  #next: UnixStream | undefined;
  #doorSlot = -1;
  #slot = -1;

  /**
   * Sessions of front ends that come over a socket, which is owned from now on.
   *
   * @param active The worker that serves, if there is one that can.
   * @param onDue Called when there is something to do and no descriptor says so.
   */
  constructor(
    socket: UnixListener | UnixStream | string,
    log: Log,
    active: () => PacketTaker | undefined,
    onDue: () => void,
  ) {
    this.#door = new FrontDoor(socket, log);
    this.#door.onRested = onDue;
    this.#log = log;
    this.#active = active;
  }

  /** Whether there is no further session: an inherited connection has ended. */
  get isOver(): boolean {
    return this.connection === undefined && this.#door.isOver;
  }

  /** Milliseconds to wait at most; `Infinity` for any time. */
  get patience(): number {
    const { patience } = this.#door;
    return this.connection === undefined && patience >= 0 ? patience : Infinity;
  }

  /** Adds what is waited for to a set. */
  addTo(poll: PollSet): void {
    const { connection } = this;
    this.#doorSlot = poll.add(this.#door.pollNumber);
    const events = connection?.events ?? 0;
    this.#slot = poll.add(events === 0 ? -1 : connection!.stream.descriptor.number, events);
  }

  /** Reads what is ordered, sends what waits, and lets front ends in. */
  look(poll: PollSet): void {
    const active = this.#active();
    if (poll.ready(this.#slot) !== 0 && active !== undefined) this.connection?.serve(active);
    const isPolled = (poll.ready(this.#doorSlot) & POLLIN) !== 0;
    if (isPolled || this.patience === 0) this.#admit();
  }

  /** The session that there is has ended. */
  end(): void {
    if (this.connection === undefined) return;
    this.connection.close();
    this.connection = undefined;
    this.#door.sessionEnded(this.#began);
    this.#log.infoLimited("gone", "The front end is gone");
    const next = this.#next;
    this.#next = undefined;
    if (next !== undefined) this.#begin(next);
  }

  /** Ends all sessions, and closes the socket. */
  close(): void {
    this.connection?.close();
    this.connection = undefined;
    this.#next?.end();
    this.#door.close();
  }

  /** A front end has come. */
  #admit(): void {
    const stream = this.#door.next();
    if (stream === undefined) return;
    const present = this.connection;
    if (present === undefined) return this.#begin(stream);
    const lost = present.claim.lost(present.hasSpoken);
    if (lost === undefined) {
      stream.end();
      this.#log.warnLimited("second", "Refused a second front end: one is connected already");
      return;
    }
    this.#log.warnLimited("lost", `The front end is replaced by another one: ${lost}`);
    // The worker is told that it is gone, and ends the session.
    this.#next?.end();
    this.#next = stream;
    present.stream.shutdown();
  }

  #begin(stream: UnixStream): void {
    this.connection = new HeldConnection(stream);
    this.#began = performance.now();
    this.#log.infoLimited("connected", "A front end connected");
    const active = this.#active();
    if (active !== undefined) this.connection.handOver(active);
  }
}
