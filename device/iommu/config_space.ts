/**
 * The configuration space of the device: 40 bytes, of which the guest may write one.
 *
 * Source: virtio 1.4, section 5.13.4 (`struct virtio_iommu_config`). Ranges in it are inclusive.
 */
import { writeAddress } from "../address.ts";

/** Bytes of the configuration space. */
export const CONFIG_SIZE = 40;
/** Offset of the `bypass` byte, the only one that a driver may write. */
export const CONFIG_BYPASS_OFFSET = 36;

/** What the device says about itself. */
export interface ConfigValues {
  /** Bit n set: pages of 2^n bytes can be mapped; a number below 2^53. The lowest bit is the granule. */
  readonly pageSizeMask: number;
  /** First page of the I/O virtual addresses that can be mapped. */
  readonly inputFirstPage: number;
  /** Last page of them, inclusive. */
  readonly inputLastPage: number;
  /** First domain id that the guest may use. */
  readonly domainFirst: number;
  /** Last domain id, inclusive. */
  readonly domainLast: number;
  /** Bytes of the property area of PROBE. */
  readonly probeSize: number;
  /** Whether unattached endpoints reach guest memory untranslated at power-on. */
  readonly bypass: boolean;
}

/** The configuration space. */
export class ConfigSpace {
  readonly #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(CONFIG_SIZE);
  readonly #initialBypass: boolean;
  /** What a driver has written into the bypass byte before it started the request queue. */
  #early: boolean | undefined;

  /**
   * The space at power-on.
   *
   * @throws {RangeError} If no page size is offered (C1: at least one bit must be set).
   */
  constructor(values: ConfigValues) {
    if (values.pageSizeMask < 1) {
      throw new RangeError(
        `Cannot offer a page size mask without a page size: ${values.pageSizeMask}`,
      );
    }
    this.#initialBypass = values.bypass;
    this.setLimits(values);
    const view = new DataView(this.#bytes.buffer);
    view.setUint32(24, values.domainFirst, true);
    view.setUint32(28, values.domainLast, true);
    view.setUint32(32, values.probeSize, true);
    this.bypass = values.bypass;
  }

  /** Says anew what can be mapped. A driver reads it once, when it starts. */
  setLimits(values: Pick<ConfigValues, "pageSizeMask" | "inputFirstPage" | "inputLastPage">): void {
    const view = new DataView(this.#bytes.buffer);
    view.setUint32(0, values.pageSizeMask % 2 ** 32, true);
    view.setUint32(4, Math.floor(values.pageSizeMask / 2 ** 32), true);
    writeAddress(view, 8, values.inputFirstPage, 0);
    writeAddress(view, 16, values.inputLastPage, 0xfff);
  }

  /** Whether endpoints that are attached to no domain reach guest memory untranslated. */
  get bypass(): boolean {
    return this.#bytes[CONFIG_BYPASS_OFFSET] === 1;
  }

  set bypass(on: boolean) {
    this.#bytes[CONFIG_BYPASS_OFFSET] = on ? 1 : 0; // C4: never anything but 0 or 1
  }

  /** Copies the space from `offset` on into `target`, with zeros for what lies behind its end. */
  read(target: Uint8Array, offset: number): void {
    target.fill(0);
    if (offset < CONFIG_SIZE) {
      target.set(this.#bytes.subarray(offset, Math.min(CONFIG_SIZE, offset + target.length)));
    }
  }

  /**
   * Takes what the guest wrote at `offset`. Front ends pass the whole space or single bytes; all but the bypass byte is
   * read-only and ignored, and so is any value of it but 0 and 1 (C4).
   *
   * @param isEarly Whether the request queue does not run. A restart of the guest is recognized when its new driver
   * starts a queue, and that must not undo what this driver has written before.
   * @returns Whether the bypass byte changed.
   */
  write(bytes: Uint8Array, offset: number, isEarly = false): boolean {
    const at = CONFIG_BYPASS_OFFSET - offset;
    if (at < 0 || at >= bytes.length || bytes[at] > 1) return false;
    const changed = this.bypass !== (bytes[at] === 1);
    this.bypass = bytes[at] === 1;
    if (isEarly) this.#early = this.bypass;
    return changed;
  }

  /** What a driver has written into the bypass byte before it started the request queue, if it has. */
  get early(): boolean | undefined {
    return this.#early;
  }

  /** Becomes what it was in an earlier process. */
  restore(bypass: boolean, early: boolean | undefined): void {
    this.bypass = bypass;
    this.#early = early;
  }

  /** The request queue has started, or the connection has ended: what is written now belongs to no later driver. */
  forgetEarly(): void {
    this.#early = undefined;
  }

  /**
   * Brings the bypass byte back to its value at power-on (C3: at a system reset, not at a device reset), or to what
   * the next driver has written already.
   */
  systemReset(): void {
    this.bypass = this.#early ?? this.#initialBypass;
  }

  /**
   * A device reset where it is not known whose value the bypass byte has: endpoints that are not attached pass only
   * if they do by that value and at power-on as well.
   */
  doubtfulReset(): void {
    this.bypass = this.#early ?? (this.bypass && this.#initialBypass);
  }
}
