/**
 * Every endpoint behind the IOMMU, as one poll source of the loop: endpoints are added to it and removed from it while it
 * is served.
 *
 * What the guest is told of does not change by that. An endpoint id is a place that a device can be plugged into, as a
 * slot of a PCI bus is: which ids there are is said at the start (`--endpoint`), PROBE and ATTACH of them are answered
 * whether a device is there or not, and so is the DETACH of one whose device has been removed. The configuration space
 * has nothing to change either.
 *
 * An endpoint that is removed *leaves* first: nothing more is let in, and what it has taken may end, for a time. Then it
 * is closed, drained or not. The list changes outside of the loop's look at the poll set alone: what is added is
 * in it from the next sleep on, what is removed was closed before that.
 *
 * @module
 */
import type { PollSource } from "../poll_source.ts";
import { GuardedPollSource, logFailure } from "../guarded_poll_source.ts";
import type { PollSet } from "../host/mod.ts";
import type { Log } from "../log.ts";
import type { Draining } from "./endpoint_device.ts";
import { EndpointProxy } from "./proxy/mod.ts";
import { EndpointRelay } from "./relay/mod.ts";
import { EndpointService } from "./endpoint_service.ts";
import type { ServedEndpoint } from "./served_endpoint.ts";

/** How the removal of an endpoint goes. */
export class Removal {
  /** Whether it is closed, and nothing of it is left. */
  isDone = false;
  /** Whether all that it had taken was done before that; known when it is closed. */
  isDrained = false;
}

/** An endpoint in the list. */
interface Member {
  readonly served: ServedEndpoint;
  readonly guarded: GuardedPollSource;
  /** Under way, once it is removed. */
  removal?: Removal;
  /** When it is closed at the latest, in milliseconds of `performance.now()`. */
  deadline: number;
}

/** The endpoints. */
export class ServedEndpoints implements PollSource {
  /** What log lines call all of them. */
  readonly name: string = "the endpoints";
  onDue: () => void = () => {};
  /** Devices of ours. */
  services: readonly EndpointService[] = [];
  /** Back ends that translate for themselves. */
  proxies: readonly EndpointProxy[] = [];
  /** Relayed back ends. */
  relays: readonly EndpointRelay[] = [];
  readonly #log: Log;
  /** All of them; replaced, never changed, so that what goes through it sees it as it was. */
  #members: readonly Member[] = [];
  /** Those that were added to the poll set last. */
  #polled: readonly Member[] = [];
  #isClosed = false;

  /** None yet. */
  constructor(log: Log) {
    this.#log = log;
  }

  /** Every endpoint, those that leave included, in the order in which they were added. */
  get all(): readonly ServedEndpoint[] {
    return this.#members.map(({ served }) => served);
  }

  /** What is at an endpoint, if anything. */
  at(endpoint: number): ServedEndpoint | undefined {
    return this.#members.find(({ served }) => served.endpoint === endpoint)?.served;
  }

  /** Serves one more; it is closed with the others. There must be none at its endpoint yet. */
  add(served: ServedEndpoint): void {
    if (this.at(served.endpoint) !== undefined) {
      throw new Error(`Cannot add ${served.name}: there is another one`);
    }
    served.onDue = () => this.onDue();
    if (served instanceof EndpointService) served.device.onProgress = () => this.onDue();
    const guarded = new GuardedPollSource(served, this.#log);
    this.#change([...this.#members, { served, guarded, deadline: Infinity }]);
    this.onDue();
  }

  /**
   * Removes what is at an endpoint: it leaves, and is closed as soon as it is drained, or after a time.
   *
   * @param milliseconds For which it may drain.
   * @returns How that goes, or undefined where there is nothing. A second removal is the first, with the shorter time.
   */
  remove(endpoint: number, milliseconds: number): Removal | undefined {
    const member = this.#members.find(({ served }) => served.endpoint === endpoint);
    if (member === undefined) return undefined;
    member.deadline = Math.min(member.deadline, performance.now() + milliseconds);
    this.onDue();
    return member.removal ??= new Removal();
  }

  /** Whether one of them must be polled, or leaves: no descriptor signals that its time to drain is over. */
  get mustPoll(): boolean {
    return this.#members.some(({ guarded, removal }) => removal !== undefined || guarded.mustPoll);
  }

  addTo(poll: PollSet): void {
    this.#polled = this.#members;
    for (const { guarded } of this.#polled) guarded.addTo(poll);
  }

  look(poll: PollSet): void {
    for (const { guarded } of this.#polled) guarded.look(poll);
  }

  serve(): boolean {
    const members = this.#members;
    let isAny = false;
    let leaves = false;
    for (let i = 0; i < members.length; i++) {
      if (members[i].guarded.serve()) isAny = true;
      if (members[i].removal !== undefined) leaves = true;
    }
    if (leaves) this.#letGo();
    return isAny;
  }

  setNotifications(on: boolean): boolean {
    const members = this.#members;
    let work = false;
    for (let i = 0; i < members.length; i++) {
      if (members[i].guarded.setNotifications(on)) work = true;
    }
    return work;
  }

  /** Ends the sessions of all. */
  endSession(): void {
    for (const { guarded } of this.#members) guarded.endSession();
  }

  /** Closes all, those that leave included; does nothing the second time. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const member of this.#members) this.#close(member, false);
    this.#change([]);
    this.#polled = [];
  }

  /** Closes those that have left, or had their time. */
  #letGo(): void {
    const now = performance.now();
    const gone = this.#members.filter((member) => {
      if (member.removal === undefined) return false;
      const draining = this.#leave(member.served);
      if (draining === "under way" && now < member.deadline) return false;
      const isDrained = draining === "drained";
      this.#close(member, isDrained);
      const { name } = member.served;
      if (isDrained) this.#log.infoLimited("removed", `Removed ${name}`);
      else this.#log.warnLimited("cut", `Removed ${name} before all that it had taken was done`);
      return true;
    });
    if (gone.length === 0) return;
    const rest = this.#members.filter((member) => !gone.includes(member));
    this.#change(rest);
    this.#polled = this.#polled.filter((member) => !gone.includes(member));
  }

  /** One that fails in leaving has nothing to wait for. */
  #leave(served: ServedEndpoint): Draining {
    try {
      return served.leave();
    } catch (error) {
      logFailure(this.#log, `Cannot drain ${served.name}`, error);
      return "lost";
    }
  }

  #close({ guarded, removal }: Member, isDrained: boolean): void {
    guarded.close();
    if (removal === undefined) return;
    removal.isDone = true;
    removal.isDrained = isDrained;
  }

  #change(members: readonly Member[]): void {
    this.#members = members;
    const all = members.map(({ served }) => served);
    this.services = all.filter((each) => each instanceof EndpointService);
    this.proxies = all.filter((each) => each instanceof EndpointProxy);
    this.relays = all.filter((each) => each instanceof EndpointRelay);
  }
}
