/**
 * Keeps the replies that a front end gets in the order of its messages, when some are answered on the way and the
 * others by the back end.
 *
 * @module
 */
import { FLAG_NEED_REPLY, ProtocolFeature, Request } from "../../vhost_user/mod.ts";

/** Messages that have a reply of their own, whatever their flags say. */
const REPLIES: ReadonlySet<number> = new Set([
  Request.GET_FEATURES,
  Request.GET_VRING_BASE,
  Request.GET_PROTOCOL_FEATURES,
  Request.GET_QUEUE_NUM,
  Request.GET_CONFIG,
  Request.CREATE_CRYPTO_SESSION,
  Request.POSTCOPY_ADVISE,
  Request.POSTCOPY_END,
  Request.GET_INFLIGHT_FD,
  Request.GET_MAX_MEM_SLOTS,
  Request.GET_STATUS,
  Request.GET_SHARED_OBJECT,
  Request.SET_DEVICE_STATE_FD,
  Request.CHECK_DEVICE_STATE,
  Request.GET_SHMEM_CONFIG,
]);
/** Stands for a reply that is given on the way. */
const LOCAL = -1;

/** Replies that are due, in order. */
export class ReplyOrder {
  readonly #due: number[] = [];

  /**
   * A message was passed on.
   *
   * @param agreed The protocol features that are agreed.
   */
  passed(request: number, flags: number, agreed: number): void {
    const isAcknowledged = (flags & FLAG_NEED_REPLY) !== 0 &&
      (agreed & ProtocolFeature.REPLY_ACK) !== 0;
    const isLog = request === Request.SET_LOG_BASE && (agreed & ProtocolFeature.LOG_SHMFD) !== 0;
    if (isAcknowledged || isLog || REPLIES.has(request)) this.#due.push(request);
  }

  /** A message is answered on the way. Returns whether its reply is due now; if not, it will be. */
  answered(): boolean {
    if (this.#due.length === 0) return true;
    this.#due.push(LOCAL);
    return false;
  }

  /**
   * The back end replied to a message. Replies that were due before it did not come, and never will.
   *
   * @returns How many replies of ours are due before it, and how many behind it.
   */
  replied(request: number): { readonly before: number; readonly behind: number } {
    const due = this.#due;
    const at = due.indexOf(request);
    // Nobody asked for it: what was due stays so.
    if (at < 0) return { before: 0, behind: 0 };
    const before = due.splice(0, at + 1).filter((each) => each === LOCAL).length;
    let behind = 0;
    while (due[0] === LOCAL) {
      due.shift();
      behind++;
    }
    return { before, behind };
  }
}
