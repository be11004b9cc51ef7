/** GET_CONFIG and SET_CONFIG between a front end and a back end, in a form that either takes (`config_access.ts`). */
import type { Log } from "../../log.ts";
import {
  CONFIG_HEADER_BYTES,
  type Connection,
  ProtocolFeature,
  Request,
} from "../../vhost_user/mod.ts";
import {
  type ConfigAccess,
  configAnswer,
  passedPayload,
  readConfigAccess,
} from "./config_access.ts";
import type { FrontEndReplies } from "./front_end_replies.ts";
import { pass, passAs } from "./pass_message.ts";
import type { ProtocolAgreement } from "./protocol_agreement.ts";

const NOTHING = new Uint8Array(0);

/** Options of {@linkcode ConfigMessages}. */
export interface ConfigMessagesOptions {
  /** The connection to the front end. */
  readonly frontEnd: Connection;
  /** The connection to the back end. */
  readonly backEnd: Connection;
  /** The replies to the front end. */
  readonly replies: FrontEndReplies;
  /** The agreed protocol features. */
  readonly agreement: ProtocolAgreement;
  /** The endpoint's name in log lines. */
  readonly name: string;
  /** The log. */
  readonly log: Log;
}

/** Accesses to the config space in one session. */
export class ConfigMessages {
  readonly #options: ConfigMessagesOptions;
  /** End of the bytes that the back end has returned so far. */
  #end = 0;

  /** Without accesses so far. */
  constructor(options: ConfigMessagesOptions) {
    this.#options = options;
  }

  /**
   * Serves the message that was just read from the front end.
   *
   * @returns false if it is to be passed as any other.
   */
  fromFrontEnd(): boolean {
    const { frontEnd, backEnd, replies, agreement } = this.#options;
    const { request, flags } = frontEnd;
    const access = (agreement.agreed & ProtocolFeature.CONFIG) === 0
      ? undefined
      : readConfigAccess(frontEnd);
    if (access === undefined) return false;
    if (access.passed > 0 || access.length === 0) {
      replies.passed(request, flags, access);
      passAs(frontEnd, backEnd, agreement.passedFlags(flags), passedPayload(frontEnd, access));
    } else if (request === Request.SET_CONFIG) replies.acknowledge(request, flags, 0);
    else replies.answer({ request, payload: configAnswer(access, NOTHING) });
    return true;
  }

  /** Passes the back end's answer to GET_CONFIG, in the length that the front end waits for. */
  fromBackEnd(access: ConfigAccess): void {
    const { frontEnd, backEnd, name, log } = this.#options;
    const { payload, size, flags } = backEnd;
    // Bytes that exist, or may exist, must not be replaced by zeros: the failure is passed to the front end.
    if (size === 0 && (access.offset === 0 || access.offset < this.#end)) {
      return pass(backEnd, frontEnd);
    }
    if (size === CONFIG_HEADER_BYTES + access.passed) {
      this.#end = Math.max(this.#end, access.offset + access.passed);
    } else {
      log.warnLimited(
        "config",
        `${name}: the back end answered GET_CONFIG of ${access.passed} bytes at ${access.offset} with ` +
          `${size} bytes; the front end gets zeros for what is missing`,
      );
    }
    passAs(backEnd, frontEnd, flags, configAnswer(access, payload.subarray(0, size)));
  }
}
