/**
 * Messages on a socket, for both ends: header, payload and descriptors are put together from whatever pieces
 * the socket gives, and what cannot be sent yet waits.
 *
 * Header and payload are read separately and never beyond: the kernel may hand over the bytes of a message
 * without descriptors together with those of the next one that has some, and then nothing says to which
 * message they belong.
 */
import { closeAll, CLOSED, type Descriptor, WOULD_BLOCK } from "../host/mod.ts";
import {
  FLAG_VERSION,
  FLAG_VERSION_MASK,
  HEADER_BYTES,
  MAX_DESCRIPTORS,
  MAX_PAYLOAD,
  requestName,
} from "./protocol.ts";

/** What messages travel on: a `UnixStream`, or what another process that holds the socket makes of it. */
export interface MessageStream {
  /** The socket. */
  readonly descriptor: Descriptor;
  /** Descriptors that have arrived and were not taken yet, in order. */
  readonly received: Descriptor[];
  /** Whether descriptors were ever lost, as more came than this process may open or can close. */
  readonly descriptorsLost: boolean;
  /** What to poll to receive, where that is not the socket. */
  readonly pollNumber?: number;
  /** Whether something can be received though no descriptor says so. */
  readonly isDue?: boolean;

  /** Receives as `UnixStream.receive` does. */
  receive(target: Uint8Array<ArrayBuffer>, start: number, length: number): number;
  /** Sends as `UnixStream.send` does. */
  send(
    source: Uint8Array<ArrayBuffer>,
    start: number,
    length: number,
    descriptors?: readonly number[],
  ): number;
  /** Ends the connection. */
  end(): void;

  /**
   * The message last read is done. What was sent for it is sent now, if not before, and a process that takes over begins
   * with the next message.
   *
   * @param session The session from now on; a process that takes over gets it.
   * @param held The descriptors that belong to it, as `Descriptor.heldAs` numbers them.
   */
  commit?(session: Uint8Array<ArrayBuffer>, held: readonly number[]): void;
}

/** A violation of the protocol by the peer: a value, not thrown. The text names message and field. */
export class ProtocolError {
  /** One line for the log. */
  readonly message: string;

  /** Describes the violation. */
  constructor(message: string) {
    this.message = message;
  }
}

/** The result of {@linkcode Connection.read}. */
export type ReadResult = "message" | "nothing" | "closed" | ProtocolError;

/** A message that has not been sent completely. */
interface Unsent {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly descriptors: readonly Descriptor[];
  sent: number;
}

/** A stream of messages. It owns the socket and every descriptor that arrives, until taken. */
export class Connection {
  /** The socket. */
  readonly stream: MessageStream;
  /** Number of the message last read. */
  request = 0;
  /** Its flags. */
  flags = 0;
  /** Bytes of its payload. */
  size = 0;
  /** Its payload, from byte 0, {@linkcode Connection.size} bytes; overwritten by the next. */
  readonly payload: Uint8Array<ArrayBuffer> = new Uint8Array(new ArrayBuffer(MAX_PAYLOAD));
  /** The same bytes. */
  readonly data: DataView = new DataView(this.payload.buffer);

  readonly #header = new Uint8Array(new ArrayBuffer(HEADER_BYTES));
  readonly #headerData = new DataView(this.#header.buffer);
  #headerBytes = 0;
  #payloadBytes = 0;
  readonly #unsent: Unsent[] = [];

  /** Takes over a socket. */
  constructor(stream: MessageStream) {
    this.stream = stream;
  }

  /** Descriptors that came with the message last read. A method that needs one takes it with `shift` and closes it. */
  get descriptors(): Descriptor[] {
    return this.stream.received;
  }

  /** Whether something waits for room in the socket: poll for `POLLOUT` and {@linkcode Connection.flush}. */
  get hasUnsent(): boolean {
    return this.#unsent.length > 0;
  }

  /**
   * Reads the next message, if all of it is there. Descriptors of the one before that were not taken are
   * closed first.
   */
  read(): ReadResult {
    if (this.#headerBytes === 0) closeAll(this.descriptors);
    while (this.#headerBytes < HEADER_BYTES) {
      const missing = HEADER_BYTES - this.#headerBytes;
      const count = this.stream.receive(this.#header, this.#headerBytes, missing);
      if (count === WOULD_BLOCK) return "nothing";
      if (count === CLOSED) return this.#ended();
      this.#headerBytes += count;
      const refused = this.#headerBytes === HEADER_BYTES ? this.#takeHeader() : undefined;
      const problem = refused ?? this.#checkDescriptors();
      if (problem !== undefined) return problem;
    }
    while (this.#payloadBytes < this.size) {
      const missing = this.size - this.#payloadBytes;
      const count = this.stream.receive(this.payload, this.#payloadBytes, missing);
      if (count === WOULD_BLOCK) return "nothing";
      if (count === CLOSED) return this.#ended();
      this.#payloadBytes += count;
      const problem = this.#checkDescriptors();
      if (problem !== undefined) return problem;
    }
    this.#headerBytes = 0;
    this.#payloadBytes = 0;
    return "message";
  }

  /**
   * Sends a message, now or when there is room.
   *
   * @param descriptors Go with it; copies are kept until it is sent, so the caller's may be closed.
   * @returns false if the peer is gone.
   */
  send(
    request: number,
    flags: number,
    payload: Uint8Array,
    descriptors: readonly Descriptor[] = [],
  ): boolean {
    const bytes = new Uint8Array(new ArrayBuffer(HEADER_BYTES + payload.length));
    const data = new DataView(bytes.buffer);
    data.setUint32(0, request, true);
    data.setUint32(4, flags | FLAG_VERSION, true);
    data.setUint32(8, payload.length, true);
    bytes.set(payload, HEADER_BYTES);
    this.#unsent.push({ bytes, descriptors: duplicates(descriptors), sent: 0 });
    return this.flush();
  }

  /** Sends the bytes that wait, as far as there is room; false if the peer is gone. */
  flush(): boolean {
    while (this.#unsent.length > 0) {
      const next = this.#unsent[0];
      const numbers = next.sent === 0 ? next.descriptors.map((each) => each.number) : [];
      const left = next.bytes.length - next.sent;
      const count = this.stream.send(next.bytes, next.sent, left, numbers);
      if (count === WOULD_BLOCK) return true;
      if (count === CLOSED) return false;
      next.sent += count;
      if (next.sent < next.bytes.length) continue;
      for (const each of next.descriptors) each.close();
      this.#unsent.shift();
    }
    return true;
  }

  /** Closes the socket and every descriptor that is not taken; does nothing the second time. */
  close(): void {
    for (const { descriptors } of this.#unsent) {
      for (const each of descriptors) each.close();
    }
    this.#unsent.length = 0;
    this.stream.end();
  }

  #takeHeader(): ProtocolError | undefined {
    this.request = this.#headerData.getUint32(0, true);
    this.flags = this.#headerData.getUint32(4, true);
    this.size = this.#headerData.getUint32(8, true);
    const name = requestName(this.request);
    const version = this.flags & FLAG_VERSION_MASK;
    if (version !== FLAG_VERSION) {
      return new ProtocolError(
        `${name}: version ${version} in the flags, ${FLAG_VERSION} is known`,
      );
    }
    if (this.size > MAX_PAYLOAD) {
      return new ProtocolError(`${name}: size ${this.size}, at most ${MAX_PAYLOAD} is accepted`);
    }
    return undefined;
  }

  #checkDescriptors(): ProtocolError | undefined {
    const count = this.descriptors.length;
    if (count <= MAX_DESCRIPTORS && !this.stream.descriptorsLost) return undefined;
    const name = this.#headerBytes === HEADER_BYTES ? requestName(this.request) : "a message";
    closeAll(this.descriptors);
    return new ProtocolError(
      this.stream.descriptorsLost
        ? `${name}: descriptors were lost, more came than this process may open`
        : `${name}: ${count} descriptors, at most ${MAX_DESCRIPTORS} belong to a message`,
    );
  }

  #ended(): ReadResult {
    if (this.#headerBytes === 0) return "closed";
    return new ProtocolError(
      this.#headerBytes < HEADER_BYTES
        ? `closed within a header, after ${this.#headerBytes} bytes`
        : `${requestName(this.request)}: closed after ${this.#payloadBytes} of ${this.size} bytes`,
    );
  }
}

/** Copies of descriptors; none if one of them cannot be made. */
function duplicates(descriptors: readonly Descriptor[]): readonly Descriptor[] {
  const copies: Descriptor[] = [];
  try {
    for (const each of descriptors) copies.push(each.duplicate());
  } catch (error) {
    closeAll(copies);
    throw error;
  }
  return copies;
}
