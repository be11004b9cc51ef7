/**
 * A peer that knows no manners: sends any bytes with any descriptors, and reads what comes back.
 *
 * @module
 */
import { createMemoryFile, type Descriptor, Event, UnixStream } from "../../../device/host/mod.ts";
import {
  BackEnd,
  Connection,
  FLAG_NEED_REPLY,
  ProtocolFeature,
  Request,
} from "../../../device/vhost_user/mod.ts";
import { Log } from "../../../device/log.ts";
import { words } from "../../bytes.ts";
import { RecordingDevice } from "./serving.ts";

/** A back end and a raw peer on one pair of sockets, without a loop: the peer sends, then lets it read. */
export class RawPeer implements Disposable {
  /** The device behind the back end. */
  readonly device: RecordingDevice;
  /** The back end. */
  readonly backEnd: BackEnd;
  /** The peer's end. */
  readonly connection: Connection;
  /** Log lines of level warn. */
  readonly warnings: string[] = [];

  /** Joins the two. */
  constructor(device: RecordingDevice = new RecordingDevice()) {
    this.device = device;
    const [one, other] = UnixStream.pair();
    const log = new Log("warn", (line) => this.warnings.push(line.slice("viommu: warn: ".length)));
    this.backEnd = new BackEnd(one, device, { log });
    this.connection = new Connection(other);
  }

  /** Sends bytes as they are, and lets the back end read. Returns whether the session goes on. */
  sendBytes(bytes: Uint8Array<ArrayBuffer>, descriptors: readonly Descriptor[] = []): boolean {
    if (bytes.length > 0) {
      this.connection.stream.send(bytes, 0, bytes.length, descriptors.map((each) => each.number));
    }
    return this.backEnd.onReadable();
  }

  /** Sends a message, and lets the back end read. Returns whether the session goes on. */
  send(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly Descriptor[] = [],
    flags = 0,
  ): boolean {
    this.connection.send(request, flags, payload, descriptors);
    return this.backEnd.onReadable();
  }

  /** Sends a message and gives the payload of the reply, or `undefined` if none came. */
  ask(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly Descriptor[] = [],
    flags = 0,
  ): DataView | undefined {
    this.send(request, payload, descriptors, flags);
    if (this.connection.read() !== "message") return undefined;
    return new DataView(this.connection.payload.slice(0, this.connection.size).buffer);
  }

  /** Sends a message that asks for a general reply: 0 done, 1 refused, -1 none came. */
  acknowledged(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly Descriptor[] = [],
  ): number {
    return this.ask(request, payload, descriptors, FLAG_NEED_REPLY)?.getUint32(0, true) ?? -1;
  }

  /** Agrees to protocol features, by default to those that most messages need. */
  agree(features: number = EVERYTHING): void {
    this.send(Request.SET_PROTOCOL_FEATURES, words(features, 0));
    this.send(Request.SET_FEATURES, words(0x4000_0000, 1));
  }

  /** Ends both ends; does nothing the second time. */
  close(): void {
    this.connection.close();
    this.backEnd.onReadable();
    this.backEnd.close();
  }

  /** Ends both ends with the block of a `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Protocol features that a recording device offers. */
export const EVERYTHING = ProtocolFeature.MQ | ProtocolFeature.LOG_SHMFD |
  ProtocolFeature.REPLY_ACK | ProtocolFeature.BACKEND_REQ | ProtocolFeature.CONFIG |
  ProtocolFeature.INFLIGHT_SHMFD | ProtocolFeature.RESET_DEVICE |
  ProtocolFeature.CONFIGURE_MEM_SLOTS | ProtocolFeature.STATUS | ProtocolFeature.DEVICE_STATE;

/** Gives a test descriptors of each kind, and closes them afterwards. */
export function withDescriptors(
  test: (kinds: { readonly memory: Descriptor; readonly event: Descriptor }) => void,
): void {
  const memory = createMemoryFile("raw-peer", 1 << 20);
  const event = Event.create();
  try {
    test({ memory, event: event.descriptor });
  } finally {
    memory.close();
    event.close();
  }
}
