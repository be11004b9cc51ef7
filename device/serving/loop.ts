/**
 * The loop that serves one connection: sleeps until something happens, then polls the rings for a while.
 *
 * A guest that waits for its IOMMU spins with interrupts off, and waking a sleeping process takes some 50
 * microseconds, longer than any request. So after a request the loop does not sleep at once. It polls the rings, with
 * the guest's notifications switched off, for as long as a further request is likely; then it switches them on, looks
 * once more, and sleeps.
 *
 * Polling must not take the processor that the guest spins on: `cpu_placement.ts` avoids that.
 *
 * Other work is not starved, whatever the guest asks: a turn ends after a time (`turn.ts`), and longer work is done in
 * pieces (`IommuDevice.work`). The connection and the descriptors of the event loop (signals, the API socket) are
 * polled twice a millisecond, and while the event loop is busy it gets a turn every 50 µs. Devices behind the IOMMU
 * are poll sources: the same sleep covers them, and between two looks at the clock each may do a small piece of work.
 */
import type { PollSource } from "../poll_source.ts";
import { CpuPlacement } from "./cpu_placement.ts";
import { eventLoopTurn, type PollSet, type UnixListener } from "../host/mod.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import type { BackEnd } from "../vhost_user/mod.ts";
import { Turn } from "../iommu/turn.ts";
import { PollSources } from "./poll_sources.ts";
import { PollWindow } from "./poll_window.ts";
import { ServiceTimes } from "../service_times.ts";
import { REQUEST_QUEUE } from "../iommu/wire.ts";

/** Requests of one queue that are served before the other gets its turn. */
const BUDGET = 256;
/** Looks at the rings between two looks at everything else: a look costs some 20 ns, the clock some 50. */
const LOOKS_PER_TURN = 64;
/** Milliseconds after which everything else is served, whatever is in the rings; see `turn.ts`. */
const TURN_MS = 1;
/** The same while the event loop is busy: one HTTP request takes some 60 turns of it. */
const BUSY_TURN_MS = 0.2;
/** Milliseconds between two looks at the connection while the rings are polled. */
const CONNECTION_MS = 0.5;
/**
 * Milliseconds for which the loop spins while answers are held for another process: the time of one wake-up of that
 * process. Then this one sleeps, so that on a busy machine the other gets a processor.
 */
const SPIN_MS = 0.2;
/** Longest such sleep in milliseconds, as not everything is signalled by a descriptor. */
const HELD_SLEEP_MS = 1;
/**
 * Milliseconds between two turns of the event loop while the rings are polled and it has no visible work: its timers
 * are late by as much. A turn takes 4 µs at best but one in a thousand takes 300, and a guest that maps page by page
 * is delayed by each: with a turn every 50 µs a call took 1 µs longer.
 */
const SLICE_MS = 2;
/** The same while it is busy: one HTTP request takes some 60 turns, most of them without visible work. */
const BUSY_SLICE_MS = 0.05;
/** Milliseconds for which the event loop counts as busy after one of its descriptors was ready. */
const BUSY_MS = 5;

/** Serves one connection after another. */
export class DeviceLoop {
  /** How long requests took. */
  readonly times: ServiceTimes = new ServiceTimes();
  readonly #device: IommuDevice;
  readonly #poll: PollSet;
  readonly #log: Log;
  readonly #window: PollWindow;
  readonly #pollSources: PollSources;
  readonly #turn = new Turn();
  /** When the last request was served. */
  #lastServed = 0;
  /** Until when the event loop counts as busy. */
  #busyUntil = 0;
  #stopped = false;

  /**
   * A loop that serves nothing yet.
   *
   * @param poll The poll set that the loop uses, and nothing else does.
   * @param pollMicroseconds How long to poll the rings after a request at most; 0 to sleep at once.
   * @param pollSources What else is served.
   */
  constructor(
    device: IommuDevice,
    poll: PollSet,
    log: Log,
    pollMicroseconds: number,
    pollSources: readonly PollSource[] = [],
  ) {
    this.#device = device;
    this.#poll = poll;
    this.#log = log;
    this.#window = new PollWindow(pollMicroseconds / 1000);
    this.#pollSources = new PollSources(pollSources);
  }

  /** Ends {@linkcode serve} promptly. */
  stop(): void {
    this.#stopped = true;
    this.#poll.wake();
  }

  /**
   * Serves a connection until it is closed or {@linkcode stop} is called.
   *
   * @param listener A listener to sleep on as well, if any.
   * @param onListener Called when the listener has something.
   */
  async serve(
    backEnd: BackEnd,
    listener: UnixListener | undefined,
    onListener: () => void,
  ): Promise<void> {
    const poll = this.#poll;
    using placement = new CpuPlacement(backEnd.findPeerThreads());
    // Poll sources may have been looked at, with their notifications off, and not served since: they must be before a sleep.
    let mayHaveWork = true;
    while (backEnd.isOpen && !this.#stopped) {
      poll.clear();
      const connectionSlot = poll.add(backEnd.descriptor, backEnd.events);
      const transferSlot = poll.add(backEnd.transferDescriptor, backEnd.transferEvents);
      const listenerSlot = poll.add(listener?.pollNumber ?? -1);
      const kickSlots: number[] = [];
      for (let i = 0; i < this.#device.queueCount; i++) {
        kickSlots.push(poll.add(backEnd.kickDescriptor(i)));
      }
      this.#pollSources.addTo(poll);
      if (mayHaveWork || backEnd.isDue) poll.poll(0);
      else await poll.doze(this.#mustPoll(backEnd) || this.#device.messagesWait ? 1 : -1);
      mayHaveWork = false;
      for (let i = 0; i < kickSlots.length; i++) {
        if (poll.ready(kickSlots[i]) !== 0) backEnd.drainKick(i);
      }
      const listenerReady = poll.ready(listenerSlot) !== 0;
      const connectionReady = poll.ready(connectionSlot) !== 0 || poll.ready(transferSlot) !== 0;
      // The connection comes first: if it has just ended, a pending connection is the next and not a second.
      if (connectionReady && !backEnd.onReadable()) break;
      if (listenerReady) onListener();
      this.#pollSources.look(poll);
      if (backEnd.isDue && !backEnd.onReadable()) break;
      await this.#pollRings(backEnd, placement);
    }
  }

  /**
   * Serves the poll sources alone until a listener has something or {@linkcode stop} is called.
   *
   * @param listener A listener to sleep on as well, if any.
   * @param milliseconds After which it ends in any case.
   */
  async servePollSources(
    listener: { readonly pollNumber: number } | undefined,
    milliseconds = Infinity,
  ): Promise<void> {
    const end = performance.now() + milliseconds;
    const poll = this.#poll;
    // As at the beginning of a session: a poll source may have been looked at and not served.
    let isBusy = true;
    while (!this.#stopped) {
      poll.clear();
      const slot = poll.add(listener?.pollNumber ?? -1);
      this.#pollSources.addTo(poll);
      if (isBusy) {
        await eventLoopTurn();
        poll.poll(0);
      } else {
        const left = end - performance.now();
        await poll.wait(
          this.#pollSources.mustPoll ? 1 : left === Infinity ? -1 : Math.max(0, left),
        );
      }
      this.#pollSources.look(poll);
      if (this.#device.hasWork) {
        this.#turn.begin(performance.now(), TURN_MS);
        this.#device.work(this.#turn);
      }
      isBusy = this.#pollSources.serve() > 0 || this.#device.hasWork ||
        this.#pollSources.setNotifications(true);
      // After a piece of work, so that peers that connect and disconnect all the time do not starve the poll sources.
      if (poll.ready(slot) !== 0 || performance.now() >= end) return;
    }
  }

  /** Serves the rings, and polls them until they have been quiet for long enough. */
  async #pollRings(backEnd: BackEnd, placement: CpuPlacement): Promise<void> {
    const woken = performance.now();
    let lastConnection = woken;
    let sliceStart = woken;
    placement.begin(woken);
    this.#setNotifications(backEnd, false);
    this.#turn.begin(woken, TURN_MS);
    if (this.#serveQueues(backEnd) > 0 || this.#device.holds) {
      this.#window.woken(woken - this.#lastServed);
      this.#lastServed = woken;
    }
    while (backEnd.isOpen && !this.#stopped) {
      let served = 0;
      const turn = this.#turn;
      for (let look = 0; look < LOOKS_PER_TURN && !this.#device.holds && !turn.isOver; look++) {
        served += this.#serveQueues(backEnd);
      }
      if (served > 0) this.#window.served(served);
      served += this.#pollSources.serve();
      let now = performance.now();
      if (served > 0) this.#lastServed = now;
      if (this.#device.holds) {
        if (!this.#awaitListeners(backEnd)) return;
        now = performance.now();
        // Messages have waited as well, and are served before further requests.
        lastConnection = this.#device.holds ? now : 0;
        this.#lastServed = now;
        placement.back(now);
      }
      if (
        now - this.#lastServed >= this.#window.milliseconds && !this.#device.hasWork &&
        !this.#setNotifications(backEnd, true)
      ) return;
      placement.look(now, now - this.#lastServed);
      if (now - lastConnection >= CONNECTION_MS) {
        if (!this.#lookAtConnection(backEnd)) return;
        now = performance.now();
        lastConnection = now;
      }
      if (now - sliceStart >= (now < this.#busyUntil ? BUSY_SLICE_MS : SLICE_MS)) {
        await eventLoopTurn();
        now = performance.now();
        sliceStart = now;
        placement.back(now);
      }
      turn.begin(now, now < this.#busyUntil ? BUSY_TURN_MS : TURN_MS);
    }
  }

  /** Serves every queue once. Returns how many chains that were. */
  #serveQueues(backEnd: BackEnd): number {
    const device = this.#device;
    let served = 0;
    if (device.hasWork) device.work(this.#turn);
    for (let i = 0; i < device.queueCount; i++) {
      const queue = backEnd.queue(i);
      if (queue === undefined) continue;
      if (i === REQUEST_QUEUE ? queue.hasWork() || device.holds : device.faults.waiting > 0) {
        const began = this.#turn.now = performance.now();
        const count = device.service(i, queue, BUDGET, this.#turn);
        if (count > 0) {
          backEnd.signal(i);
          served += count;
          if (i === REQUEST_QUEUE) this.times.add(performance.now() - began);
        }
      }
      if (queue.error !== 0) backEnd.ringFailed(i);
    }
    return served;
  }

  /**
   * Switches the guest's notifications on or off.
   *
   * @returns When switching on: whether there are requests already, so that it is too early to sleep.
   */
  #setNotifications(backEnd: BackEnd, on: boolean): boolean {
    let work = false;
    for (let i = 0; i < this.#device.queueCount; i++) {
      const queue = backEnd.queue(i);
      if (queue === undefined) continue;
      if (!on) queue.disableNotifications();
      // The guest fills the event queue with buffers; that is work only when a report waits for one.
      else if (
        queue.enableNotifications() && (i === REQUEST_QUEUE || this.#device.faults.waiting > 0)
      ) {
        work = true;
      }
      if (queue.error !== 0) backEnd.ringFailed(i);
    }
    if (this.#pollSources.setNotifications(on)) work = true;
    if (work) this.#setNotifications(backEnd, false);
    return work;
  }

  /**
   * Serves everything but the queues until no answer has to be held, or the event loop is due. Returns whether the
   * connection is still open.
   */
  #awaitListeners(backEnd: BackEnd): boolean {
    const device = this.#device;
    const began = performance.now();
    let elapsed = 0;
    while (device.iotlbListeners.waiting > 0 && elapsed < HELD_SLEEP_MS) {
      const sleeps = elapsed >= SPIN_MS;
      if (!this.#lookAtConnection(backEnd, sleeps ? HELD_SLEEP_MS : 0)) return false;
      elapsed = performance.now() - began;
    }
    this.#serveQueues(backEnd);
    return backEnd.isOpen;
  }

  /**
   * Handles what the front end and those of the poll sources sent.
   *
   * @param timeout Milliseconds to wait, with this thread blocked.
   * @returns Whether the connection is still open.
   */
  #lookAtConnection(backEnd: BackEnd, timeout = 0): boolean {
    const poll = this.#poll;
    poll.clear();
    const slot = poll.add(backEnd.descriptor, backEnd.events);
    const transferSlot = poll.add(backEnd.transferDescriptor, backEnd.transferEvents);
    this.#pollSources.addTo(poll);
    if (timeout > 0) poll.poll(timeout);
    else poll.look();
    if (poll.runtimeReady) this.#busyUntil = performance.now() + BUSY_MS;
    this.#pollSources.look(poll);
    if (poll.ready(slot) === 0 && poll.ready(transferSlot) === 0 && !backEnd.isDue) return true;
    const generation = backEnd.generation;
    const open = backEnd.onReadable();
    // Queues may have started or stopped: begin again with descriptors and notifications as they are now.
    if (open && backEnd.generation !== generation) {
      this.#log.debug("The front end changed the queues");
      this.#setNotifications(backEnd, false);
    }
    return open;
  }

  /** Whether requests of some ring come without a signal, so that it must be looked at from time to time. */
  #mustPoll(backEnd: BackEnd): boolean {
    if (this.#pollSources.mustPoll) return true;
    for (let i = 0; i < this.#device.queueCount; i++) {
      if (backEnd.wantsPolling(i)) return true;
    }
    return false;
  }
}
