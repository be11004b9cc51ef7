/**
 * The request queue: when requests are taken from it, and when their answers are published.
 *
 * Where an IOTLB listener in another process has to drop a translation first, the answers of all requests taken are
 * *held*: they share one wait, during which nothing more is taken, and a later call publishes them. A request that takes
 * longer than a turn is *under way* until {@linkcode RequestQueue.proceed} has ended it, and nothing more is taken
 * meanwhile. Its answer is held then, too, and published by the next call.
 */
import { Chain, type Queue } from "../../vring/mod.ts";
import type { RequestJournal } from "./journal/request_journal.ts";
import type { IotlbListeners } from "./iotlb_listeners.ts";
import { type Requests, UNDER_WAY } from "./requests.ts";
import { type Turn, WORK_PER_LOOK } from "./turn.ts";

/** The request queue of one device. */
export class RequestQueue {
  /** What makes requests survive the end of the process, or null. */
  journal: RequestJournal | null = null;
  readonly #requests: Requests;
  readonly #listeners: IotlbListeners;
  readonly #chain = new Chain();
  /** Requests that are served and whose answers are not published yet. */
  #held = 0;
  #heldQueue: Queue | undefined;
  /** The queue of the request that is under way, whose chain is `#chain`. */
  #queueUnderWay: Queue | undefined;
  /** Pieces of it that are done besides the first. */
  #pieces = 0;
  /** Whether the request was executed by an earlier process, and not by this one. */
  #isAnsweredAgain = false;

  /** Answers wait for the remote ones of `listeners`. */
  constructor(requests: Requests, listeners: IotlbListeners) {
    this.#requests = requests;
    this.#listeners = listeners;
  }

  /** Whether answers are held. */
  get holds(): boolean {
    return this.#held > 0;
  }

  /** Whether a request is under way. */
  get isUnderWay(): boolean {
    return this.#queueUnderWay !== undefined;
  }

  /** Serves requests, `budget` at most, until the turn is over. Returns how many answers it has published. */
  service(queue: Queue, budget: number, turn: Turn): number {
    if (this.#held > 0) return this.#listeners.waiting > 0 ? 0 : this.#publish();
    if (this.#queueUnderWay !== undefined || this.#listeners.isSettling) return 0;
    let served = 0;
    const requests = this.#requests;
    const chain = this.#chain;
    const { journal } = this;
    while (
      served < budget && (journal === null || journal.hasRoom) && queue.next(chain)
    ) {
      const used = journal === null ? requests.serve(chain) : this.#serve(chain, journal);
      if (used === UNDER_WAY) {
        this.#queueUnderWay = queue;
        this.#pieces = 0;
        break;
      }
      queue.complete(chain, used);
      this.#record(used);
      served++;
      if (turn.spend(requests.weight)) break;
    }
    if (this.#listeners.waiting > 0 && served > 0) {
      this.#held = served;
      this.#heldQueue = queue;
      return 0;
    }
    if (served > 0) queue.publish();
    return served;
  }

  /** Goes on with the request that is under way until it or the turn is over. */
  proceed(turn: Turn): void {
    do this.#proceed(); while (this.#queueUnderWay !== undefined && !turn.spend(WORK_PER_LOOK));
  }

  /**
   * The queue stops. Answers that are held are published unless an IOTLB listener has yet to acknowledge: then they are
   * never given, as if this process had ended.
   */
  stop(): void {
    while (this.#queueUnderWay !== undefined) this.#proceed();
    if (this.#held === 0) return;
    if (this.#listeners.waiting === 0) this.#publish();
    this.#held = 0;
    this.#heldQueue = undefined;
  }

  /** Forgets the request that is under way, which gets no answer. */
  abandon(): void {
    if (this.#queueUnderWay !== undefined) {
      const { recorder, request } = this.#requests;
      recorder?.abandoned(request, this.#chain.writableLength, this.#pieces);
    }
    this.#queueUnderWay = undefined;
    this.#requests.abandon();
  }

  /** Serves a request so that it survives; one that an earlier process has executed is only answered. */
  #serve(chain: Chain, journal: RequestJournal): number {
    const status = journal.answerOf(chain.position);
    this.#isAnsweredAgain = status >= 0;
    if (status >= 0) return this.#requests.answerAgain(chain, status);
    const isPoison = journal.begin(chain.position);
    const used = this.#requests.serve(chain, isPoison);
    if (used === UNDER_WAY) journal.pause();
    return used;
  }

  #proceed(): void {
    const queue = this.#queueUnderWay!;
    this.#pieces++;
    this.journal?.resume();
    const used = this.#requests.proceed(this.#chain);
    if (used === UNDER_WAY) {
      this.journal?.pause();
      return;
    }
    this.#queueUnderWay = undefined;
    queue.complete(this.#chain, used);
    this.#record(used);
    this.#held++;
    this.#heldQueue = queue;
  }

  #record(used: number): void {
    if (this.#isAnsweredAgain) return;
    const { recorder, request, status } = this.#requests;
    recorder?.answered(request, this.#chain.writableLength, status, used);
  }

  /** Publishes the answers that are held. Returns how many. */
  #publish(): number {
    const held = this.#held;
    this.#held = 0;
    this.#heldQueue?.publish();
    this.#heldQueue = undefined;
    return held;
  }
}
