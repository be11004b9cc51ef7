/**
 * Which protocol features front end and back end agree on, and which we add to that on our own account.
 *
 * A translation that is taken back has to be acknowledged, and a back end has to have a way to ask for one. Front ends
 * that agree on neither (OpenVMM has no channel) are served all the same: we agree on both with the back end ourselves, if
 * it offers them.
 *
 * @module
 */
import { FLAG_NEED_REPLY, ProtocolFeature } from "../../vhost_user/mod.ts";

const { REPLY_ACK, BACKEND_REQ } = ProtocolFeature;
/** What translation cannot do without. */
const NEEDED = REPLY_ACK | BACKEND_REQ;

/** The protocol features of one session, as masks. */
export class ProtocolAgreement {
  /** What the back end offers, as far as it has been asked. */
  offered = 0;
  #agreed = 0;
  #added = 0;

  /** What the front end has agreed on. */
  get agreed(): number {
    return this.#agreed;
  }

  /** Whether the back end acknowledges, and can ask. */
  get isEnough(): boolean {
    return ((this.#agreed | this.#added) & NEEDED) === NEEDED;
  }

  /** Whether the back end waits for a channel that the front end does not know of. */
  get needsChannel(): boolean {
    return (this.#added & BACKEND_REQ) !== 0;
  }

  /** The front end agrees on some. Returns what the back end is told. */
  agree(features: number): number {
    this.#agreed = features;
    this.#added = NEEDED & this.offered & ~features;
    return (features | this.#added) >>> 0;
  }

  /** Flags with which a message of the front end passes: it must not get replies because we have agreed on them. */
  passedFlags(flags: number): number {
    return (this.#added & REPLY_ACK) === 0 ? flags : flags & ~FLAG_NEED_REPLY;
  }

  /** Whether a message of the front end with these flags asks for a general reply. */
  wantsReply(flags: number): boolean {
    return (flags & FLAG_NEED_REPLY) !== 0 && (this.#agreed & REPLY_ACK) !== 0;
  }
}
