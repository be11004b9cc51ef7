/**
 * The guest of a warm-up: a driver on a real ring that probes, attaches, maps, unmaps and detaches.
 *
 * It is a poll source of the loop, so it runs between two looks at the ring, in the same thread. Sometimes it sends one
 * request and waits for it, as a guest does that maps page by page; mostly it fills the ring, which is faster.
 */
import type { DriverQueue } from "../../vring/mod.ts";
import type { PollSource } from "../poll_source.ts";
import { putRange, putTarget, writableSize } from "../iommu/driver_requests.ts";
import {
  MAP_F_READ,
  MAP_F_WRITE,
  READABLE_SIZES,
  S_OK,
  T_ATTACH,
  T_DETACH,
  T_MAP,
  T_PROBE,
  T_UNMAP,
  TAIL_SIZE,
} from "../iommu/wire.ts";

/** Mappings that there are at once; a power of two. */
const LIVE = 1024;
/** Most requests in the ring at once. */
const MOST_AT_ONCE = 60;
/** One time in so many, a single request is sent. */
const SINGLE = 4;
/** Bytes of guest memory for a request: the readable part, and the tail `TAIL` bytes on. */
const ROOM = 128;
const TAIL = 96;
/** Where the answer to a PROBE goes, which is larger. */
const PROBE_ANSWER = MOST_AT_ONCE * ROOM;
/** The first mapping's number; a mapping begins at its number times its size. */
const FIRST = 0x10000;
/** Granules of guest memory that mappings lead to. */
const FRAMES = 16;
/** Granules of each mapping of a round, in turn: mostly one, as with a guest, and once what fills a table. */
const SPANS = [1, 1, 1, 3, 1, 512];
/** Looks in a row without an answer after which there will be none: some seconds. */
const MOST_LOOKS = 1_000_000;

/** A piece of guest memory for requests. */
export interface RequestMemory {
  /** Its bytes. */
  readonly buffer: ArrayBuffer;
  /** Guest address of its first byte. */
  readonly address: number;
}

/** What a driver does. */
export interface WarmUpPlan {
  /** Where requests are written, in each piece in turn. */
  readonly memory: readonly RequestMemory[];
  /** Endpoints, each attached to a domain of its own, one after the other. */
  readonly endpoints: readonly number[];
  /** Pages of the smallest mapping. */
  readonly granulePages: number;
  /** Bytes of an endpoint's properties. */
  readonly probeSize: number;
  /** Times that all mappings of a domain are made and removed. */
  readonly rounds: number;
  /** Requests after which the driver takes a break: see {@linkcode WarmUpDriver.onBreak}. */
  readonly breakAfter: number;
}

/** A driver on a ring. */
export class WarmUpDriver implements PollSource {
  readonly name = "warm-up";
  onDue: () => void = () => {};
  readonly mustPoll = false;
  /** Called when everything sent was answered, and nothing more is sent before {@linkcode begin}. */
  onBreak: () => void = () => {};
  /** Requests that there are altogether. */
  readonly total: number;
  /** Requests that were answered with OK. */
  succeeded = 0;

  readonly #driver: DriverQueue;
  readonly #plan: WarmUpPlan;
  readonly #words: readonly Int32Array[];
  /** PROBE, ATTACH, the MAPs and UNMAPs of all rounds, DETACH. */
  readonly #perEndpoint: number;
  /** Requests sent. */
  #sent = 0;
  /** How often some were sent. */
  #turns = 0;
  #nextBreak: number;
  /** Which piece of memory the requests in the ring are in, and the word of each one's tail. */
  #piece = 0;
  readonly #tails = new Int32Array(MOST_AT_ONCE);
  #inRing = 0;
  /** Looks since the last answers. */
  #looks = 0;

  /** A driver that has sent nothing yet. */
  constructor(driver: DriverQueue, plan: WarmUpPlan) {
    this.#driver = driver;
    this.#plan = plan;
    this.#words = plan.memory.map(({ buffer }) => new Int32Array(buffer));
    this.#perEndpoint = 3 + 2 * LIVE * plan.rounds;
    this.total = this.#perEndpoint * plan.endpoints.length;
    this.#nextBreak = plan.breakAfter;
  }

  /** Whether all requests were answered. */
  get isDone(): boolean {
    return this.#sent === this.total && this.#inRing === 0;
  }

  /** Shows the device the next requests, without notifying it. */
  begin(): void {
    this.#piece = this.#turns % this.#words.length;
    const most = this.#turns % SINGLE === 0 ? 1 : MOST_AT_ONCE;
    this.#turns++;
    while (this.#inRing < most && this.#sent < this.total) this.#send();
    this.#driver.kick();
  }

  /** Collects answers; when all are there, sends what comes next or takes a break. */
  serve(): boolean {
    const driver = this.#driver;
    while (driver.reap());
    if (driver.inFlight > 0) {
      if (++this.#looks === MOST_LOOKS) {
        throw new Error("Cannot warm up: a request is not answered");
      }
      return true;
    }
    this.#looks = 0;
    this.#count();
    if (this.isDone || this.#sent >= this.#nextBreak) {
      this.#nextBreak += this.#plan.breakAfter;
      this.onBreak();
      return false;
    }
    this.begin();
    return true;
  }

  addTo(): void {}

  look(): void {}

  setNotifications(): boolean {
    return false;
  }

  endSession(): void {}

  close(): void {}

  /** Counts the requests in the ring that succeeded, and forgets them. */
  #count(): void {
    const words = this.#words[this.#piece];
    for (let i = 0; i < this.#inRing; i++) {
      if ((words[this.#tails[i]] & 0xff) === S_OK) this.succeeded++;
    }
    this.#inRing = 0;
  }

  /** Puts the next request into the ring. */
  #send(): void {
    const { memory, probeSize } = this.#plan;
    const words = this.#words[this.#piece];
    const place = this.#inRing++;
    const step = this.#sent % this.#perEndpoint;
    const type = this.#typeOf(step);
    const readable = place * ROOM;
    const writable = type === T_PROBE ? PROBE_ANSWER : readable + TAIL;
    const size = writableSize(type, probeSize);
    this.#tails[place] = (writable + size - TAIL_SIZE) / 4;
    words[this.#tails[place]] = -1;
    this.#write(words, readable / 4, type, step);
    this.#sent++;
    const { address } = memory[this.#piece];
    this.#driver.begin();
    this.#driver.addReadable(address + readable, READABLE_SIZES[type]);
    this.#driver.addWritable(address + writable, size);
    this.#driver.commit();
  }

  #typeOf(step: number): number {
    if (step === 0) return T_PROBE;
    if (step === 1) return T_ATTACH;
    if (step === this.#perEndpoint - 1) return T_DETACH;
    return (step - 2) % (2 * LIVE) < LIVE ? T_MAP : T_UNMAP;
  }

  /** Writes the readable part of a request, whose words are those of `struct virtio_iommu_req_*`. */
  #write(words: Int32Array, at: number, type: number, step: number): void {
    const index = (this.#sent - step) / this.#perEndpoint;
    const endpoint = this.#plan.endpoints[index];
    words.fill(0, at, at + TAIL / 4);
    if (type !== T_MAP && type !== T_UNMAP) {
      words[at] = type;
      words[at + 1] = type === T_PROBE ? endpoint : index + 1;
      if (type !== T_PROBE) words[at + 2] = endpoint;
      return;
    }
    const round = Math.floor((step - 2) / (2 * LIVE));
    const within = (step - 2) % LIVE;
    // In order, or scattered: an odd multiplier visits each residue of a power of two once.
    const number = round % 2 === 0 ? within : within * 0x9e37 % LIVE;
    const pages = SPANS[round % SPANS.length] * this.#plan.granulePages;
    const firstPage = (FIRST + number) * pages;
    putRange(words, at, type, index + 1, firstPage, firstPage + pages - 1);
    if (type === T_UNMAP) return;
    putTarget(words, at, number % FRAMES * this.#plan.granulePages, MAP_F_READ | MAP_F_WRITE);
  }
}
