/**
 * Every endpoint behind the IOMMU, as one poll source of the loop. Endpoints are added and removed while it is served.
 *
 * The guest is not told. An endpoint id is a place that a device can be plugged into, as a slot of a PCI bus is: the
 * ids are set at the start (`--endpoint`), and PROBE, ATTACH and DETACH are answered whether a device is plugged in or
 * not. Nothing in the configuration space changes either.
 *
 * An endpoint that is removed first *leaves*: it accepts nothing more, and has a time limit to complete the requests
 * that it has taken. Then it is closed. The list changes only between two polls: an endpoint that is added is in the
 * poll set from the next sleep on, and one that is removed is closed before the next sleep.
 */
import type { PollSource } from "../poll_source.ts";
import { GuardedPollSource, logFailure } from "../guarded_poll_source.ts";
import type { PollSet, UnixStream } from "../host/mod.ts";
import type { Log } from "../log.ts";
import type { Draining } from "./endpoint_device.ts";
import { EndpointProxy } from "./proxy/mod.ts";
import { EndpointRelay } from "./relay/mod.ts";
import { EndpointService } from "./endpoint_service.ts";
import { HostEndpoint } from "./host_endpoint.ts";
import type { ServedEndpoint } from "./served_endpoint.ts";

/** The progress of a removal. */
export class Removal {
  /** Whether the endpoint is closed. */
  isDone = false;
  /** Whether all requests that it had taken were completed before; valid once it is closed. */
  isDrained = false;
}

/** An endpoint in the list. */
interface Member {
  readonly served: ServedEndpoint;
  readonly guarded: GuardedPollSource;
  /** Its removal, if it is being removed. */
  removal?: Removal;
  /** When it is closed at the latest, on the clock of `performance.now()`. */
  deadline: number;
}

/** The endpoints. */
export class ServedEndpoints implements PollSource {
  /** Its name in log lines. */
  readonly name: string = "the endpoints";
  onDue: () => void = () => {};
  /** Devices of ours. */
  services: readonly EndpointService[] = [];
  /** Back ends that translate for themselves. */
  proxies: readonly EndpointProxy[] = [];
  /** Relayed back ends. */
  relays: readonly EndpointRelay[] = [];
  /** The front end of the IOMMU itself, while it is connected. */
  frontEnd: UnixStream | undefined;
  /** Devices of the host. */
  hostDevices: readonly HostEndpoint[] = [];
  readonly #log: Log;
  /** All endpoints; replaced and never changed, so that a loop over them is not disturbed. */
  #members: readonly Member[] = [];
  /** The endpoints that were last added to the poll set. */
  #polled: readonly Member[] = [];
  #isClosed = false;

  /** Without endpoints. */
  constructor(log: Log) {
    this.#log = log;
  }

  /** Every endpoint, including those that are leaving, in the order in which they were added. */
  get all(): readonly ServedEndpoint[] {
    return this.#members.map(({ served }) => served);
  }

  /** The endpoint with an id, if there is one. */
  at(endpoint: number): ServedEndpoint | undefined {
    return this.#members.find(({ served }) => served.endpoint === endpoint)?.served;
  }

  /** Adds an endpoint, which is closed with the others. Its id must not be in use. */
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
   * Removes an endpoint: it leaves, and is closed as soon as it is drained or its time is over.
   *
   * @param milliseconds The time that it has to drain.
   * @returns The progress, or undefined if there is no such endpoint. A second call returns the same removal, with the
   * shorter of the two times.
   */
  remove(endpoint: number, milliseconds: number): Removal | undefined {
    const member = this.#members.find(({ served }) => served.endpoint === endpoint);
    if (member === undefined) return undefined;
    member.deadline = Math.min(member.deadline, performance.now() + milliseconds);
    this.onDue();
    return member.removal ??= new Removal();
  }

  /** A front end of the IOMMU itself has connected, or, without a stream, has gone. */
  frontEndChanged(stream: UnixStream | undefined): void {
    this.frontEnd = stream;
    for (const each of this.hostDevices) {
      if (stream === undefined) each.frontEndGone();
      else each.frontEndConnected(stream);
    }
  }

  /** Whether one of them must be polled, or is leaving: no descriptor signals that its time is over. */
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
    if (leaves) this.#closeLeaving();
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

  /** Ends all sessions. */
  endSession(): void {
    for (const { guarded } of this.#members) guarded.endSession();
  }

  /** Closes all endpoints. Does nothing the second time. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const member of this.#members) this.#close(member, false);
    this.#change([]);
    this.#polled = [];
  }

  /** Closes endpoints that are drained or whose time is over. */
  #closeLeaving(): void {
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

  /** An endpoint that throws here is not waited for. */
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
    this.hostDevices = all.filter((each) => each instanceof HostEndpoint);
  }
}
