/**
 * What a front end is answered, by the back end or here, in the order of its messages.
 *
 * @module
 */
import { type Connection, FLAG_REPLY } from "../../vhost_user/mod.ts";
import type { ConfigAccess } from "./config_access.ts";
import type { ProtocolAgreement } from "./protocol_agreement.ts";
import { type LocalReply, type Replied, ReplyOrder } from "./reply_order.ts";

/** Bytes of a general reply. */
const STATUS_BYTES = 8;

/** Replies to one front end. */
export class FrontEndReplies {
  readonly #connection: Connection;
  readonly #agreement: ProtocolAgreement;
  readonly #order = new ReplyOrder();

  /** None is due yet. */
  constructor(connection: Connection, agreement: ProtocolAgreement) {
    this.#connection = connection;
    this.#agreement = agreement;
  }

  /** A message is passed on, so the back end replies to it; `access` is what it is about, if it is GET_CONFIG. */
  passed(request: number, flags: number, access?: ConfigAccess): void {
    this.#order.passed(request, flags, this.#agreement.agreed, access);
  }

  /** Answers a message that is not passed, if it asks for a general reply. */
  acknowledge(request: number, flags: number, status: number): void {
    if (!this.#agreement.wantsReply(flags)) return;
    const payload = new Uint8Array(STATUS_BYTES);
    payload[0] = status;
    this.answer({ request, payload });
  }

  /** Answers a message that is not passed, as soon as the replies before it have come. */
  answer(reply: LocalReply): void {
    if (this.#order.answered(reply)) this.give([reply]);
  }

  /**
   * The back end replied to a message. Replies of ours that are due before that go out; the caller passes the back end's
   * own, and {@linkcode give}s those that are due behind it.
   */
  replied(request: number): Replied {
    const replied = this.#order.replied(request);
    this.give(replied.before);
    return replied;
  }

  /** Sends replies of ours. */
  give(replies: readonly LocalReply[]): void {
    for (const { request, payload } of replies) this.#connection.send(request, FLAG_REPLY, payload);
  }
}
