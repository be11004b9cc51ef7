/**
 * How one life of a guest ends and another begins, and how one continues in another process: resets, connections that
 * end, queues that start, states that are saved and loaded.
 *
 * Between two lives nothing passes untranslated: an IOTLB listener that is told that an attachment ends may ask for the
 * translation that applies now, and must not get one that applies neither before nor afterwards. So everything is blocked
 * first, and bypass is allowed last.
 */
import { endpointText } from "../address.ts";
import type { ConfigSpace } from "./config_space.ts";
import type { DeviceEvents } from "./device_events.ts";
import type { Domain } from "./domain.ts";
import type { EndpointTable } from "./endpoint_table.ts";
import type { FaultEvents } from "./fault_events.ts";
import type { GuestLife } from "./guest_life.ts";
import type { HostRegistry } from "./host_registry.ts";
import type { Pieces } from "./pieces.ts";
import { readState, rebuild, type SavedState, writeState } from "./saved_state.ts";
import type { IotlbListeners } from "./iotlb_listeners.ts";
import type { ResetKind, StartSign, StartVerdict } from "../virtio_device.ts";
import type { VirtioIommu } from "./virtio_iommu.ts";
import { REQUEST_QUEUE } from "./wire.ts";

/** Logged when a guest continues of which nothing is known. */
const GOES_ON = "The guest goes on with mappings that this process does not have: its endpoints " +
  "are blocked until it attaches them again or is reset";
/** Logged where that is not certain. */
const MAY_GO_ON = "The guest may go on with mappings that this process does not have, since it " +
  "has not read the configuration: its endpoints are blocked until it attaches them or is reset";

/** The parts of a device that lives are made of. */
export interface GuestLivesParts {
  /** What is known of the guest. */
  readonly life: GuestLife;
  /** Its domains. */
  readonly iommu: VirtioIommu;
  /** Which endpoints there are. */
  readonly endpoints: EndpointTable<Domain>;
  /** The bypass byte. */
  readonly config: ConfigSpace;
  /** Reports that wait. */
  readonly faults: FaultEvents;
  /** Where resets are recorded. */
  readonly events: DeviceEvents;
  /** What keeps translations and must be told when they change. */
  readonly iotlbListeners: IotlbListeners;
  /** The devices of the host, which follow. */
  readonly hosts: HostRegistry<Domain>;
}

/** The lives of the guests of one device, one after another. */
export class GuestLives {
  readonly #parts: GuestLivesParts;
  /** The state that was loaded, until the guest goes on with it. */
  #loaded: SavedState | undefined;
  /** Whether guest memory has changed since. */
  #memoryChanged = false;
  /** Why the state does not fit that memory, if it has turned out that it does not. */
  #misfit: string | undefined;

  /** Of a device that no guest has used. */
  constructor(parts: GuestLivesParts) {
    this.#parts = parts;
  }

  /** Guest memory was added or removed. */
  memoryChanged(): void {
    this.#memoryChanged = true;
    this.#misfit = undefined;
  }

  /** Whether a state was loaded with which the guest has not gone on yet. */
  get isLoaded(): boolean {
    return this.#loaded !== undefined;
  }

  /** Whether guest memory has changed since it was. */
  get memoryHasChanged(): boolean {
    return this.#memoryChanged;
  }

  /** Goes on as the device of an earlier process, in which this state was loaded. */
  restoreLoaded(state: SavedState, memoryHasChanged: boolean): void {
    this.#loaded = state;
    this.#memoryChanged = memoryHasChanged;
  }

  /** A state was loaded in an earlier process, which has ended before it could be kept: everything is blocked. */
  loadedIsLost(): void {
    const { life, iommu } = this.#parts;
    this.#loaded = undefined;
    life.loseTrack();
    iommu.detachAll();
  }

  /** Whether {@linkcode rebuildLoaded} has to come before a queue can start. */
  get mustRebuild(): boolean {
    return this.#loaded !== undefined && this.#memoryChanged && this.#misfit === undefined;
  }

  /**
   * Builds the state that was loaded once more, now that memory has changed. Nothing that the guest has mapped may be
   * looked for meanwhile. If it does not fit, everything is blocked afterwards, and the state is kept for other memory.
   */
  *rebuildLoaded(): Pieces<void> {
    const { life } = this.#parts;
    const known = life.copy();
    this.#misfit = yield* this.#rebuild(this.#loaded!);
    if (this.#misfit !== undefined) return;
    life.assign(known);
    this.#memoryChanged = false;
  }

  /**
   * Begins a new life: nothing is attached or blocked, and the bypass byte decides. After a doubtful reset nothing passes
   * that did not pass before, and reports are kept.
   */
  reset(kind: ResetKind): void {
    const { life, iommu, faults, config, events } = this.#parts;
    if (kind === "doubtful") {
      if (iommu.attachedCount > 0) this.#loseTrack(MAY_GO_ON);
      config.doubtfulReset();
      this.tellAll();
      return;
    }
    const isDoubtful = life.state === "lost" || life.state === "unknown";
    this.#loaded = undefined;
    life.loseTrack();
    iommu.reset();
    events.reset();
    faults.clear();
    if (kind === "system") config.systemReset();
    else if (isDoubtful) config.doubtfulReset();
    life.renew();
    this.tellAll();
  }

  /**
   * The connection has ended. Endpoints that the guest had attached are blocked from now on, see `guest_life.ts`. Reports
   * that have not reached the guest are kept. Nothing waits for IOTLB listeners in other processes: there is no answer
   * to hold.
   *
   * @returns One line for the log if anything was attached.
   */
  end(): string | undefined {
    const { life, iommu, endpoints, config } = this.#parts;
    const count = iommu.attachedCount;
    const one = iommu.anyAttached;
    this.#loaded = undefined;
    config.forgetEarly();
    life.lose(count, (id) => endpoints.seen(id)?.isLeaving === true);
    iommu.detachAll();
    if (one === undefined) return undefined;
    const name = endpointText(one.id);
    return count === 1
      ? `Endpoint ${name}, which the guest had attached, is blocked until a new guest is certain`
      : `${count} endpoints that the guest had attached, ${name} among them, are blocked ` +
        "until a new guest is certain";
  }

  /**
   * A queue is about to start for the first time in a session. The request queue says whose life it is; any queue that
   * was used before says that a guest goes on.
   */
  queueBegins(index: number, sign: StartSign): StartVerdict | undefined {
    const { life, config } = this.#parts;
    if (sign === "loaded") return this.#goOnLoaded();
    if (sign === "used") return this.#loseTrack(GOES_ON);
    if (index !== REQUEST_QUEUE) return undefined;
    if (sign === "unused") {
      if (life.blocksAny) return this.#loseTrack(MAY_GO_ON);
      life.renew();
    } else if (life.state === "none") {
      // Nothing is to be forgotten: what was reported since power-on is for this guest.
      config.systemReset();
      life.renew();
      this.tellAll();
    } else {
      this.reset("system");
    }
    return undefined;
  }

  /** The whole device as bytes; see `saved_state.ts`. */
  *save(): Pieces<Uint8Array<ArrayBuffer>> {
    const { life, iommu, config, faults } = this.#parts;
    const { state, endpoints } = life.copy();
    const isKnown = state === "none" || state === "known";
    return yield* writeState({
      bypass: config.bypass,
      // Where the connection was lost, and no queue has started since, it is not known either.
      givenBack: isKnown ? undefined : state === "unknown" ? endpoints : [],
      reports: faults.save(),
    }, iommu);
  }

  /**
   * Becomes the device that was saved. Guest memory may come before or afterwards: what is mapped is built at once, so
   * that everything that does not fit is found out, and once more with the first queue that starts if memory has
   * changed by then, so that RAM is known as RAM.
   *
   * @returns One line if the bytes are no state, or do not fit this device; then it is as it was.
   */
  *load(bytes: Uint8Array): Pieces<string | undefined> {
    const { life, config, faults } = this.#parts;
    const state = yield* readState(bytes);
    if (typeof state === "string") return state;
    const before = (yield* readState(yield* this.save())) as SavedState;
    const knownBefore = life.copy();
    const error = yield* this.#rebuild(state);
    if (error === undefined) {
      config.bypass = state.bypass;
      faults.restore(state.reports);
      const { givenBack } = state;
      life.assign(
        givenBack === undefined
          ? { state: "known", endpoints: [] }
          : { state: "unknown", endpoints: givenBack },
      );
      this.#loaded = state;
      this.#memoryChanged = false;
      this.#misfit = undefined;
    } else if ((yield* this.#rebuild(before)) === undefined) {
      life.assign(knownBefore);
    } else {
      // Memory has come where device memory had been mapped, and does not fit the limits: all stays blocked.
      return `${error}; nor can what was there before be built again, and every endpoint is blocked`;
    }
    this.tellAll();
    return error;
  }

  /** Tells all IOTLB listeners that every translation may be another now. */
  tellAll(): void {
    const { iotlbListeners, hosts } = this.#parts;
    iotlbListeners.invalidateEverything();
    hosts.followAll();
    iotlbListeners.mappedEverything();
    iotlbListeners.settleLater();
  }

  /** The guest goes on with the state that was loaded, which fits the memory that there is by now. */
  #goOnLoaded(): StartVerdict | undefined {
    if (this.#loaded === undefined) return undefined;
    if (this.#misfit !== undefined) return { refusal: this.#misfit };
    this.#loaded = undefined;
    return undefined;
  }

  /**
   * Puts the domains of a state in the place of those there are. Everything else is blocked from then on; if the state
   * does not fit, everything is, and IOTLB listeners are told so.
   */
  *#rebuild({ domains }: SavedState): Pieces<string | undefined> {
    const { life, iommu, iotlbListeners, hosts } = this.#parts;
    life.loseTrack();
    iommu.detachAll();
    // What is built now must not lack what those that end have yet to give back.
    while (iommu.isEnding) {
      iommu.endPiece();
      yield;
    }
    const error = yield* rebuild(domains, iommu);
    if (error === undefined) return undefined;
    iommu.detachAll();
    iotlbListeners.invalidateEverything();
    hosts.followAll();
    return error;
  }

  /** A guest goes on of which nothing is known. */
  #loseTrack(warning: string): StartVerdict {
    const { life, iotlbListeners, hosts } = this.#parts;
    life.loseTrack();
    hosts.followAll();
    iotlbListeners.invalidateEverything();
    iotlbListeners.settleLater();
    return { warning };
  }
}
