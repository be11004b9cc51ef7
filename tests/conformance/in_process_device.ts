/**
 * Our device, driven over a ring in this process, without a socket.
 *
 * @module
 */
import { READ, WRITE } from "../../pagetable/mod.ts";
import { EndpointMemory } from "../../device/endpoint/endpoint_memory.ts";
import { InProcessGuest } from "../device/in_process_guest.ts";
import {
  type AccessResult,
  type Answer,
  type Configuration,
  type DeviceUnderTest,
  POISON,
} from "./subject.ts";
import { optionsOf } from "./viommu_options.ts";

/** The device and its driver. */
export class InProcessDevice implements DeviceUnderTest {
  readonly #guest: InProcessGuest;
  readonly #negotiated: number;

  constructor(configuration: Configuration, withoutNegotiating: number) {
    this.#negotiated = ~withoutNegotiating;
    this.#guest = new InProcessGuest(optionsOf(configuration), this.#negotiated);
  }

  get features(): number {
    return this.#guest.device.featuresLow;
  }

  request(readable: Uint8Array, writableLength: number, pieces = 1): Promise<Answer> {
    return Promise.resolve(this.#guest.request(readable, writableLength, POISON, pieces));
  }

  readConfig(): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#guest.device.configSize);
    this.#guest.device.readConfig(bytes, 0);
    return Promise.resolve(bytes);
  }

  writeConfig(offset: number, value: number): Promise<void> {
    this.#guest.device.writeConfig(Uint8Array.of(value), offset);
    return Promise.resolve();
  }

  reset(kind: "device" | "system"): Promise<void> {
    this.#guest.reset(kind, this.#negotiated);
    return Promise.resolve();
  }

  access(endpoint: number, iova: bigint, access: "r" | "w"): Promise<AccessResult> {
    const page = Number(iova >> 12n);
    const walk = this.#guest.device.walk(endpoint, page, access === "r" ? READ : WRITE);
    if (!walk.ok) return Promise.resolve("fault");
    return Promise.resolve({ phys: BigInt(walk.frame) * 4096n + (iova & 0xfffn) });
  }

  fault(
    endpoint: number,
    iova: bigint,
    access: "r" | "w",
    bufferSize: number,
  ): Promise<Answer | undefined> {
    this.#guest.offerEventBuffer(bufferSize, POISON);
    const memory = new EndpointMemory(this.#guest.device, endpoint, this.#guest.device.memory);
    memory.resolve(Number(iova & 0xfffn), 1, access === "w", Number(iova >> 12n));
    memory.close();
    return Promise.resolve(this.#guest.takeEvent(bufferSize));
  }

  close(): Promise<void> {
    this.#guest.close();
    return Promise.resolve();
  }
}
