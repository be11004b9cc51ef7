/**
 * The host frames of a guest's RAM, from QEMU's page map: a process other than `serve`, with its own mapping of the same
 * file, read by code other than the tested one.
 *
 * @module
 */
import { assert } from "@std/assert";
import { PAGE } from "./mapping_plan.ts";

/** A mapping of guest RAM in a process; bytes. */
interface RamMapping {
  readonly address: number;
  readonly bytes: number;
  /** Its offset in the file: with less than 2 GiB of RAM, the guest-physical address. */
  readonly offset: number;
}

/** The RAM of one guest. */
export class HostFrames implements Disposable {
  readonly #pagemap: Deno.FsFile;
  readonly #mappings: readonly RamMapping[];

  /** Reads the page map of the guest's QEMU. */
  constructor(pid: number) {
    this.#mappings = Deno.readTextFileSync(`/proc/${pid}/maps`).split("\n")
      .filter((line) => line.includes("/memfd:memory-backend-memfd"))
      .map((line) => {
        const [range, , offset] = line.split(" ");
        const [address, end] = range.split("-").map((text) => parseInt(text, 16));
        return { address, bytes: end - address, offset: parseInt(offset, 16) };
      });
    assert(this.#mappings.length > 0, "QEMU maps guest RAM");
    this.#pagemap = Deno.openSync(`/proc/${pid}/pagemap`);
  }

  /** The host-physical address of a guest-physical page, in bytes. */
  addressOf(guestAddress: number): number {
    for (const { address, bytes, offset } of this.#mappings) {
      if (guestAddress < offset || guestAddress >= offset + bytes) continue;
      const entry = new BigUint64Array(1);
      this.#pagemap.seekSync((address + guestAddress - offset) / PAGE * 8, Deno.SeekMode.Start);
      this.#pagemap.readSync(new Uint8Array(entry.buffer));
      const isPresent = entry[0] >> 63n === 1n;
      if (isPresent) return Number(entry[0] & (2n ** 55n - 1n)) * PAGE;
    }
    throw new Error(`QEMU has no frame for guest page 0x${guestAddress.toString(16)}`);
  }

  /** Closes the page map. */
  [Symbol.dispose](): void {
    this.#pagemap.close();
  }
}
