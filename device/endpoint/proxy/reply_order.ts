/**
 * Keeps replies to a front end in the order of its messages, where the proxy answers some and the back end the others.
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

/** A reply of the proxy. */
export interface LocalReply {
  /** The message that it replies to. */
  readonly request: number;
  /** Its payload. */
  readonly payload: Uint8Array;
}

/** A reply that is due: the back end's, or the proxy's, which waits for those before it. */
interface Due {
  readonly request: number;
  readonly local: LocalReply | undefined;
  readonly access: ConfigAccess | undefined;
}

/** The replies that are due around one of the back end. */
export interface Replied {
  /** Replies of the proxy before it. */
  readonly before: readonly LocalReply[];
  /** Replies of the proxy after it. */
  readonly behind: readonly LocalReply[];
  /** The access that it replies to, for GET_CONFIG. */
  readonly access: ConfigAccess | undefined;
}

/** Replies that are due, in order. */
export class ReplyOrder {
  readonly #due: Due[] = [];

  /**
   * A message was passed.
   *
   * @param agreed The protocol features that are agreed.
   * @param access The access, for GET_CONFIG.
   */
  passed(request: number, flags: number, agreed: number, access?: ConfigAccess): void {
    const isAcknowledged = (flags & FLAG_NEED_REPLY) !== 0 &&
      (agreed & ProtocolFeature.REPLY_ACK) !== 0;
    const isLog = request === Request.SET_LOG_BASE && (agreed & ProtocolFeature.LOG_SHMFD) !== 0;
    if (!isAcknowledged && !isLog && !REPLIES.has(request)) return;
    this.#due.push({ request, local: undefined, access });
  }

  /** The proxy replies to a message. Returns whether the reply is due now; if not, it is queued. */
  answered(local: LocalReply): boolean {
    if (this.#due.length === 0) return true;
    this.#due.push({ request: local.request, local, access: undefined });
    return false;
  }

  /**
   * The back end replied to a message. Replies that were due before it did not come, and never will.
   *
   * @returns The proxy's replies that are due before and after it.
   */
  replied(request: number): Replied {
    const due = this.#due;
    const at = due.findIndex((each) => each.local === undefined && each.request === request);
    // An unexpected reply: the others stay due.
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
