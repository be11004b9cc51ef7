/**
 * Identifies a back end: its features, its number of queues, its config space.
 *
 * vhost-user has no message that asks for the size of the config space; VMMs know it from the device's type. Back ends
 * answer a range that they do not have with an empty payload, so the size is found by bisection.
 */
import {
  CONFIG_HEADER_BYTES,
  ProtocolFeature,
  Request,
  TransportFeature,
} from "../../vhost_user/mod.ts";
import { askWords, type BackEndMessages, twoWords } from "./back_end_messages.ts";
import { type FeatureWords, USED_PROTOCOL } from "./relayed_features.ts";

/** Most bytes of config space asked for: libvhost-user closes the connection on more. */
const CONFIG_MAX = 256;
/** Most queues that a relay has. */
const QUEUES_MAX = 256;

/** The identity of a back end. */
export interface BackEndIdentity {
  /** The virtio features that it offers. */
  readonly features: FeatureWords;
  /** The protocol features that it offers. */
  readonly offeredProtocol: number;
  /** Those that are agreed. */
  readonly protocol: number;
  /** How many queues it has. */
  readonly queueCount: number;
  /** Its config space. */
  readonly config: Uint8Array<ArrayBuffer>;
}

/**
 * Identifies a back end, and becomes its owner.
 *
 * @param queues Number of queues of a back end without MQ.
 * @param agreed Called as soon as the protocol features are agreed.
 * @param done Called with the identity. An unusable reply ends the session.
 */
export function identify(
  messages: BackEndMessages,
  queues: number,
  agreed: (protocol: number) => void,
  done: (identity: BackEndIdentity) => void,
): void {
  askWords(messages, Request.GET_FEATURES, (low, high) => {
    if ((high & TransportFeature.VERSION_1) === 0) {
      return "it offers no VERSION_1: a device of before virtio 1.0 cannot be relayed";
    }
    const features = { low, high };
    if ((low & TransportFeature.PROTOCOL_FEATURES) === 0) {
      messages.tell(Request.SET_OWNER);
      done({
        features,
        offeredProtocol: 0,
        protocol: 0,
        queueCount: queues,
        config: new Uint8Array(0),
      });
      return undefined;
    }
    askWords(messages, Request.GET_PROTOCOL_FEATURES, (offeredProtocol) => {
      const protocol = (offeredProtocol & USED_PROTOCOL) >>> 0;
      messages.tell(Request.SET_PROTOCOL_FEATURES, twoWords(protocol, 0));
      messages.acknowledges = (protocol & ProtocolFeature.REPLY_ACK) !== 0;
      agreed(protocol);
      messages.tell(Request.SET_OWNER);
      askQueues(messages, protocol, queues, (queueCount) => {
        askConfig(messages, protocol, (config) => {
          done({ features, offeredProtocol, protocol, queueCount, config });
        });
      });
      return undefined;
    });
    return undefined;
  });
}

function askQueues(
  messages: BackEndMessages,
  protocol: number,
  queues: number,
  done: (queueCount: number) => void,
): void {
  if ((protocol & ProtocolFeature.MQ) === 0) {
    done(queues);
    return;
  }
  askWords(messages, Request.GET_QUEUE_NUM, (count, high) => {
    if (high !== 0 || count === 0) return `it has ${high === 0 ? "no" : "more than 2^32"} queues`;
    done(Math.min(count, QUEUES_MAX));
    return undefined;
  });
}

/** Finds the size of the config space, and reads it. */
function askConfig(
  messages: BackEndMessages,
  protocol: number,
  done: (config: Uint8Array<ArrayBuffer>) => void,
): void {
  let known: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  let tooMuch = CONFIG_MAX + 1;
  let length = CONFIG_MAX;
  if ((protocol & ProtocolFeature.CONFIG) === 0) {
    done(known);
    return;
  }
  next();

  function next(): void {
    readConfig(messages, length, (config) => {
      if (config === undefined) tooMuch = length;
      else known = config;
      length = (known.length + tooMuch) >>> 1;
      if (tooMuch - known.length > 1) next();
      else done(known);
    });
  }
}

/** Reads the first bytes of the config space; calls `done` with `undefined` if it is shorter. */
export function readConfig(
  messages: BackEndMessages,
  length: number,
  done: (config: Uint8Array<ArrayBuffer> | undefined) => void,
): void {
  const payload = new Uint8Array(CONFIG_HEADER_BYTES + length);
  new DataView(payload.buffer).setUint32(4, length, true);
  messages.ask(Request.GET_CONFIG, payload, (data, size) => {
    const isWhole = size === CONFIG_HEADER_BYTES + length;
    const start = data.byteOffset + CONFIG_HEADER_BYTES;
    done(
      isWhole ? new Uint8Array(data.buffer.slice(start, start + length) as ArrayBuffer) : undefined,
    );
    return undefined;
  });
}
