/**
 * A device of the host behind the IOMMU (VFIO), as one of the endpoints that are served: it comes, is watched, and goes.
 *
 * It has no socket and no requests: the device accesses memory by itself, through what the host attaches it to. The model
 * decides that (`device/iommu`), `device/vfio` does it. Here is when the device is theirs:
 *
 * - Its files are given, or are taken from the VMM's process once that has opened them.
 * - The model gets the device when a VMM has bound it, or before any VMM is connected: what the VMM attaches it to later
 *   would be unknown to the model otherwise.
 * - When the VMM's process has ended, or the endpoint is removed, the model gives the device back and the files are closed:
 *   the kernel frees a device only when the last copy of its file is closed.
 */
import { EBUSY } from "../../iommufd/mod.ts";
import { EOPNOTSUPP, type Errno, OK } from "../../pagetable/mod.ts";
import { endpointText } from "../address.ts";
import {
  descriptorsClosed,
  errnoName,
  PeerProcess,
  type PollSet,
  type UnixStream,
} from "../host/mod.ts";
import type { HostDevice } from "../iommu/host_devices.ts";
import type { Log } from "../log.ts";
import type { Draining } from "./endpoint_device.ts";
import type { ServedEndpoint } from "./served_endpoint.ts";
import { type HostFiles, takeVmmFiles } from "./vmm_files.ts";

/** Milliseconds between two searches of the VMM's process. */
const SEARCH_MS = 50;
/**
 * Milliseconds between two attempts to add a device that the model has refused, which may have filled an I/O address space in
 * vain; sooner only if its endpoint is attached elsewhere by then.
 */
const REFUSED_MS = 1000;
/** Milliseconds between two attempts to give a device back, and between two looks whether one was reset. */
const RETRY_MS = 10;

/** An open device of the host. */
export interface OpenedHostDevice {
  /** What the model attaches. */
  readonly device: HostDevice;
  /** Its PCI address on the host. */
  readonly address: string;
  /** PCI addresses of the others of its host group. */
  readonly siblings: readonly string[];
  /** Whether the VMM has bound it. */
  readonly isBound: boolean;
  /** Closes its files. Nothing is called of the device afterwards. */
  close(): void;
}

/** Opens devices of the host. */
export interface HostDeviceOpener {
  /**
   * Checks what the files are, and takes them over.
   *
   * @throws {RangeError} If they are something else: one line. They are closed then, too.
   */
  open(endpoint: number, files: HostFiles): OpenedHostDevice;
  /** What keeps an open file from being one of a device, as the end of a line; nothing if it is right. */
  problemOf(number: number, file: keyof HostFiles): string | undefined;
}

/** The model, as far as it is told of devices. */
export interface HostDeviceModel {
  /** Adds a device; EBUSY if it is to be tried again. */
  add(device: HostDevice): Errno;
  /** Blocks the device of an endpoint and gives it back; EBUSY if it is to be tried again. */
  remove(endpoint: number): Errno;
  /** What the device of an endpoint is attached to. */
  placeOf(endpoint: number): HostPlace | undefined;
  /** Whether {@linkcode letFirmwarePass} is to be called now and then. */
  readonly mayBeReset: boolean;
  /** Lets devices through that were reset, so that firmware can use them. */
  letFirmwarePass(): void;
  /** The domain that an endpoint is attached to, if it is. */
  domainOf(endpoint: number): number | undefined;
}

/** What a device is attached to: `vmm` is what the VMM has attached it to, all guest RAM. */
export type HostPlace = "vmm" | "domain" | "bypass" | "blocked";

/** What there is to say of the device of a {@linkcode HostEndpoint}. */
export interface HostDeviceState {
  /** Its PCI address on the host. */
  readonly address: string;
  /** The host's IOMMU group. */
  readonly group: number;
  /** PCI addresses of the others of the group. */
  readonly siblings: readonly string[];
  /** Whether a VMM has bound it. */
  readonly bound: boolean;
  /** What it is attached to; `unknown` until the model has it. */
  readonly attachedTo: HostPlace | "unknown";
}

/** What a {@linkcode HostEndpoint} is made of. */
export interface HostEndpointOptions {
  /** The endpoint's id. */
  readonly endpoint: number;
  /** Its device, or which device of the VMM it is: as {@linkcode takeVmmFiles} takes it. */
  readonly source: OpenedHostDevice | { readonly wanted: string | undefined };
  /** Opens devices. */
  readonly opener: HostDeviceOpener;
  /** The model. */
  readonly model: HostDeviceModel;
  /** Where log lines go. */
  readonly log: Log;
  /** The front end of the IOMMU, if one is connected. */
  readonly frontEnd: UnixStream | undefined;
}

/** A device of the host behind an endpoint. */
export class HostEndpoint implements ServedEndpoint {
  readonly endpoint: number;
  readonly kind = "vfio";
  readonly name: string;
  onDue: () => void = () => {};
  isLeaving = false;
  readonly #options: HostEndpointOptions;
  #opened: OpenedHostDevice | undefined;
  /** Whether the model has it. */
  #isAdded = false;
  /** Whether it is to be given back: its VMM has ended, or it is removed. */
  #ends = false;
  /** Whether its files are being closed. */
  #closes = false;
  #process: PeerProcess | undefined;
  #hasFrontEnd = false;
  #slot = -1;
  /** Whether the model wants to be told again. */
  #isBusy = false;
  #nextSearch = 0;
  #nextLook = 0;
  /** When the model may be told again, and the domain in which it has refused the device. */
  #nextAttempt = 0;
  #refusedIn: number | undefined;
  /** The domain when it was last looked at. */
  #domain: number | undefined;
  #lastProblem = "";

  /**
   * A device that is open, or is to be taken from the VMM that connects.
   *
   * @throws {RangeError} If the model refuses it: one line. It is closed then.
   */
  constructor(options: HostEndpointOptions) {
    const { endpoint, source, frontEnd } = options;
    this.#options = options;
    this.endpoint = endpoint;
    this.name = `vfio ${endpointText(endpoint)}`;
    if (frontEnd !== undefined) this.frontEndConnected(frontEnd);
    if (!("device" in source)) return;
    this.#opened = source;
    const problem = this.#add();
    if (problem === undefined) return;
    source.close();
    this.#process?.close();
    throw new RangeError(problem);
  }

  /** Whether a VMM has bound the device. */
  get connected(): boolean {
    return this.#opened?.isBound === true;
  }

  /** The device, if there is one now. */
  get hostDevice(): HostDeviceState | undefined {
    if (this.#opened === undefined) return undefined;
    const { address, siblings, isBound, device: { group } } = this.#opened;
    const place = this.#isAdded ? this.#options.model.placeOf(this.endpoint) : undefined;
    return { address, group, siblings, bound: isBound, attachedTo: place ?? "unknown" };
  }

  /** Whether something is to be tried again that no descriptor signals. */
  get mustPoll(): boolean {
    return this.#isBusy || this.#options.model.mayBeReset;
  }

  /** A front end of the IOMMU has connected. */
  frontEndConnected(stream: UnixStream): void {
    this.#hasFrontEnd = true;
    this.#process?.close();
    this.#process = PeerProcess.of(stream);
    this.#nextSearch = 0;
    this.#nextAttempt = 0;
    this.#lastProblem = "";
  }

  /** Its connection has ended. Its process may live, and go on with another connection. */
  frontEndGone(): void {
    this.#hasFrontEnd = false;
    if (this.#process?.isGone === true) this.#vmmEnded();
  }

  addTo(poll: PollSet): void {
    this.#slot = this.#hasFrontEnd ? -1 : poll.add(this.#process?.pollNumber ?? -1);
  }

  look(poll: PollSet): void {
    if (this.#slot >= 0 && poll.ready(this.#slot) !== 0) this.#vmmEnded();
    this.#slot = -1;
  }

  serve(): boolean {
    if (this.#ends) this.#giveBack();
    else if (this.#opened === undefined) this.#search();
    else {
      if (!this.#isAdded && this.#mayAttempt()) this.#tell(this.#add());
      this.#checkBound(this.#opened);
      this.#lookForReset();
    }
    return false;
  }

  setNotifications(_on: boolean): boolean {
    return false;
  }

  /** Does nothing: the model blocks devices when a session ends. */
  endSession(): void {}

  leave(): Draining {
    if (!this.isLeaving) {
      this.isLeaving = true;
      this.#ends = true;
    }
    this.#giveBack();
    return this.#isAdded || this.#closes ? "under way" : "drained";
  }

  close(): void {
    this.#ends = true;
    this.#process?.close();
    this.#process = undefined;
    this.#giveBackAtLast();
  }

  /** Lets the device through if it was reset. */
  #lookForReset(): void {
    const { model } = this.#options;
    if (!model.mayBeReset) return;
    const now = performance.now();
    if (now < this.#nextLook) return;
    this.#nextLook = now + RETRY_MS;
    model.letFirmwarePass();
  }

  /** Looks for the device in the VMM's process: from time to time, and when the guest has attached the endpoint. */
  #search(): void {
    const { source, opener, model } = this.#options;
    if ("device" in source || !this.#hasFrontEnd || this.#process === undefined) return;
    if (!this.#mayAttempt()) return;
    const domain = model.domainOf(this.endpoint);
    const now = performance.now();
    if (now < this.#nextSearch && domain === this.#domain) return;
    this.#domain = domain;
    this.#nextSearch = now + SEARCH_MS;
    const files = takeVmmFiles(this.#process, source.wanted);
    if (files === undefined) return this.#wait(this.#process.pid, source.wanted);
    if (typeof files === "string") return this.#tell(files);
    try {
      this.#opened = opener.open(this.endpoint, files);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return this.#tell(error.message);
    }
    // One that is not bound yet may be given up by its VMM again.
    const problem = this.#opened.isBound ? this.#add() : undefined;
    this.#tell(problem);
    if (this.#isAdded) return;
    this.#opened.close();
    this.#opened = undefined;
  }

  /** Whether the model may be told: it has not just refused the device. */
  #mayAttempt(): boolean {
    return performance.now() >= this.#nextAttempt ||
      this.#options.model.domainOf(this.endpoint) !== this.#refusedIn;
  }

  /** Tells the model of the device, unless it has to be bound first. Returns one line if the model refuses it. */
  #add(): string | undefined {
    const opened = this.#opened!;
    if (this.#hasFrontEnd && !opened.isBound) return undefined;
    let error: Errno;
    try {
      error = this.#options.model.add(opened.device);
    } catch (refused) {
      if (!(refused instanceof RangeError)) throw refused;
      this.#refused();
      return refused.message;
    }
    this.#isAdded = error === OK;
    this.#isBusy = error === EBUSY;
    if (error === OK || error === EBUSY) return undefined;
    this.#refused();
    const reason = error === EOPNOTSUPP
      ? "another device of its IOMMU group is attached to another domain, or the host refuses (the log says which)"
      : errnoName(error);
    return `Cannot pass device ${opened.address} through as endpoint ` +
      `${endpointText(this.endpoint)}: ${reason}`;
  }

  #refused(): void {
    this.#isBusy = false;
    this.#nextAttempt = performance.now() + REFUSED_MS;
    this.#refusedIn = this.#options.model.domainOf(this.endpoint);
  }

  #vmmEnded(): void {
    this.#process?.close();
    this.#process = undefined;
    if (this.#opened === undefined || this.#ends) return;
    this.#options.log.infoLimited(
      "given back",
      `The VMM has ended: device ${this.#opened.address} of endpoint ${
        endpointText(this.endpoint)
      } is given back to the host`,
    );
    this.#ends = true;
    this.#giveBack();
  }

  /** Removes the device from the model, and closes its files. */
  #giveBack(): void {
    this.#isBusy = this.#isAdded && this.#options.model.remove(this.endpoint) === EBUSY;
    if (this.#isBusy) return;
    this.#isAdded = false;
    if (this.#opened !== undefined) {
      this.#opened.close();
      this.#opened = undefined;
      this.#closes = true;
      // Closing a device may wait until it is reset.
      descriptorsClosed().then(() => {
        this.#closes = false;
        this.onDue();
      });
    }
    // The next VMM's device takes its place.
    if (!this.isLeaving && !("device" in this.#options.source)) this.#ends = false;
  }

  /** The same where nothing calls {@linkcode serve} any more. Until the model has given the device back, it is blocked. */
  #giveBackAtLast(): void {
    this.#giveBack();
    if (this.#isBusy) Deno.unrefTimer(setTimeout(() => this.#giveBackAtLast(), RETRY_MS));
  }

  /** A guest that uses the device although no VMM has bound it will be refused: says why that may be. */
  #checkBound(opened: OpenedHostDevice): void {
    const domain = this.#options.model.domainOf(this.endpoint);
    if (domain === this.#domain) return;
    this.#domain = domain;
    if (domain === undefined || opened.isBound) return;
    this.#tell(
      `The guest uses endpoint ${
        endpointText(this.endpoint)
      }, and no VMM has bound device ${opened.address}: ` +
        "if the VMM says EPERM, the host does not isolate interrupts (interrupt remapping)",
    );
  }

  /** Says once for what a VMM is waited for. */
  #wait(pid: number, wanted: string | undefined): void {
    const line =
      `Endpoint ${endpointText(this.endpoint)} waits for process ${pid} to open /dev/iommu and ` +
      (wanted ?? "a device of /dev/vfio/devices");
    if (line === this.#lastProblem) return;
    this.#lastProblem = line;
    this.#options.log.infoLimited("vfio waits", line);
  }

  /** Logs a problem, once as long as it stays the same. */
  #tell(problem: string | undefined): void {
    if (problem === this.#lastProblem) return;
    this.#lastProblem = problem ?? "";
    if (problem !== undefined) this.#options.log.warnLimited("vfio", problem);
  }
}
