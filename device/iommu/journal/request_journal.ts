/**
 * What the request queue does for its requests to survive, in this order (one thread):
 *
 * 1. {@linkcode RequestJournal.begin} says that the request is being executed;
 * 2. it is executed, in memory of this process that nobody else sees;
 * 3. {@linkcode RequestJournal.executed} enters it into the journal, failed ones with their status, too: executed again behind a
 *    request that came after it, it might succeed;
 * 4. and says that nothing is being executed any more;
 * 5. the status is written into guest memory; IOTLB listeners in other processes acknowledge;
 * 6. the queue shows the answer (`vring/position_record.ts`);
 * 7. the driver is signalled.
 *
 * A process that ends before the entry is there has not executed the request, and the next one does. One that ends
 * afterwards has: the next one answers it from the entry. A request that takes several turns is entered when it is done; each
 * of its pieces counts as being executed.
 *
 * A request that ends every process which executes it is answered with DEVERR the third time, and not executed.
 */
import { MMIO, READ, WRITE } from "../../../pagetable/mod.ts";
import type { PositionRecord } from "../../../vring/mod.ts";
import type { Request } from "../request.ts";
import {
  ATTACH_F_BYPASS,
  MAP_F_MMIO,
  MAP_F_READ,
  MAP_F_WRITE,
  S_OK,
  type Status,
  T_ATTACH,
  T_DETACH,
  T_MAP,
  T_PROBE,
  T_UNMAP,
} from "../wire.ts";
import type { Answers } from "./answers.ts";
import { Entry, type Journal } from "./journal.ts";

/** How many processes may end at a request before it is refused. */
const DEATHS_MAX = 2;

/** The journal as the request queue uses it. Nothing here allocates once it is made. */
export class RequestJournal {
  readonly #journal: Journal;
  readonly #record: PositionRecord;
  readonly #entry = new Entry();
  /** Room that requests leave for everything else. */
  readonly #reserve: number;
  /** Answers that the guest may not have seen, of an earlier process; none once it has. */
  #answers: Answers | undefined;
  /** Position of the request that is being executed, and of the last one that was. */
  #position = 0;
  #executed: number;

  /** @param answers How the requests of an earlier process were answered. */
  constructor(journal: Journal, record: PositionRecord, answers: Answers, reserve: number) {
    this.#journal = journal;
    this.#record = record;
    this.#reserve = reserve;
    this.#answers = answers;
    this.#executed = answers.last < 0 ? record.current : answers.last;
  }

  /** Whether a further request can be entered. */
  get hasRoom(): boolean {
    return this.#journal.room > this.#reserve;
  }

  /** Whether the driver has been shown the answers of all requests that were executed. */
  get isAnswered(): boolean {
    return ((this.#executed - this.#record.current) | 0) <= 0;
  }

  /** The status with which an earlier process has answered a request; -1 if none has. */
  answerOf(position: number): number {
    const answers = this.#answers;
    if (answers === undefined) return -1;
    if (answers.last >= 0 && ((position - answers.last) | 0) <= 0) {
      return answers.statusOf(position);
    }
    this.#answers = undefined;
    return -1;
  }

  /** A request is about to be executed. Returns whether it has ended too many processes. */
  begin(position: number): boolean {
    this.#position = position;
    return this.#record.attempt(position) >= DEATHS_MAX;
  }

  /** A further piece of it is about to be executed. */
  resume(): void {
    this.#record.attempt(this.#position);
  }

  /** A piece of it was executed. */
  pause(): void {
    this.#record.attempted();
  }

  /** It was executed, and nothing of its answer has been written. */
  executed(request: Request, status: Status): void {
    const { type } = request;
    // The others change nothing, and their answers depend on nothing that changes: they can be executed again.
    if (type !== 0 && type !== T_PROBE) {
      const entry = this.#entry;
      entry.clear(type);
      entry.status = status;
      entry.position = this.#position;
      if (status === S_OK) describe(entry, request);
      this.#journal.append(entry);
      this.#executed = this.#position;
    }
    this.#record.attempted();
  }

  /** The queue starts anew, or its guest is gone: what is not answered by now never is. */
  forget(): void {
    this.#answers = undefined;
    this.#executed = this.#record.current;
  }
}

/** Enters what a request that succeeded did. */
function describe(entry: Entry, request: Request): void {
  const { flags } = request;
  entry.domain = request.domain;
  switch (request.type) {
    case T_MAP:
      entry.flags = ((flags & MAP_F_READ) !== 0 ? READ : 0) |
        ((flags & MAP_F_WRITE) !== 0 ? WRITE : 0) | ((flags & MAP_F_MMIO) !== 0 ? MMIO : 0);
      entry.first = request.virtStartPage;
      entry.last = request.virtEndPage;
      entry.frame = request.physStartFrame;
      break;
    case T_UNMAP:
      // No mapping is in a page that the range covers in part.
      entry.first = request.virtStartPage + (request.virtStartOffset !== 0 ? 1 : 0);
      entry.last = request.virtEndPage - (request.virtEndOffset !== 0xfff ? 1 : 0);
      break;
    case T_ATTACH:
      entry.flags = flags & ATTACH_F_BYPASS;
      entry.id = request.endpoint;
      break;
    case T_DETACH:
      entry.id = request.endpoint;
      break;
  }
}
