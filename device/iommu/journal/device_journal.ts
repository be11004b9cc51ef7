/**
 * The journal of one device: replayed by a new one, which writes it from the moment it takes over.
 *
 * The device tells it of everything that changes its state besides requests; those are entered by `request_journal.ts`. Without
 * {@linkcode DeviceJournal.takeOver} nothing is entered.
 */
import type { MemoryRegion, PositionRecord } from "../../../vring/mod.ts";
import type { ResetKind, StartSign } from "../../virtio_device.ts";
import { pagesOf } from "../guest_ram.ts";
import type { IotlbListeners } from "../iotlb_listeners.ts";
import type { RequestQueue } from "../request_queue.ts";
import type { Requests } from "../requests.ts";
import { REQUEST_QUEUE } from "../wire.ts";
import { Answers } from "./answers.ts";
import {
  Entry,
  ENTRY_BYPASS,
  ENTRY_DISCONNECTED,
  ENTRY_FRESH,
  ENTRY_LOADED,
  ENTRY_QUEUE_BEGINS,
  ENTRY_QUEUE_STARTED,
  ENTRY_REGION,
  ENTRY_REGION_ADDED,
  ENTRY_REGION_REMOVED,
  ENTRY_RESET,
  type Journal,
} from "./journal.ts";
import {
  bypassFlags,
  FRESH_STATES,
  REMOVED_UNMAPPED,
  Replay,
  RESET_KINDS,
  START_SIGNS,
} from "./replay.ts";
import { RequestJournal } from "./request_journal.ts";
import { readSnapshot, sequenceOf, type SnapshotParts, writeSnapshot } from "./snapshot.ts";

/** Part of the journal's room that requests leave for everything else. */
const RESERVED_PART = 1 / 4;
/** Part of the journal that is used when a snapshot is wanted. */
const SNAPSHOT_PART = 1 / 2;

/** What a device gives to its journal. */
export interface DeviceJournalParts extends SnapshotParts {
  /** Executes requests. */
  readonly requests: Requests;
  /** Takes them, and shows their answers. */
  readonly requestQueue: RequestQueue;
  /** What keeps translations. */
  readonly iotlbListeners: IotlbListeners;
  /** Whether tables hold host frames: another process has other ones, so it cannot replay what leads to them. */
  readonly holdsHostFrames: boolean;
  /** Whether something is in the middle of being done. */
  readonly isBusy: () => boolean;
}

/** The journal of one device. */
export class DeviceJournal {
  readonly #parts: DeviceJournalParts;
  readonly #entry = new Entry();
  readonly #answers = new Answers();
  readonly #replay: Replay;
  /** What was replayed last, and the sequence number of the next entry to be replayed. */
  #replayed: Journal | undefined;
  #next = 0;
  /** Whether nothing has ever been entered into it. */
  #isNew = false;
  /** What is written. */
  #journal: Journal | undefined;
  #requestJournal: RequestJournal | undefined;
  /** Whether a state was loaded that is in no snapshot yet. */
  #mustKeepLoaded = false;

  /**
   * A journal that is not there yet.
   *
   * @internal
   */
  constructor(parts: DeviceJournalParts) {
    this.#parts = parts;
    this.#replay = new Replay(parts, this.#answers);
  }

  /** The journal that is written; undefined before {@linkcode takeOver}. */
  get written(): Journal | undefined {
    return this.#journal;
  }

  /** Where the record of a queue's position is, if a journal is written. */
  record(index: number): PositionRecord | undefined {
    return this.#journal?.record(index);
  }

  /** Whether it is time for a snapshot, after which entries can be forgotten. */
  get wantsSnapshot(): boolean {
    const journal = this.#journal ?? this.#replayed;
    return this.mustSnapshot ||
      (journal !== undefined && journal.length > journal.capacity * SNAPSHOT_PART);
  }

  /** Whether neither requests nor messages are served before there is one. */
  get mustSnapshot(): boolean {
    const journal = this.#journal;
    return this.#mustKeepLoaded ||
      (journal !== undefined && journal.room <= journal.capacity * RESERVED_PART);
  }

  /** Whether a snapshot can be taken: nothing is in the middle of being done, and every request is answered. */
  get canSnapshot(): boolean {
    if (this.#parts.isBusy()) return false;
    if (this.#requestJournal !== undefined) return this.#requestJournal.isAnswered;
    const { last } = this.#answers;
    const current = this.#replayed?.record(REQUEST_QUEUE).current ?? 0;
    return last < 0 || ((last - current) | 0) <= 0;
  }

  /**
   * Makes the device what a journal says. It must be new, and have neither memory nor queues; called again, it goes on with
   * what was added meanwhile.
   *
   * @param snapshot The last one that was kept, if there is one. Not looked at again.
   * @returns One line if it cannot be replayed, which is so for no journal that this program wrote with the same options; the
   * device cannot be used then.
   */
  replay(journal: Journal, snapshot?: Uint8Array): string | undefined {
    if (this.#replayed !== journal) {
      const problem = this.#begin(journal, snapshot);
      if (problem !== undefined) return problem;
    }
    const end = journal.read(this.#next, (entry) => this.#replay.apply(entry));
    if (typeof end === "string") return end;
    this.#next = end;
    return undefined;
  }

  /**
   * Replays the rest and goes on from there: from now on the device enters what it does, and no other may.
   *
   * @param snapshot As in {@linkcode replay}.
   * @returns As {@linkcode replay}.
   */
  takeOver(journal: Journal, snapshot?: Uint8Array): string | undefined {
    const { requests, requestQueue, lives } = this.#parts;
    const problem = this.replay(journal, snapshot);
    if (problem !== undefined) return problem;
    this.#journal = journal;
    const record = journal.record(REQUEST_QUEUE);
    const reserve = journal.capacity * RESERVED_PART;
    this.#requestJournal = new RequestJournal(journal, record, this.#answers, reserve);
    requests.journal = this.#requestJournal;
    requestQueue.journal = this.#requestJournal;
    if (this.#isNew) this.#writeFresh();
    // Other processes may have translations of which nothing is known.
    lives.tellAll();
    return undefined;
  }

  /** The device as bytes. Only if {@linkcode canSnapshot}. */
  takeSnapshot(): Uint8Array<ArrayBuffer> {
    return writeSnapshot(this.#parts, this.#journal?.tail ?? this.#next);
  }

  /**
   * A snapshot is kept where the next process finds it: what is in it is forgotten.
   *
   * @throws {Error} If it is not one of this journal.
   */
  snapshotKept(snapshot: Uint8Array): void {
    const journal = this.#journal;
    const sequence = sequenceOf(snapshot);
    if (journal === undefined || typeof sequence === "string") {
      throw new Error(`Cannot compact the journal: ${sequence}`);
    }
    // A reset may have made void more than that meanwhile.
    if (((sequence - journal.head) | 0) > 0) journal.forgetBefore(sequence);
    this.#mustKeepLoaded = false;
  }

  /**
   * Whether memory that is added is what an earlier process had; if it takes the place of such memory, that is removed.
   */
  claims(region: MemoryRegion): boolean {
    const { ram, lives } = this.#parts;
    if (this.#journal === undefined) return false;
    if (ram.claim(region)) return true;
    const { first, last } = pagesOf(region);
    for (const { firstIndex, lastIndex } of ram.unclaimedIn(first, last)) {
      lives.memoryChanged();
      ram.removePages(firstIndex, lastIndex);
      this.#addRegion(ENTRY_REGION_REMOVED, firstIndex, lastIndex);
    }
    return false;
  }

  /** Memory was added that {@linkcode claims} does not know. */
  memoryAdded(region: MemoryRegion): void {
    const { first, last } = pagesOf(region);
    if (last >= first) this.#addRegion(ENTRY_REGION_ADDED, first, last);
  }

  /** Memory was removed. */
  memoryRemoved(region: MemoryRegion): void {
    const { first, last } = pagesOf(region);
    const flags = this.#parts.ram.unmapsRemoved ? REMOVED_UNMAPPED : 0;
    if (last >= first) this.#addRegion(ENTRY_REGION_REMOVED, first, last, flags);
  }

  /** The bypass byte was written. */
  bypassWritten(): void {
    this.#add(ENTRY_BYPASS, bypassFlags(this.#parts.config), 0);
  }

  /** The device was reset. */
  reset(kind: ResetKind): void {
    this.#add(ENTRY_RESET, RESET_KINDS.indexOf(kind), 0);
    this.#requestJournal?.forget();
    this.#voidIfFresh();
  }

  /** The connection has ended. */
  disconnected(): void {
    this.#add(ENTRY_DISCONNECTED, 0, 0);
    this.#requestJournal?.forget();
  }

  /** A queue is about to start for the first time. */
  queueBegins(index: number, sign: StartSign): void {
    this.#add(ENTRY_QUEUE_BEGINS, START_SIGNS.indexOf(sign), index);
    this.#voidIfFresh();
  }

  /** A queue has started at its base, or somewhere else in the middle of a session. */
  queueStarted(index: number): void {
    this.#add(ENTRY_QUEUE_STARTED, 0, index);
    if (index === REQUEST_QUEUE) this.#requestJournal?.forget();
  }

  /**
   * The request queue stops. When it started, what a driver had written early ended; but the message that started it may have been
   * served again, for which that counted. So this is entered only now, unless a request has shown it.
   */
  queueStopped(): void {
    this.bypassWritten();
  }

  /** A state was loaded: there must be a snapshot before anything else. */
  loaded(): void {
    if (this.#journal === undefined) return;
    this.#add(ENTRY_LOADED, 0, 0);
    this.#mustKeepLoaded = true;
  }

  #begin(journal: Journal, snapshot: Uint8Array | undefined): string | undefined {
    if (this.#replayed !== undefined || this.#journal !== undefined) {
      throw new Error("Cannot replay a journal: the device has replayed another one");
    }
    if (this.#parts.holdsHostFrames) {
      throw new Error(
        "Cannot keep a journal: the tables hold host frames, which end with the process",
      );
    }
    this.#replayed = journal;
    const { head } = journal;
    this.#next = head;
    if (snapshot === undefined) return this.#checkFresh(journal);
    const sequence = sequenceOf(snapshot);
    if (typeof sequence === "string") return sequence;
    // What a reset has made void is void in the snapshot, too.
    if (((sequence - head) | 0) < 0) return this.#checkFresh(journal);
    this.#next = sequence;
    return readSnapshot(snapshot, this.#parts);
  }

  /** Whether the journal begins with a device that has done nothing; one line if it does not. */
  #checkFresh(journal: Journal): string | undefined {
    this.#isNew = journal.length === 0 && journal.head === 0;
    if (this.#isNew) return undefined;
    let kind = 0;
    journal.read(journal.head, (entry) => {
      kind = entry.kind;
      return "";
    });
    if (kind === ENTRY_FRESH) return undefined;
    return "Cannot replay the journal: what comes before its first entry is in a snapshot that is missing";
  }

  /** Nothing before this counts if the device has done nothing that its guest still knows of. */
  #voidIfFresh(): void {
    const { iommu, life, lives } = this.#parts;
    if (this.#journal === undefined || iommu.domainCount > 0 || lives.isLoaded) return;
    if (FRESH_STATES.includes(life.state)) this.#writeFresh();
  }

  /** Enters a device that has done nothing, and makes void what comes before. */
  #writeFresh(): void {
    const { config, life, ram } = this.#parts;
    const sequence = this.#journal!.tail;
    this.#add(ENTRY_FRESH, bypassFlags(config), FRESH_STATES.indexOf(life.state));
    for (const { firstIndex, lastIndex } of ram.regions) {
      this.#addRegion(ENTRY_REGION, firstIndex, lastIndex);
    }
    this.#journal!.forgetBefore(sequence);
  }

  #addRegion(kind: number, first: number, last: number, flags = 0): void {
    const entry = this.#entry;
    entry.clear(kind);
    entry.flags = flags;
    entry.first = first;
    entry.last = last;
    this.#journal?.append(entry);
  }

  #add(kind: number, flags: number, id: number): void {
    const entry = this.#entry;
    entry.clear(kind);
    entry.flags = flags;
    entry.id = id;
    this.#journal?.append(entry);
  }
}
