/**
 * Records what happens to a device, as `docs/recording.md` describes it.
 *
 * A request costs a few stores: the words of its readable part that are not those of the request of the same type before
 * it, and a check. Nothing here allocates on the way of a request, waits, or throws; where the buffer is full, the
 * recording is over.
 */
import type { MemoryRegion } from "../../vring/mod.ts";
import { PAGE_SIZE } from "../address.ts";
import type { ModelRecorder } from "../iommu/model_recorder.ts";
import type { Request } from "../iommu/request.ts";
import { READABLE_SIZES, type Status, T_PROBE, TAIL_SIZE } from "../iommu/wire.ts";
import type { ResetKind, StartSign } from "../virtio_device.ts";
import type { RecordBuffer } from "./record_buffer.ts";
import {
  ABANDONED,
  ACKNOWLEDGED,
  BYPASS,
  CONFIGURATION,
  DELTA_SHIFT,
  DISCONNECTED,
  DMA,
  ENDED,
  EXPECTED,
  FAULT,
  FEATURES,
  HEAD_WORDS,
  INVALIDATED,
  LONG_DELTA,
  MAGIC,
  MEMORY_ADDED,
  MEMORY_REMOVED,
  MOST_REQUEST_WORDS,
  PIECES,
  QUEUE_BEGINS,
  QUEUE_STARTED,
  QUEUE_STOPPED,
  READABLE_WORDS,
  RECORD_WORDS,
  REQUEST,
  RESET,
  RESET_KINDS,
  seal,
  SESSION_ENDS,
  START_SIGNS,
  STATE,
  STATUS_SHIFT,
  TIME,
  TYPE_SHIFT,
  UNUSUAL,
  VERSION,
} from "./wire.ts";

const MICROSECONDS = 1000;
const WORD = 2 ** 32;
/** Pages in 2^32 bytes. */
const PAGES_PER_WORD = WORD / PAGE_SIZE;

/** Records the life of one device. */
export class Recorder implements ModelRecorder {
  readonly #buffer: RecordBuffer;
  readonly #epoch: number;
  /** Microseconds from the epoch to what happens now, and to the record before. */
  #now = 0;
  #last = 0;
  /** Pieces that were given back since the record before. */
  #pieces = 0;
  /** The words of the last request of each type. */
  readonly #before = new Int32Array((T_PROBE + 1) * READABLE_WORDS);

  /**
   * Begins a recording.
   *
   * @param configuration Its first record; see `configuration.ts`.
   * @param now Milliseconds, as `performance.now()` gives them.
   */
  constructor(buffer: RecordBuffer, configuration: string, now: number) {
    this.#buffer = buffer;
    this.#epoch = now;
    if (buffer.reserve(HEAD_WORDS)) {
      buffer.words.set([...MAGIC, VERSION, 0], buffer.at);
      buffer.at += HEAD_WORDS;
    }
    buffer.putBytes(CONFIGURATION, new TextEncoder().encode(configuration), 0);
  }

  /** Says when what follows happens: milliseconds, as `performance.now()` gives them. */
  setTime(milliseconds: number): void {
    const now = Math.floor((milliseconds - this.#epoch) * MICROSECONDS);
    if (now > this.#now) this.#now = now;
  }

  answered(request: Request, room: number, status: Status, used: number): void {
    this.#request(REQUEST, request, room, status, used, 0);
  }

  abandoned(request: Request, room: number, pieces: number): void {
    this.#request(ABANDONED, request, room, 0, 0, pieces);
  }

  gaveBack(): void {
    this.#pieces++;
  }

  invalidated(endpoint: number, firstPage: number, lastPage: number): void {
    if (!this.#begin(INVALIDATED)) return;
    this.#put(0, endpoint);
    this.#putPage(1, firstPage, 0);
    this.#putPage(3, lastPage, PAGE_SIZE - 1);
    this.#end(INVALIDATED);
  }

  expected(): void {
    this.#putOne(EXPECTED, 1);
  }

  acknowledged(count: number): void {
    this.#putOne(ACKNOWLEDGED, count);
  }

  /** Guest memory is added, or removed: where, not what is in it. */
  memory(isAdded: boolean, { guestAddress, size }: MemoryRegion): void {
    const kind = isAdded ? MEMORY_ADDED : MEMORY_REMOVED;
    if (!this.#begin(kind)) return;
    this.#putNumber(0, guestAddress);
    this.#putNumber(2, size);
    this.#end(kind);
  }

  /** The driver has accepted features. */
  features(low: number, high: number): void {
    if (!this.#begin(FEATURES)) return;
    this.#put(0, low);
    this.#put(1, high);
    this.#end(FEATURES);
  }

  /** The driver writes the bypass byte. */
  bypass(value: number): void {
    this.#putOne(BYPASS, value);
  }

  /** A queue is about to run for the first time in a session. */
  queueBegins(index: number, sign: StartSign): void {
    if (!this.#begin(QUEUE_BEGINS)) return;
    this.#put(0, index);
    this.#put(1, START_SIGNS.indexOf(sign));
    this.#end(QUEUE_BEGINS);
  }

  /** A queue runs, or stops. */
  queue(index: number, isStarted: boolean): void {
    this.#putOne(isStarted ? QUEUE_STARTED : QUEUE_STOPPED, index);
  }

  /** The device starts over. */
  reset(kind: ResetKind): void {
    this.#putOne(RESET, RESET_KINDS.indexOf(kind));
  }

  /** The session is about to end, or has ended. */
  session(isOver: boolean): void {
    const kind = isOver ? DISCONNECTED : SESSION_ENDS;
    if (this.#begin(kind)) this.#end(kind);
  }

  /** A saved state is loaded. Its bytes must not change any more. */
  state(bytes: Uint8Array): void {
    this.#flush();
    this.#buffer.putBytes(STATE, bytes, this.#delta());
  }

  /** An access of an endpoint is refused. */
  fault(endpoint: number, page: number, offset: number, access: number): void {
    if (!this.#begin(FAULT)) return;
    this.#put(0, endpoint);
    this.#putPage(1, page, offset);
    this.#put(3, access);
    this.#end(FAULT);
  }

  /**
   * A page was translated for an access of an endpoint.
   *
   * @param frame Where it leads to; -1 if the access is a fault.
   * @param fault Why, if it is; see `FAULT_NAMES`.
   */
  translated(endpoint: number, page: number, access: number, frame: number, fault: number): void {
    if (!this.#begin(DMA)) return;
    this.#put(0, endpoint);
    this.#putPage(1, page, 0);
    this.#put(3, access | (fault << 8));
    this.#putPage(4, frame < 0 ? 0 : frame, 0);
    this.#end(DMA);
  }

  /** Ends the recording in order. */
  end(): void {
    this.#flush();
    this.#buffer.finish(ENDED, this.#delta());
  }

  #request(
    kind: number,
    request: Request,
    room: number,
    status: number,
    used: number,
    pieces: number,
  ): void {
    if (this.#pieces > 0 || this.#now - this.#last >= WORD) this.#flush();
    const buffer = this.#buffer;
    if (!buffer.reserve(MOST_REQUEST_WORDS)) return;
    const { type, length, words: sent } = request;
    const { words, at } = buffer;
    const delta = this.#delta();
    let next = at + 2;
    let info = (type << TYPE_SHIFT) | (status << STATUS_SHIFT);
    if (delta < LONG_DELTA) {
      info |= delta << DELTA_SHIFT;
    } else {
      info |= LONG_DELTA << DELTA_SHIFT;
      words[next++] = delta;
    }
    const isUsual = room === TAIL_SIZE && used === TAIL_SIZE && type !== T_PROBE &&
      length === READABLE_SIZES[type];
    if (!isUsual) {
      info |= UNUSUAL;
      words[next++] = length;
      words[next++] = room;
      words[next++] = used;
    }
    const before = this.#before;
    const base = type * READABLE_WORDS;
    for (let i = 0; i * 4 < length; i++) {
      const left = length - i * 4;
      // Behind the request's end are bytes of an earlier one.
      const word = left >= 4 ? sent[i] : sent[i] & ((1 << (left * 8)) - 1);
      const change = before[base + i] ^ word;
      if (change === 0) continue;
      before[base + i] = word;
      info |= 1 << i;
      words[next++] = change;
    }
    if (kind === ABANDONED) words[next++] = pieces;
    words[at + 1] = info;
    seal(words, at, kind, next - at, buffer.position);
    buffer.at = next;
  }

  /** Records what has been gathered, and the time if it does not fit into a record. */
  #flush(): void {
    const pieces = this.#pieces;
    this.#pieces = 0;
    if (pieces > 0) this.#putOne(PIECES, pieces);
    const delta = this.#now - this.#last;
    const buffer = this.#buffer;
    if (delta < WORD || !buffer.reserve(RECORD_WORDS[TIME])) return;
    this.#last = this.#now;
    this.#putNumber(-1, delta);
    seal(buffer.words, buffer.at, TIME, RECORD_WORDS[TIME], buffer.position);
    buffer.at += RECORD_WORDS[TIME];
  }

  /** Microseconds since the record before. */
  #delta(): number {
    const delta = this.#now - this.#last;
    this.#last = this.#now;
    return delta;
  }

  /** Begins a record of fixed size. Returns false if the recording is over. */
  #begin(kind: number): boolean {
    if (this.#pieces > 0 || this.#now - this.#last >= WORD) this.#flush();
    const buffer = this.#buffer;
    if (!buffer.reserve(RECORD_WORDS[kind])) return false;
    buffer.words[buffer.at + 1] = this.#delta();
    return true;
  }

  /** Ends a record of fixed size whose words are there. */
  #end(kind: number): void {
    const buffer = this.#buffer;
    const count = RECORD_WORDS[kind];
    seal(buffer.words, buffer.at, kind, count, buffer.position);
    buffer.at += count;
  }

  #putOne(kind: number, value: number): void {
    if (!this.#begin(kind)) return;
    this.#put(0, value);
    this.#end(kind);
  }

  /** Puts a word behind the time of the record that was begun. */
  #put(i: number, value: number): void {
    this.#buffer.words[this.#buffer.at + 2 + i] = value;
  }

  /** Puts a number of 64 bits. */
  #putNumber(i: number, value: number): void {
    this.#put(i, value % WORD);
    this.#put(i + 1, Math.floor(value / WORD));
  }

  /** Puts a byte address. */
  #putPage(i: number, page: number, offset: number): void {
    this.#put(i, page % PAGES_PER_WORD * PAGE_SIZE + offset);
    this.#put(i + 1, Math.floor(page / PAGES_PER_WORD));
  }
}
