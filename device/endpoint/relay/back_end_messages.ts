/**
 * The messages to a back end and its replies, without waiting: a message is recorded with the handler of its reply.
 *
 * The back end may be hostile. A reply that does not fit the message, an unexpected reply, and silence each end the
 * session, with a line that says why.
 */
import { closeAll, type Descriptor, POLLIN, POLLOUT, type UnixStream } from "../../host/mod.ts";
import {
  Connection,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  ProtocolError,
  requestName,
} from "../../vhost_user/mod.ts";
import type { Refusal } from "../../virtio_device.ts";

/** Messages read at once, so that a back end that never stops does not delay everything else. */
const BURST = 64;
/** Answers that may be outstanding. */
const OUTSTANDING_MAX = 4096;
const NOTHING = new Uint8Array(0);

/** Handles the payload of an answer. Returns why it cannot be used, if so. */
export type Answer = (data: DataView, size: number) => Refusal;

/** A message whose reply is outstanding. */
interface Awaited {
  readonly request: number;
  readonly since: number;
  readonly answer: Answer;
}

/** One connection to a back end. */
export class BackEndMessages {
  /** Whether REPLY_ACK is agreed. */
  acknowledges = false;
  /** Whether {@linkcode serve} found that the back end has disconnected. */
  isGone = false;
  readonly #connection: Connection;
  readonly #awaited: Awaited[] = [];
  /** Since when there are unsent bytes; 0 if there are none. */
  #unsentSince = 0;

  /** Takes over a connection. */
  constructor(stream: UnixStream) {
    this.#connection = new Connection(stream);
  }

  /** The connection's descriptor. */
  get descriptor(): number {
    return this.#connection.stream.descriptor.number;
  }

  /** The events to poll for. */
  get events(): number {
    return POLLIN | (this.#connection.hasUnsent ? POLLOUT : 0);
  }

  /** Whether a reply or a read of the back end is outstanding, so that its time limit runs. */
  get isWaiting(): boolean {
    return this.#awaited.length > 0 || this.#connection.hasUnsent;
  }

  /** Sends a message that has a reply of its own. */
  ask(request: number, payload: Uint8Array, answer: Answer): void {
    this.#awaited.push({ request, since: performance.now(), answer });
    this.#send(request, 0, payload, []);
  }

  /** Sends a message, which is acknowledged if REPLY_ACK is agreed; a refusal ends the session. */
  tell(
    request: number,
    payload: Uint8Array = NOTHING,
    descriptors: readonly Descriptor[] = [],
    refused: () => Refusal = () => `it refused ${requestName(request)}`,
  ): void {
    if (this.acknowledges) {
      const answer: Answer = (data, size) => {
        if (size !== 8) return `its acknowledgement of ${requestName(request)} has ${size} bytes`;
        return data.getUint32(0, true) === 0 && data.getUint32(4, true) === 0
          ? undefined
          : refused();
      };
      this.#awaited.push({ request, since: performance.now(), answer });
    }
    this.#send(request, this.acknowledges ? FLAG_NEED_REPLY : 0, payload, descriptors);
  }

  /**
   * Sends unsent bytes and handles the replies that have arrived.
   *
   * @returns Why the session is over, if it is.
   */
  serve(): Refusal {
    const connection = this.#connection;
    if (!connection.flush()) return this.#gone();
    if (!connection.hasUnsent) this.#unsentSince = 0;
    for (let i = 0; i < BURST; i++) {
      const result = connection.read();
      if (result === "nothing") return undefined;
      if (result === "closed") return this.#gone();
      if (result instanceof ProtocolError) return result.message;
      const problem = this.#take();
      closeAll(connection.descriptors);
      if (problem !== undefined) return problem;
    }
    return undefined;
  }

  /** What the back end has not done within the time limit, if there is something. */
  overdue(milliseconds: number): string | undefined {
    const now = performance.now();
    if (this.#awaited.length > OUTSTANDING_MAX) {
      return "the back end does not keep up with its messages";
    }
    if (this.#awaited.length > 0 && now - this.#awaited[0].since > milliseconds) {
      return `the back end has not answered ${
        requestName(this.#awaited[0].request)
      } within ${milliseconds} ms`;
    }
    if (this.#unsentSince > 0 && now - this.#unsentSince > milliseconds) {
      return `the back end has not read its messages for ${milliseconds} ms`;
    }
    return undefined;
  }

  /** Closes the connection; does nothing the second time. */
  close(): void {
    this.#awaited.length = 0;
    this.#connection.close();
  }

  #send(
    request: number,
    flags: number,
    payload: Uint8Array,
    descriptors: readonly Descriptor[],
  ): void {
    // A disconnect is found at the next read.
    this.#connection.send(request, flags, payload, descriptors);
    if (this.#connection.hasUnsent && this.#unsentSince === 0) {
      this.#unsentSince = performance.now();
    }
  }

  #gone(): string {
    this.isGone = true;
    return "the back end is gone";
  }

  #take(): Refusal {
    const { request, flags, data, size } = this.#connection;
    const expected = this.#awaited[0];
    if ((flags & FLAG_REPLY) === 0) return `${requestName(request)} came, which is no reply`;
    if (expected === undefined) return `a reply to ${requestName(request)} came unasked`;
    if (expected.request !== request) {
      return `a reply to ${requestName(request)} came in place of one to ${
        requestName(expected.request)
      }`;
    }
    this.#awaited.shift();
    return expected.answer(data, size);
  }
}

/** Two u32 as a payload. */
export function twoWords(first: number, second: number): Uint8Array {
  const payload = new Uint8Array(8);
  const data = new DataView(payload.buffer);
  data.setUint32(0, first >>> 0, true);
  data.setUint32(4, second >>> 0, true);
  return payload;
}

/** Asks for a u64, in two halves. */
export function askWords(
  messages: BackEndMessages,
  request: number,
  answer: (low: number, high: number) => Refusal,
  payload: Uint8Array = NOTHING,
): void {
  messages.ask(request, payload, (data, size) => {
    if (size !== 8) return `its reply to ${requestName(request)} has ${size} bytes, not 8`;
    return answer(data.getUint32(0, true), data.getUint32(4, true));
  });
}
