/**
 * What the request queue does for its requests to survive, in this order (one thread):
 *
 * 1. {@linkcode RequestJournal.begin} says that the request is being executed;
 * 2. it is executed: only private memory of this process changes;
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
  T_MAP,
  T_PROBE,
  T_UNMAP,
} from "../wire.ts";
import type { Answers } from "./answers.ts";
import type { Journal } from "./journal.ts";

/** How many processes may end at a request before it is refused. */
const DEATHS_MAX = 2;

/** The journal as the request queue uses it. Nothing here allocates once it is made. */
export class RequestJournal {
  readonly #journal: Journal;
  readonly #record: PositionRecord;
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
    return this.#journal.hasRoom(this.#reserve);
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
      const head = type | status << 8;
      if (status === S_OK) this.#succeeded(request, head);
      else this.#journal.appendFields(head, 0, this.#position, 0, 0, 0, 0);
      this.#executed = this.#position;
    }
    this.#record.attempted();
  }

  /** The queue starts anew, or its guest is gone: what is not answered by now never is. */
  forget(): void {
    this.#answers = undefined;
    this.#executed = this.#record.current;
  }

  #succeeded(request: Request, head: number): void {
    const { type, flags, domain, virtStartPage: first, virtEndPage: last } = request;
    const journal = this.#journal;
    const position = this.#position;
    if (type === T_MAP) {
      const protection = ((flags & MAP_F_READ) !== 0 ? READ : 0) |
        ((flags & MAP_F_WRITE) !== 0 ? WRITE : 0) | ((flags & MAP_F_MMIO) !== 0 ? MMIO : 0);
      const { physStartFrame: frame } = request;
      journal.appendFields(head | protection << 16, domain, position, 0, first, last, frame);
    } else if (type === T_UNMAP) {
      // No mapping is in a page that the range covers in part.
      const begin = request.virtStartOffset !== 0 ? first + 1 : first;
      const end = request.virtEndOffset !== 0xfff ? last - 1 : last;
      journal.appendFields(head, domain, position, 0, begin, end, 0);
    } else {
      const bypass = type === T_ATTACH ? flags & ATTACH_F_BYPASS : 0;
      journal.appendFields(head | bypass << 16, domain, position, request.endpoint, 0, 0, 0);
    }
  }
}
