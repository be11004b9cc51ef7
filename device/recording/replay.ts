/**
 * Replays a recording: makes the device that it describes, does to it what was done, and compares each answer.
 *
 * The device is the one that serves guests. Guest memory has no content: the model does not look at it. What is done in pieces
 * between requests is done as often as it was, so tables have the same pages in the same places.
 *
 * The file comes from outside: what is wrong with it is one line.
 */
import { GuestMemory, SplitQueue } from "../../vring/mod.ts";
import { sizeText } from "../address.ts";
import { CONFIG_BYPASS_OFFSET } from "../iommu/config_space.ts";
import { IommuDevice } from "../iommu/iommu_device.ts";
import { Turn } from "../iommu/turn.ts";
import {
  CONFIGURATION_MAX,
  readConfiguration,
  type RecordedConfiguration,
} from "./configuration.ts";
import { RecordedRegions } from "./recorded_regions.ts";
import type { RecordingReader } from "./recording_reader.ts";
import { ReplayedRequests } from "./replayed_requests.ts";
import { RequestDecoder } from "./request_decoder.ts";
import {
  ABANDONED,
  BYPASS,
  CONFIGURATION,
  DISCONNECTED,
  DMA,
  END,
  END_TEXTS,
  FAULT,
  FEATURES,
  MEMORY_ADDED,
  MEMORY_REMOVED,
  PIECES,
  QUEUE_BEGINS,
  QUEUE_STARTED,
  QUEUE_STOPPED,
  REQUEST,
  RESET,
  RESET_KINDS,
  SESSION_ENDS,
  START_SIGNS,
  STATE,
  TIME,
} from "./wire.ts";

/** What cannot come between a request that was abandoned and the end of its session. */
const NOT_ABANDONED: readonly number[] = [REQUEST, ABANDONED, STATE, RESET, QUEUE_BEGINS];
/** Queues of a device. */
const QUEUES = 2;

/** How a recording is replayed. */
export interface ReplayOptions {
  /** Format of all endpoints' tables; that of the recording by default. */
  readonly format?: string | undefined;
  /** Most bytes of table memory that a recording may ask for. */
  readonly maxTableMemory: number;
}

/** A recording that is being replayed. */
export class Replay {
  /** What the recording says of the device and itself. */
  readonly configuration: RecordedConfiguration;
  /** The device. */
  readonly device: IommuDevice;
  /** Its requests. */
  readonly requests: ReplayedRequests;
  /** Microseconds from the beginning of the recording to the last record. */
  time = 0;
  /** Microseconds from one record to the next that is yet to be replayed. */
  #pending: number | undefined;
  /** Why the recording ended, if it says so. */
  end: string | undefined;
  readonly #reader: RecordingReader;
  readonly #request = new RequestDecoder();
  readonly #regions = new RecordedRegions();
  readonly #queue = new SplitQueue(new GuestMemory());
  readonly #turn = new Turn();
  /** Whether a request was abandoned: what it has begun ends with the session, and nothing may come before that. */
  #isAbandoned = false;

  private constructor(
    reader: RecordingReader,
    configuration: RecordedConfiguration,
    device: IommuDevice,
    stretch: number,
  ) {
    this.#reader = reader;
    this.configuration = configuration;
    this.device = device;
    this.requests = new ReplayedRequests(device, stretch);
  }

  /**
   * Makes the device of a recording.
   *
   * @param stretch How many requests are served at once at most, so that the time that they take can be measured; with
   * more than one, {@linkcode settle} comes before the device is looked at.
   * @returns One clause that says why not, if it cannot be made.
   */
  static begin(reader: RecordingReader, options: ReplayOptions, stretch = 1): Replay | string {
    const text = readBytes(reader, CONFIGURATION, CONFIGURATION_MAX);
    if (text === undefined) return reader.problem ?? "it ends within its configuration";
    const configuration = readConfiguration(new TextDecoder().decode(text));
    if (typeof configuration === "string") return configuration;
    const { format, maxTableMemory: most } = options;
    const { endpoints, maxTableMemory } = configuration.device;
    if (maxTableMemory > most) {
      return `it asks for ${sizeText(maxTableMemory)} of table memory, more than ${
        sizeText(most)
      } ` +
        "(--max-table-memory)";
    }
    const chosen = endpoints.map((range) => ({ ...range, format: format ?? range.format }));
    try {
      const device = new IommuDevice({ ...configuration.device, endpoints: chosen });
      return new Replay(reader, configuration, device, stretch);
    } catch (error) {
      // Options that contradict each other, or more memory than there is.
      if (error instanceof RangeError) return `its device cannot be made: ${error.message}`;
      throw error;
    }
  }

  /** What is wrong with the file, in one clause. */
  get problem(): string | undefined {
    return this.#reader.problem;
  }

  /** Whether the file was cut. */
  get isCut(): boolean {
    return this.#reader.isCut;
  }

  /**
   * Replays a record, unless what it is about happened after a time in microseconds.
   *
   * @returns False at the end of the file, of the time, or at what cannot be.
   */
  step(until = Infinity): boolean {
    const reader = this.#reader;
    if (this.#pending === undefined) {
      if (!reader.next()) return false;
      const isRequest = reader.kind === REQUEST || reader.kind === ABANDONED;
      if (isRequest && !this.#request.decode(reader)) return false;
      this.#pending = isRequest
        ? this.#request.delta
        : reader.kind === TIME
        ? reader.number(1)
        : reader.word(1);
    }
    if (this.time + this.#pending > until) return false;
    this.time += this.#pending;
    this.#pending = undefined;
    return this.#apply() || (this.end === undefined && reader.refuse());
  }

  /** Serves the requests that wait for the end of their stretch. */
  settle(): void {
    this.requests.settle();
  }

  /** Ends the device. */
  close(): void {
    this.device.close();
  }

  /** Does what the record says that was read last. Returns false if that cannot be, or the recording is over. */
  #apply(): boolean {
    const { device } = this;
    const reader = this.#reader;
    if (this.#isAbandoned && NOT_ABANDONED.includes(reader.kind)) return false;
    if (reader.kind === REQUEST) {
      this.requests.add(this.#request, this.time);
      return true;
    }
    this.settle();
    switch (reader.kind) {
      case ABANDONED:
        this.requests.abandon(this.#request);
        this.#isAbandoned = true;
        return true;
      case PIECES:
        for (let left = reader.word(2); left > 0 && device.iommu.isEnding; left--) {
          device.iommu.endPiece();
        }
        return true;
      case FAULT:
        device.refused(reader.word(2), reader.page(3), reader.word(3) & 0xfff, reader.word(5) & 3);
        return true;
      case DMA:
        device.access(reader.word(2), reader.page(3), reader.word(5) & 3);
        return true;
      case STATE:
        return this.#loadState();
      case END:
        this.end = END_TEXTS[reader.word(2)] ?? "for a reason that this program does not know";
        return false;
      case CONFIGURATION:
        return false;
      default:
        return this.#applyMessage();
    }
  }

  /** The same for what a message of the front end has caused. */
  #applyMessage(): boolean {
    const { device } = this;
    const reader = this.#reader;
    const value = reader.word(2);
    switch (reader.kind) {
      case MEMORY_ADDED:
        return this.#regions.add(device, reader.number(2), reader.number(4));
      case MEMORY_REMOVED:
        return this.#regions.remove(device, reader.number(2), reader.number(4));
      case FEATURES:
        device.featuresAgreed(value | 0, reader.word(3) | 0);
        return true;
      case BYPASS:
        device.writeConfig(Uint8Array.of(value), CONFIG_BYPASS_OFFSET);
        return true;
      case QUEUE_BEGINS: {
        const sign = START_SIGNS[reader.word(3)];
        if (value >= QUEUES || sign === undefined) return false;
        device.queueBegins(value, sign);
        while (device.isRebuilding) device.work(this.#turn);
        return true;
      }
      case QUEUE_STARTED:
      case QUEUE_STOPPED:
        if (value >= QUEUES) return false;
        if (reader.kind === QUEUE_STOPPED) device.queueStopped(value);
        else device.queueStarted(value, this.#queue);
        return true;
      case RESET:
        if (RESET_KINDS[value] === undefined) return false;
        device.reset(RESET_KINDS[value]);
        return true;
      case SESSION_ENDS:
        device.sessionEnds();
        return true;
      case DISCONNECTED:
        device.disconnected();
        this.#isAbandoned = false;
        return true;
      default:
        // Times; what IOTLB listeners were told and answered, which changes no table.
        return true;
    }
  }

  /** Reads the rest of a saved state, and loads it. */
  #loadState(): boolean {
    const most = this.device.stateSizeMax;
    const bytes = readBytes(this.#reader, STATE, most, true);
    if (bytes === undefined) return this.#reader.isCut;
    this.device.loadState(bytes);
    return true;
  }
}

/**
 * Reads bytes that are in several records of a kind.
 *
 * @param most The most that there may be.
 * @param hasFirst Whether the first record has been read.
 * @returns Nothing if the file ends before, or something is wrong.
 */
function readBytes(
  reader: RecordingReader,
  kind: number,
  most: number,
  hasFirst = false,
): Uint8Array<ArrayBuffer> | undefined {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let left = 0;
  let length = 0;
  do {
    if ((pieces.length > 0 || !hasFirst) && !reader.next()) return undefined;
    const size = reader.kind === kind && reader.count > 2 ? reader.word(2) : -1;
    const isNext = pieces.length === 0 ? size <= most && size >= 0 : size === left;
    if (!isNext) return void reader.refuse();
    const piece = reader.bytesFrom(3).slice(0, size);
    if (piece.length === 0 && size > 0) return void reader.refuse();
    if (pieces.length === 0) length = size;
    pieces.push(piece);
    left = size - piece.length;
  } while (left > 0);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
