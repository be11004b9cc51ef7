/**
 * What the conformance suite needs of a virtio-iommu, so that any implementation can be put to it.
 *
 * @module
 */

/** The answer to a request. */
export interface Answer {
  /** Used length: how many bytes the device says it wrote. */
  readonly length: number;
  /** The writable part, filled with {@linkcode POISON} before the device saw it. */
  readonly bytes: Uint8Array;
}

/** What writable parts are filled with, so that a byte the device did not write shows. */
export const POISON = 0xa5;

/** What an endpoint's access comes to. */
export type AccessResult = { readonly phys: bigint } | "fault";

/** What a device can be configured with for a test. */
export interface Configuration {
  /** Whether unattached endpoints bypass at power-on; on by default. */
  readonly bypass?: boolean;
  /** Ranges that an endpoint reserves, inclusive; the MSI region of x86 alone by default. */
  readonly reserved?: readonly {
    readonly range: string;
    readonly endpoint?: number;
    readonly msi?: boolean;
  }[];
  /** Leaves the offer of a feature out, by bit number. */
  readonly withoutFeature?: number;
  /** Ends the endpoint ids, inclusive; 0xffff by default. */
  readonly lastEndpoint?: number;
  /** What can be mapped, both included, as a text such as `0x1000-0xffff`. */
  readonly inputRange?: string;
  /** Highest number of domains, of mappings. */
  readonly maxDomains?: number;
  readonly maxMappings?: number;
}

/** A device with a driver that has set it up: features negotiated, queues running. */
export interface DeviceUnderTest {
  /** Device feature bits 31:0 that are offered. */
  readonly features: number;
  /**
   * Sends one request and waits for it to be used.
   *
   * @param pieces How many buffers either part is cut into at most; 1 by default.
   */
  request(readable: Uint8Array, writableLength: number, pieces?: number): Promise<Answer>;
  /** Reads the configuration space. */
  readConfig(): Promise<Uint8Array>;
  /** Writes one byte of the configuration space. */
  writeConfig(offset: number, value: number): Promise<void>;
  /** Resets the device or the whole system, and sets it up again. */
  reset(kind: "device" | "system"): Promise<void>;
  /** What an access of an endpoint comes to. */
  access(endpoint: number, iova: bigint, access: "r" | "w"): Promise<AccessResult>;
  /**
   * Lets an endpoint access an address, so that a fault is reported, and returns the next report the guest gets
   * within a moment, with the given size of buffer; undefined if none comes.
   */
  fault(
    endpoint: number,
    iova: bigint,
    access: "r" | "w",
    bufferSize: number,
  ): Promise<Answer | undefined>;
  /** Ends it. */
  close(): Promise<void>;
}

/** Makes a device, set up with every feature that it offers but those named. */
export type OpenDevice = (
  configuration: Configuration,
  withoutNegotiating?: number,
) => Promise<DeviceUnderTest>;

/** A device cannot be configured as a statement wants it: the statement says nothing about it then. */
export class NotConfigurable extends Error {
  /** Name of the class. */
  override readonly name = "NotConfigurable";
}
