/**
 * The API socket: HTTP with JSON on a unix socket, served in the loop of the device a small step at a time.
 *
 * The guest comes first. Between two looks at the rings at most one connection gets on by one step, however many
 * there are and whatever they ask; and the last {@linkcode RESERVE} descriptors of the process are left to the device.
 */
import type { PollSource } from "../poll_source.ts";
import {
  hasDescriptors,
  POLLIN,
  POLLOUT,
  type PollSet,
  type UnixListener,
  type UnixStream,
} from "../host/mod.ts";
import type { Log } from "../log.ts";
import { ApiConnection } from "./connection.ts";
import type { ApiContext } from "./context.ts";
import { Work } from "./work.ts";

/** Connections at once; another takes the place of the one that has been silent for longest. */
export const CONNECTIONS_MAX = 32;
/** Descriptors that are left to the device: the 16 that no connection gets, and some for connections of front ends. */
const RESERVE = 20;
/** Connections accepted between two looks at the rings. */
const ACCEPTS = 4;

/** A running API socket. */
export class ApiServer implements PollSource {
  /** What log lines call it. */
  readonly name: string = "the API";
  /** Called when a connection may be accepted again, and no descriptor says so. */
  onDue: () => void = () => {};
  /** What was done so far. */
  readonly work: Work = new Work();
  readonly #listener: UnixListener;
  readonly #context: ApiContext;
  readonly #log: Log;
  #connections: ApiConnection[] = [];
  #slots: number[] = [];
  #listenerSlot = -1;
  /** Which connection has the next turn. */
  #turn = 0;

  /** Answers on a listener once it is in a loop. */
  constructor(listener: UnixListener, context: ApiContext, log: Log) {
    this.#listener = listener;
    this.#context = context;
    this.#log = log;
    listener.onProblem = (line) => log.warnLimited("api accept", `The API: ${line}`);
    listener.onRested = () => this.onDue();
  }

  /** Connections that are open. */
  get connections(): number {
    return this.#connections.length;
  }

  /** Never: everything that is waited for has a descriptor. */
  get mustPoll(): boolean {
    return false;
  }

  /** Adds the listener and the connections that wait for their clients. */
  addTo(poll: PollSet): void {
    this.#listenerSlot = poll.add(this.#listener.pollNumber);
    this.#slots = this.#connections.map((connection) => {
      const input = connection.awaitsInput ? POLLIN : 0;
      return poll.add(connection.descriptor, connection.awaitsOutput ? POLLOUT : input);
    });
  }

  /** Notes which connections can go on, and accepts new ones. */
  look(poll: PollSet): void {
    const connections = this.#connections;
    for (let i = 0; i < this.#slots.length; i++) {
      const events = poll.ready(this.#slots[i]);
      if (events === 0) continue;
      // One that is not waited for has hung up.
      if ((events & (POLLIN | POLLOUT)) === 0) connections[i].close();
      else connections[i].ready();
    }
    this.#slots = [];
    this.#removeGone();
    if (this.#listenerSlot >= 0 && poll.ready(this.#listenerSlot) !== 0) this.#acceptSome();
    this.#listenerSlot = -1;
  }

  /** Advances one connection by one step. Returns whether any could. */
  serve(): boolean {
    const connections = this.#connections;
    this.work.begin();
    for (let i = 0; i < connections.length; i++) {
      const connection = connections[(this.#turn + i) % connections.length];
      if (!connection.canStep) continue;
      this.#turn = (this.#turn + i + 1) % connections.length;
      this.#step(connection);
      return true;
    }
    return false;
  }

  /** There are no rings; returns whether a connection could go on. */
  setNotifications(on: boolean): boolean {
    return on && this.#connections.some((connection) => connection.canStep);
  }

  /** Ends all connections, whatever they are in the middle of. */
  endSession(): void {
    for (const connection of this.#connections) connection.close();
    this.#connections = [];
    this.#slots = [];
  }

  /** Ends all connections and removes the socket. */
  close(): void {
    this.endSession();
    this.#listener.close();
  }

  /** A failure of a connection is that connection's end and nothing else's. */
  #step(connection: ApiConnection): void {
    try {
      connection.step(this.work);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#log.warnLimited("api", `Cannot answer a client of the API: ${reason}`);
      connection.fail();
    }
    if (connection.isGone) this.#removeGone();
  }

  #removeGone(): void {
    if (!this.#connections.some((connection) => connection.isGone)) return;
    this.#connections = this.#connections.filter((connection) => !connection.isGone);
    this.#slots = [];
    this.#turn = 0;
  }

  #acceptSome(): void {
    for (let i = 0; i < ACCEPTS; i++) {
      // Whether one more waits is not known: the next look at the listener tells, and only then another has to go.
      if (i > 0 && !this.#isRoom()) return;
      // Before it is accepted, for the listener closes a connection that would need one of the last descriptors.
      while (!this.#isRoom() && this.#closeOldest());
      const stream = this.#listener.accept();
      if (stream === undefined) return;
      this.#take(stream);
    }
  }

  /** Takes a connection, or answers that there are too many. */
  #take(stream: UnixStream): void {
    const connection = new ApiConnection(stream, this.#context);
    if (this.#isRoom()) {
      this.#connections.push(connection);
      return;
    }
    this.#log.warnLimited("api", "Refused a client of the API: there are too many");
    connection.refuse(503, "There are too many clients: ask again later", true);
    this.#step(connection);
    connection.close();
  }

  #isRoom(): boolean {
    return this.#connections.length < CONNECTIONS_MAX && hasDescriptors(RESERVE);
  }

  /**
   * Closes the connection whose client has been silent for longest, of those that wait for their clients. Returns
   * whether there was one.
   */
  #closeOldest(): boolean {
    let oldest: ApiConnection | undefined;
    for (const connection of this.#connections) {
      if (connection.canStep) continue;
      if (oldest === undefined || connection.lastProgress < oldest.lastProgress) {
        oldest = connection;
      }
    }
    oldest?.close();
    this.#removeGone();
    return oldest !== undefined;
  }
}
