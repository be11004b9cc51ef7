/**
 * The connection of a front end, as the holder keeps it: what was read of it and is not done yet, the descriptors that
 * belong to its session, and the session itself as the worker has last told it.
 *
 * Bytes are read only when a worker orders them, and exactly as many: a receive of more could take descriptors for those
 * of an earlier message. They stay here until a commit says that they are done; a worker that takes over gets them again.
 * A commit changes everything at once: bytes and descriptors go, the session is replaced, the answer is sent.
 */
import {
  closeAll,
  CLOSED,
  type Descriptor,
  POLLIN,
  POLLOUT,
  type UnixStream,
  WOULD_BLOCK,
} from "../host/mod.ts";
import { PeerClaim } from "../host/peer_claim.ts";
import { NOTHING, type Packet, packet, PacketKind } from "./packet.ts";

/** Most bytes that are read at once. */
const PIECE_BYTES = 65536;
/** Descriptors in one packet, at most what the kernel passes at once. */
const DESCRIPTORS_AT_ONCE = 200;

/** Bytes that were read together, with the descriptors that came with them. */
interface Piece {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly ids: readonly number[];
}

/** An answer that has not been sent completely. */
interface Unsent {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly descriptors: Descriptor[];
  sent: number;
}

/** What takes packets: the active worker. */
export interface PacketTaker {
  /** Sends a packet with descriptors, which stay the caller's. */
  send(packet: Packet, descriptors?: readonly Descriptor[]): void;
}

/** A front end's connection. */
export class HeldConnection {
  /** The connection. */
  readonly stream: UnixStream;
  /** Whether another front end may take its place. */
  readonly claim: PeerClaim;
  /** Whether a message of the front end was ever done. */
  hasSpoken = false;
  /** Deaths of workers since the last commit, while bytes were not done. */
  deathsAtMessage = 0;
  #session: Uint8Array<ArrayBuffer> = NOTHING;
  /** The descriptors, those of the session and those of bytes that are not done. */
  readonly #descriptors = new Map<number, Descriptor>();
  #lastId = 0;
  /** What is not done. */
  #pieces: Piece[] = [];
  /** How many pieces of that the worker has. */
  #offered = 0;
  /** Bytes that the worker has ordered and not got. */
  #wanted = 0;
  readonly #unsent: Unsent[] = [];
  readonly #buffer = new Uint8Array(PIECE_BYTES);

  /** Takes over a connection that has just begun. */
  constructor(stream: UnixStream) {
    this.stream = stream;
    this.claim = new PeerClaim(stream);
  }

  /** What to poll the connection for; 0 for nothing. */
  get events(): number {
    if (this.#unsent.length > 0) return POLLOUT;
    return this.#wanted > 0 ? POLLIN : 0;
  }

  /** Whether bytes were read that are not done. */
  get hasUnconfirmed(): boolean {
    return this.#pieces.length > 0;
  }

  /** Gives the session to a worker, which orders what it needs from the beginning of the first message not done. */
  handOver(worker: PacketTaker): void {
    this.#offered = 0;
    this.#wanted = 0;
    const unconfirmed = new Set(this.#pieces.flatMap((each) => each.ids));
    const kept = [...this.#descriptors].filter(([id]) => !unconfirmed.has(id));
    for (let at = 0; at < kept.length; at += DESCRIPTORS_AT_ONCE) {
      const part = kept.slice(at, at + DESCRIPTORS_AT_ONCE);
      worker.send(
        packet(PacketKind.KEPT, { ids: part.map(([id]) => id) }),
        part.map(([_, descriptor]) => descriptor),
      );
    }
    worker.send(packet(PacketKind.SESSION, { first: this.#session }), [this.stream.descriptor]);
  }

  /** A worker orders bytes. */
  order(count: number, worker: PacketTaker): void {
    this.#wanted += count;
    this.serve(worker);
  }

  /** Sends what waits for room, then reads what is ordered and there. */
  serve(worker: PacketTaker): void {
    this.#flush();
    while (this.#wanted > 0 && this.#unsent.length === 0) {
      const isNew = this.#offered === this.#pieces.length;
      if (isNew && !this.#read(worker)) return;
      const piece = this.#pieces[this.#offered++];
      this.#wanted -= Math.min(this.#wanted, piece.bytes.length);
      const descriptors = piece.ids.map((id) => this.#descriptors.get(id)!);
      const lost = this.stream.descriptorsLost ? 1 : 0;
      worker.send(
        packet(PacketKind.DATA, { number: lost, ids: piece.ids, first: piece.bytes }),
        descriptors,
      );
    }
  }

  /**
   * A message is done, as a COMMIT says.
   *
   * @param descriptors Those that came with it, for the front end; they are taken.
   * @returns Whether it could be: not if it says what cannot be, a bug of the worker.
   */
  commit(
    { number, ids, first, second }: Packet,
    descriptors: Descriptor[],
  ): boolean {
    let left = number;
    while (left > 0 && this.#offered > 0) {
      left -= this.#pieces[0].bytes.length;
      if (left < 0) return false;
      this.#pieces.shift();
      this.#offered--;
    }
    if (left !== 0 || ids.some((id) => !this.#descriptors.has(id))) return false;
    this.#session = first;
    const needed = new Set([...ids, ...this.#pieces.flatMap((each) => each.ids)]);
    for (const [id, descriptor] of this.#descriptors) {
      if (needed.has(id)) continue;
      this.#descriptors.delete(id);
      descriptor.close();
    }
    this.hasSpoken = true;
    this.deathsAtMessage = 0;
    if (second.length > 0) {
      this.#unsent.push({ bytes: second, descriptors: descriptors.splice(0), sent: 0 });
      this.#flush();
    }
    return true;
  }

  /** Closes the connection and every descriptor; does nothing the second time. */
  close(): void {
    this.claim.close();
    this.stream.end();
    for (const descriptor of this.#descriptors.values()) descriptor.close();
    this.#descriptors.clear();
    for (const { descriptors } of this.#unsent) closeAll(descriptors);
    this.#unsent.length = 0;
    this.#pieces = [];
  }

  /** Reads a piece, of what is ordered at most. Returns whether there was one. */
  #read(worker: PacketTaker): boolean {
    const { stream } = this;
    const most = Math.min(this.#wanted, PIECE_BYTES);
    const count = stream.receive(this.#buffer, 0, most);
    if (count === WOULD_BLOCK) return false;
    if (count === CLOSED) {
      this.#wanted = 0;
      worker.send(packet(PacketKind.ENDED));
      return false;
    }
    const ids = stream.received.splice(0).map((descriptor) => {
      this.#descriptors.set(++this.#lastId, descriptor);
      return this.#lastId;
    });
    this.#pieces.push({ bytes: this.#buffer.slice(0, count), ids });
    return true;
  }

  /** Sends answers as far as there is room. Where the front end is gone, the next read finds out. */
  #flush(): void {
    while (this.#unsent.length > 0) {
      const next = this.#unsent[0];
      const numbers = next.sent === 0 ? next.descriptors.map((each) => each.number) : [];
      const count = this.stream.send(next.bytes, next.sent, next.bytes.length - next.sent, numbers);
      if (count === WOULD_BLOCK) return;
      next.sent = count === CLOSED ? next.bytes.length : next.sent + count;
      if (next.sent < next.bytes.length) continue;
      closeAll(next.descriptors);
      this.#unsent.shift();
    }
  }
}
