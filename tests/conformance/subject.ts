/**
 * The interface that the conformance suite needs of a virtio-iommu, so that any implementation can be tested.
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

/** The byte that writable parts are filled with, to find those that the device did not write. */
export const POISON = 0xa5;

/** The result of an endpoint's access. */
export type AccessResult = { readonly phys: bigint } | "fault";

/** The configuration of a device for a test. */
export interface Configuration {
  /** Whether unattached endpoints bypass at power-on; on by default. */
  readonly bypass?: boolean;
  /** Ranges that an endpoint reserves, inclusive; the MSI region of x86 alone by default. */
  readonly reserved?: readonly {
    readonly range: string;
    readonly endpoint?: number;
    readonly msi?: boolean;
  }[];
  /** The bit number of a feature that is not offered. */
  readonly withoutFeature?: number;
  /** The last endpoint id; 0xffff by default. */
  readonly lastEndpoint?: number;
  /** The range of addresses that can be mapped, inclusive, as a text such as `0x1000-0xffff`. */
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
  /** The result of an access of an endpoint. */
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

/** A device cannot be configured as a statement needs it, so the statement does not apply to it. */
export class NotConfigurable extends Error {
  override readonly name = "NotConfigurable";
}
