import { type Connection, FLAG_REPLY } from "../../vhost_user/mod.ts";
import type { ConfigAccess } from "./config_access.ts";
import type { ProtocolAgreement } from "./protocol_agreement.ts";
import { type LocalReply, type Replied, ReplyOrder } from "./reply_order.ts";

/** Bytes of a general reply. */
const STATUS_BYTES = 8;

/** Replies to one front end, from the back end or from the proxy, in the order of the front end's messages. */
export class FrontEndReplies {
  readonly #connection: Connection;
  readonly #agreement: ProtocolAgreement;
  readonly #order = new ReplyOrder();

  /** Without outstanding replies. */
  constructor(connection: Connection, agreement: ProtocolAgreement) {
    this.#connection = connection;
    this.#agreement = agreement;
  }

  /** A message is passed, so the back end replies to it; `access` is set for GET_CONFIG. */
  passed(request: number, flags: number, access?: ConfigAccess): void {
    this.#order.passed(request, flags, this.#agreement.agreed, access);
  }

  /** Acknowledges a message that is not passed, if it asks for that. */
  acknowledge(request: number, flags: number, status: number): void {
    if (!this.#agreement.wantsReply(flags)) return;
    const payload = new Uint8Array(STATUS_BYTES);
    payload[0] = status;
    this.answer({ request, payload });
  }

  /** Replies to a message that is not passed, as soon as the replies before it have been sent. */
  answer(reply: LocalReply): void {
    if (this.#order.answered(reply)) this.give([reply]);
  }

  /**
   * The back end replied to a message. Sends the proxy's replies that are due before; the caller passes the back end's
   * reply, and then sends those that are due after it with {@linkcode give}.
   */
  replied(request: number): Replied {
    const replied = this.#order.replied(request);
    this.give(replied.before);
    return replied;
  }

  /** Sends replies of the proxy. */
  give(replies: readonly LocalReply[]): void {
    for (const { request, payload } of replies) this.#connection.send(request, FLAG_REPLY, payload);
  }
}
