/**
 * What happened to the guest's requests and accesses last: refused requests with the reason, faults with the path to the
 * entry that refused, endpoints that were attached and detached, resets.
 *
 * Both are kept in rings of {@linkcode EVENTS_KEPT}, faults in one of their own, so that a storm of faults does not push
 * the refused requests out. Recording allocates nothing; a reader gets objects.
 */
import { type DescribedEntry, describePath, READ, WalkResult, WRITE } from "../../pagetable/mod.ts";
import { addressText } from "../address.ts";
import { type RefusalKey, REFUSALS, type RequestField } from "./refusals.ts";
import type { Request } from "./request.ts";
import { REQUEST_NAMES, type Status, STATUS_NAMES } from "./wire.ts";

/** How many faults are kept, and how many of everything else. */
export const EVENTS_KEPT = 256;
/** Entries of a path that are kept: device tables and five levels. */
const PATH_KEPT = 16;

/** What every event has. */
export interface EventHead {
  /** Its number, from 1 on; a gap means that events between are not kept any more. */
  readonly number: number;
  /** When, in milliseconds since 1970. */
  readonly time: number;
}

/** A request that was refused. */
export interface RefusedEvent extends EventHead {
  /**
   * A request was refused. */
  readonly kind: "refused";
  /** Name of the request type. */
  readonly request: string;
  /** Name of the status that answered it. */
  readonly status: string;
  /** Number of the requirement in `docs/conformance.md`; null where the specification has none of its own. */
  readonly statement: string | null;
  /** What is wrong, in a clause. */
  readonly reason: string;
  /** The fields that it is about, by their names in the specification: numbers, and addresses as texts. */
  readonly values: Readonly<Partial<Record<RequestField, number | string>>>;
}

/** An access of an endpoint that was refused. */
export interface FaultEvent extends EventHead {
  /** An access was refused. */
  readonly kind: "fault";
  /** Endpoint id. */
  readonly endpoint: number;
  /** The byte address. */
  readonly address: string;
  /** `r`, `w` or `rw`. */
  readonly access: string;
  /** Why, in a word; `no-memory` where the translation leads to no memory. */
  readonly reason: string;
  /** The hardware's own code. */
  readonly code: string;
  /** Format of the endpoint's tables. */
  readonly format: string;
  /** Every entry read; the last one is the one that refused, if any was read. */
  readonly path: readonly DescribedEntry[];
}

/** An endpoint that was attached or detached by a request. */
export interface AttachmentEvent extends EventHead {
  /** Which of the two. */
  readonly kind: "attach" | "detach";
  /** Endpoint id. */
  readonly endpoint: number;
  /** The domain that the request names. */
  readonly domain: number;
}

/** All endpoints were detached by a reset. */
export interface ResetEvent extends EventHead {
  /** There was a reset. */
  readonly kind: "reset";
}

/** An event of a device. */
export type DeviceEvent = RefusedEvent | FaultEvent | AttachmentEvent | ResetEvent;

const REFUSED = 0;
const FAULT = 1;
const ATTACH = 2;
const DETACH = 3;
const RESET = 4;

/** The events of one device. */
export class DeviceEvents {
  /** Called when something was recorded. */
  onEvent: (() => void) | undefined;
  #last = 0;
  /** Slots `[0, EVENTS_KEPT)` are of everything but faults, which have those behind. */
  readonly #kind = new Uint8Array(2 * EVENTS_KEPT);
  readonly #number = new Float64Array(2 * EVENTS_KEPT);
  readonly #time = new Float64Array(2 * EVENTS_KEPT);
  /** Of requests: type, status, domain, endpoint, flags. Of faults: access, endpoint. */
  readonly #type = new Uint8Array(2 * EVENTS_KEPT);
  readonly #status = new Uint8Array(2 * EVENTS_KEPT);
  readonly #domain = new Uint32Array(2 * EVENTS_KEPT);
  readonly #endpoint = new Uint32Array(2 * EVENTS_KEPT);
  readonly #flags = new Uint32Array(2 * EVENTS_KEPT);
  /** Pages and offsets of virt_start, virt_end and phys_start; of a fault, its address in the place of the first. */
  readonly #pages = new Float64Array(2 * EVENTS_KEPT * 3);
  readonly #offsets = new Uint16Array(2 * EVENTS_KEPT * 3);
  readonly #refusal: RefusalKey[] = new Array(EVENTS_KEPT).fill("device");
  readonly #format: string[] = new Array(EVENTS_KEPT).fill("");
  /** The walk of each fault; made when its slot is first used. */
  readonly #walks: (KeptWalk | undefined)[] = new Array(EVENTS_KEPT).fill(undefined);
  #others = 0;
  #faults = 0;

  /** Number of the last event; 0 before the first. */
  get last(): number {
    return this.#last;
  }

  /** A request was refused.
   *
   * @internal
   */
  refused(request: Request, status: Status, key: RefusalKey): void {
    const slot = this.#next(REFUSED);
    this.#takeRequest(slot, request);
    this.#status[slot] = status;
    this.#refusal[slot] = key;
    this.onEvent?.();
  }

  /**
   * A request has attached an endpoint.
   *
   * @internal
   */
  attached(request: Request): void {
    this.#takeRequest(this.#next(ATTACH), request);
    this.onEvent?.();
  }

  /**
   * A request has detached an endpoint.
   *
   * @internal
   */
  detached(request: Request): void {
    this.#takeRequest(this.#next(DETACH), request);
    this.onEvent?.();
  }

  /** A reset has detached all endpoints. */
  reset(): void {
    this.#next(RESET);
    this.onEvent?.();
  }

  /**
   * An access was refused.
   *
   * @param offset Bits 11:0 of the address.
   * @param walk The walk that refused it, or that led to no memory.
   */
  fault(
    endpoint: number,
    format: string,
    page: number,
    offset: number,
    access: number,
    walk: WalkResult,
  ): void {
    const slot = this.#next(FAULT);
    const at = slot - EVENTS_KEPT;
    this.#endpoint[slot] = endpoint;
    this.#type[slot] = access;
    this.#pages[slot * 3] = page;
    this.#offsets[slot * 3] = offset;
    this.#format[at] = format;
    (this.#walks[at] ??= new KeptWalk()).take(walk);
    this.onEvent?.();
  }

  /** The events behind number `after` that are still kept, by number. */
  *since(after: number): Generator<DeviceEvent, void> {
    for (let number = after; number < this.#last;) {
      const slot = this.#firstBehind(number);
      if (slot < 0) return;
      number = this.#number[slot];
      yield this.#event(slot);
    }
  }

  /** Begins an event. Returns its slot. */
  #next(kind: number): number {
    const slot = kind === FAULT
      ? EVENTS_KEPT + this.#faults++ % EVENTS_KEPT
      : this.#others++ % EVENTS_KEPT;
    this.#kind[slot] = kind;
    this.#number[slot] = ++this.#last;
    this.#time[slot] = Date.now();
    return slot;
  }

  #takeRequest(slot: number, request: Request): void {
    this.#type[slot] = request.type;
    this.#domain[slot] = request.domain;
    this.#endpoint[slot] = request.endpoint;
    this.#flags[slot] = request.flags;
    const at = slot * 3;
    this.#pages[at] = request.virtStartPage;
    this.#offsets[at] = request.virtStartOffset;
    this.#pages[at + 1] = request.virtEndPage;
    this.#offsets[at + 1] = request.virtEndOffset;
    this.#pages[at + 2] = request.physStartFrame;
    this.#offsets[at + 2] = request.physStartOffset;
  }

  /** The slot of the first event behind a number; -1 if there is none. */
  #firstBehind(number: number): number {
    let found = -1;
    for (let slot = 0; slot < 2 * EVENTS_KEPT; slot++) {
      const each = this.#number[slot];
      if (each > number && (found < 0 || each < this.#number[found])) found = slot;
    }
    return found;
  }

  #event(slot: number): DeviceEvent {
    const head = { number: this.#number[slot], time: this.#time[slot] };
    switch (this.#kind[slot]) {
      case REFUSED:
        return { ...head, kind: "refused", ...this.#refusedRequest(slot) };
      case FAULT:
        return { ...head, kind: "fault", ...this.#refusedAccess(slot) };
      case RESET:
        return { ...head, kind: "reset" };
      default: {
        const kind = this.#kind[slot] === ATTACH ? "attach" : "detach";
        return { ...head, kind, endpoint: this.#endpoint[slot], domain: this.#domain[slot] };
      }
    }
  }

  #refusedRequest(slot: number): Omit<RefusedEvent, "kind" | keyof EventHead> {
    const key = this.#refusal[slot];
    const { text, fields } = REFUSALS[key];
    return {
      request: REQUEST_NAMES[this.#type[slot]],
      status: STATUS_NAMES[this.#status[slot]],
      statement: /^[A-Z]\d+$/.test(key) ? key : null,
      reason: text,
      values: Object.fromEntries(fields.map((field) => [field, this.#field(slot, field)])),
    };
  }

  #field(slot: number, field: RequestField): number | string {
    switch (field) {
      case "domain":
        return this.#domain[slot];
      case "endpoint":
        return this.#endpoint[slot];
      case "flags":
        return `0x${this.#flags[slot].toString(16)}`;
      default: {
        const at = slot * 3 + ["virt_start", "virt_end", "phys_start"].indexOf(field);
        return addressText(this.#pages[at], this.#offsets[at]);
      }
    }
  }

  #refusedAccess(slot: number): Omit<FaultEvent, "kind" | keyof EventHead> {
    const at = slot - EVENTS_KEPT;
    const walk = this.#walks[at]!.asResult();
    const access = this.#type[slot];
    return {
      endpoint: this.#endpoint[slot],
      address: addressText(this.#pages[slot * 3], this.#offsets[slot * 3]),
      access: ((access & READ) !== 0 ? "r" : "") + ((access & WRITE) !== 0 ? "w" : ""),
      reason: walk.ok ? "no-memory" : walk.faultName,
      code: `0x${(walk.ok ? 0 : walk.faultCode).toString(16)}`,
      format: this.#format[at],
      path: describePath(this.#format[at], walk),
    };
  }
}

/** What is kept of a walk. */
class KeptWalk {
  #ok = false;
  #fault = 0;
  #faultCode = 0;
  #depth = 0;
  readonly #stage = new Uint8Array(PATH_KEPT);
  readonly #level = new Int32Array(PATH_KEPT);
  readonly #frame = new Float64Array(PATH_KEPT);
  readonly #index = new Int32Array(PATH_KEPT);
  readonly #low = new Int32Array(PATH_KEPT);
  readonly #high = new Int32Array(PATH_KEPT);

  /** Copies what is worth keeping. */
  take(walk: WalkResult): void {
    this.#ok = walk.ok;
    this.#fault = walk.fault;
    this.#faultCode = walk.faultCode;
    this.#depth = Math.min(walk.depth, PATH_KEPT);
    for (let at = 0; at < this.#depth; at++) {
      this.#stage[at] = walk.pathStage[at];
      this.#level[at] = walk.pathLevel[at];
      this.#frame[at] = walk.pathFrame[at];
      this.#index[at] = walk.pathIndex[at];
      this.#low[at] = walk.pathLow[at];
      this.#high[at] = walk.pathHigh[at];
    }
  }

  /** The walk as it was, as far as it is kept. */
  asResult(): WalkResult {
    const walk = new WalkResult();
    walk.clear();
    walk.ok = this.#ok;
    walk.fault = this.#fault;
    walk.faultCode = this.#faultCode;
    for (let at = 0; at < this.#depth; at++) {
      walk.push(
        this.#stage[at],
        this.#level[at],
        this.#frame[at],
        this.#index[at],
        this.#low[at],
        this.#high[at],
      );
    }
    return walk;
  }
}
