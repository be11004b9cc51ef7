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
import { READABLE_SIZES, type Status, T_MAP, T_PROBE, T_UNMAP, TAIL_SIZE } from "../iommu/wire.ts";
import type { ResetKind, StartSign } from "../virtio_device.ts";
import type { RecordBuffer } from "./record_buffer.ts";
import {
  ABANDONED,
  ACKNOWLEDGED,
  BYPASS,
  CHECK_SHIFT,
  checkOfSum,
  CONFIGURATION,
  COUNT_SHIFT,
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

/** Bytes of a MAP and of an UNMAP. */
const MAP_SIZE = READABLE_SIZES[T_MAP];
const UNMAP_SIZE = READABLE_SIZES[T_UNMAP];
/** Words of their records: the low words of addresses are in them in any case. */
const MAP_WORDS = 5;
const UNMAP_WORDS = 4;
const MAP_HEAD = REQUEST | (MAP_WORDS << COUNT_SHIFT);
const UNMAP_HEAD = REQUEST | (UNMAP_WORDS << COUNT_SHIFT);
const MAP_INFO = 1 << 2 | 1 << 4 | 1 << 6 | T_MAP << TYPE_SHIFT;
const UNMAP_INFO = 1 << 2 | 1 << 4 | T_UNMAP << TYPE_SHIFT;
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

  // Most requests are a MAP or an UNMAP that differs from the one before in its range and its frame only. They are recorded
  // here, without calls; all others, in `#request`.
  answered(request: Request, room: number, status: Status, used: number): void {
    const { type, length, words: sent } = request;
    const isMap = type === T_MAP;
    const delta = this.#now - this.#last;
    const isUsual = (isMap ? length === MAP_SIZE : type === T_UNMAP && length === UNMAP_SIZE) &&
      room === TAIL_SIZE && used === TAIL_SIZE && delta < LONG_DELTA && this.#pieces === 0;
    const before = this.#before;
    const base = type * READABLE_WORDS;
    if (
      !isUsual || sent[0] !== before[base] || sent[1] !== before[base + 1] ||
      sent[3] !== before[base + 3] || sent[5] !== before[base + 5] ||
      (isMap
        ? sent[7] !== before[base + 7] || sent[8] !== before[base + 8]
        : sent[6] !== before[base + 6])
    ) {
      this.#request(REQUEST, request, room, status, used, 0);
      return;
    }
    const buffer = this.#buffer;
    if (buffer.at + MAP_WORDS > buffer.end && !buffer.reserve(MAP_WORDS)) return;
    this.#last = this.#now;
    const { words, at } = buffer;
    const info = (isMap ? MAP_INFO : UNMAP_INFO) | (status << STATUS_SHIFT) |
      (delta << DELTA_SHIFT);
    const head = isMap ? MAP_HEAD : UNMAP_HEAD;
    const first = sent[2];
    const last = sent[4];
    let sum = (buffer.base + at + Math.imul(info, 3)) | 0;
    sum = (sum + Math.imul(first, 5) + Math.imul(last, 7)) | 0;
    before[base + 2] = first;
    before[base + 4] = last;
    words[at + 1] = info;
    words[at + 2] = first;
    words[at + 3] = last;
    buffer.at = at + UNMAP_WORDS;
    if (isMap) {
      const frame = sent[6];
      before[base + 6] = frame;
      words[at + 4] = frame;
      sum = (sum + Math.imul(frame, 9)) | 0;
      buffer.at = at + MAP_WORDS;
    }
    words[at] = head | (checkOfSum(sum, head) << CHECK_SHIFT);
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
      if (before[base + i] === word) continue;
      before[base + i] = word;
      info |= 1 << i;
      words[next++] = word;
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
