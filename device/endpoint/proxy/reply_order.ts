/**
 * Keeps the replies that a front end gets in the order of its messages, when some are answered on the way and the
 * others by the back end.
 *
 * @module
 */
import { FLAG_NEED_REPLY, ProtocolFeature, Request } from "../../vhost_user/mod.ts";
import type { ConfigAccess } from "./config_access.ts";

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

/** A reply that is given on the way. */
export interface LocalReply {
  /** The message that it replies to. */
  readonly request: number;
  /** What it says. */
  readonly payload: Uint8Array;
}

/** A reply that is due: the back end's, or one of ours that waits for those before it. */
interface Due {
  readonly request: number;
  readonly local: LocalReply | undefined;
  readonly access: ConfigAccess | undefined;
}

/** What is due where the back end has replied. */
export interface Replied {
  /** Replies of ours that come before it. */
  readonly before: readonly LocalReply[];
  /** Replies of ours that come behind it. */
  readonly behind: readonly LocalReply[];
  /** What it replies to, if that is GET_CONFIG. */
  readonly access: ConfigAccess | undefined;
}

/** Replies that are due, in order. */
export class ReplyOrder {
  readonly #due: Due[] = [];

  /**
   * A message was passed on.
   *
   * @param agreed The protocol features that are agreed.
   * @param access What it is about, if it is GET_CONFIG.
   */
  passed(request: number, flags: number, agreed: number, access?: ConfigAccess): void {
    const isAcknowledged = (flags & FLAG_NEED_REPLY) !== 0 &&
      (agreed & ProtocolFeature.REPLY_ACK) !== 0;
    const isLog = request === Request.SET_LOG_BASE && (agreed & ProtocolFeature.LOG_SHMFD) !== 0;
    if (!isAcknowledged && !isLog && !REPLIES.has(request)) return;
    this.#due.push({ request, local: undefined, access });
  }

  /** A message is answered on the way. Returns whether its reply is due now; if not, it will be. */
  answered(local: LocalReply): boolean {
    if (this.#due.length === 0) return true;
    this.#due.push({ request: local.request, local, access: undefined });
    return false;
  }

  /**
   * The back end replied to a message. Replies that were due before it did not come, and never will.
   *
   * @returns Which replies of ours are due before it and behind it.
   */
  replied(request: number): Replied {
    const due = this.#due;
    const at = due.findIndex((each) => each.local === undefined && each.request === request);
    // It was not asked for: what was due stays so.
    if (at < 0) return { before: [], behind: [], access: undefined };
    const before = locals(due.splice(0, at));
    const access = due.shift()?.access;
    const next = due.findIndex((each) => each.local === undefined);
    const behind = locals(due.splice(0, next < 0 ? due.length : next));
    return { before, behind, access };
  }
}

function locals(due: readonly Due[]): readonly LocalReply[] {
  return due.map((each) => each.local).filter((local) => local !== undefined);
}
