/**
 * Which protocol features the front end and the back end agree on, and which the proxy adds.
 *
 * An invalidation has to be acknowledged, and a back end needs a way to send a MISS. For front ends that agree on
 * neither (OpenVMM has no channel), the proxy agrees on both with the back end, if it offers them.
 */
import { FLAG_NEED_REPLY, ProtocolFeature } from "../../vhost_user/mod.ts";

const { REPLY_ACK, BACKEND_REQ } = ProtocolFeature;
/** The features that translation needs. */
const NEEDED = REPLY_ACK | BACKEND_REQ;

/** The protocol features of one session, as masks. */
export class ProtocolAgreement {
  /** The features that the back end offers, once it has been asked. */
  offered = 0;
  #agreed = 0;
  #added = 0;

  /** The features that the front end has agreed on. */
  get agreed(): number {
    return this.#agreed;
  }

  /** Whether the back end acknowledges, and can send a MISS. */
  get isEnough(): boolean {
    return ((this.#agreed | this.#added) & NEEDED) === NEEDED;
  }

  /** Whether the back end needs a channel that the front end does not provide. */
  get needsChannel(): boolean {
    return (this.#added & BACKEND_REQ) !== 0;
  }

  /** The front end agrees on features. Returns those to set at the back end. */
  agree(features: number): number {
    this.#agreed = features;
    this.#added = NEEDED & this.offered & ~features;
    return (features | this.#added) >>> 0;
  }

  /** Flags of a passed message: the front end must not get replies that only the proxy has agreed on. */
  passedFlags(flags: number): number {
    return (this.#added & REPLY_ACK) === 0 ? flags : flags & ~FLAG_NEED_REPLY;
  }

  /** Whether a message of the front end asks for an acknowledgement. */
  wantsReply(flags: number): boolean {
    return (flags & FLAG_NEED_REPLY) !== 0 && (this.#agreed & REPLY_ACK) !== 0;
  }
}
