/**
 * A device whose life is recorded: everything that comes through its methods, and through the hooks of the model, goes to
 * a {@linkcode Recorder} before it takes effect; answers and translations, when they are known.
 */
import type { WalkResult } from "../../pagetable/mod.ts";
import type { MemoryRegion, Queue } from "../../vring/mod.ts";
import { CONFIG_BYPASS_OFFSET } from "../iommu/config_space.ts";
import { type DeviceOptions, IommuDevice } from "../iommu/iommu_device.ts";
import type { Turn } from "../iommu/turn.ts";
import type { Refusal, ResetKind, StartSign, StartVerdict } from "../virtio_device.ts";
import type { Recorder } from "./recorder.ts";

/** A device, and the recorder of its life. */
export class RecordedDevice extends IommuDevice {
  readonly #recorder: Recorder;
  readonly #recordsDma: boolean;

  /**
   * A device to which nothing is attached.
   *
   * @param recordsDma Whether DMA translations of endpoints are recorded.
   * @throws {RangeError} If the options contradict each other.
   */
  constructor(options: DeviceOptions, recorder: Recorder, recordsDma: boolean) {
    super(options);
    this.#recorder = recorder;
    this.#recordsDma = recordsDma;
    this.requests.recorder = recorder;
    this.iotlbListeners.recorder = recorder;
  }

  override service(index: number, queue: Queue, budget: number, turn?: Turn): number {
    if (turn !== undefined) this.#recorder.setTime(turn.now);
    return super.service(index, queue, budget, turn);
  }

  override work(turn: Turn): void {
    this.#recorder.setTime(turn.now);
    super.work(turn);
  }

  override writeConfig(bytes: Uint8Array, offset: number): void {
    const at = CONFIG_BYPASS_OFFSET - offset;
    if (at >= 0 && at < bytes.length) this.#now().bypass(bytes[at]);
    super.writeConfig(bytes, offset);
  }

  override featuresAgreed(low: number, high: number): void {
    this.#now().features(low, high);
    super.featuresAgreed(low, high);
  }

  override memoryAdded(region: MemoryRegion): void {
    this.#now().memory(true, region);
    super.memoryAdded(region);
  }

  override memoryRemoved(region: MemoryRegion): void {
    this.#now().memory(false, region);
    super.memoryRemoved(region);
  }

  override reset(kind: ResetKind): void {
    this.#now().reset(kind);
    super.reset(kind);
  }

  override sessionEnds(): void {
    this.#now().session(false);
    super.sessionEnds();
  }

  override disconnected(): string | undefined {
    this.#now().session(true);
    return super.disconnected();
  }

  override queueBegins(index: number, sign: StartSign): StartVerdict | undefined {
    this.#now().queueBegins(index, sign);
    return super.queueBegins(index, sign);
  }

  override queueStarted(index: number, queue: Queue): void {
    this.#now().queue(index, true);
    super.queueStarted(index, queue);
  }

  override queueStopped(index: number): void {
    // A request that is under way is answered first.
    super.queueStopped(index);
    this.#now().queue(index, false);
  }

  override loadState(bytes: Uint8Array): Refusal {
    this.#now().state(bytes);
    return super.loadState(bytes);
  }

  override beginLoad(bytes: Uint8Array, done: (error: Refusal) => void): void {
    this.#now().state(bytes);
    super.beginLoad(bytes, done);
  }

  override access(endpointId: number, page: number, access: number): WalkResult {
    const walk = super.access(endpointId, page, access);
    if (this.#recordsDma) {
      this.#now().translated(endpointId, page, access, walk.ok ? walk.frame : -1, walk.fault);
    }
    return walk;
  }

  override refused(endpointId: number, page: number, offset: number, access: number): void {
    this.#now().fault(endpointId, page, offset, access);
    super.refused(endpointId, page, offset, access);
  }

  /** The recorder, told what time it is. */
  #now(): Recorder {
    this.#recorder.setTime(performance.now());
    return this.#recorder;
  }
}
