/**
 * Guest memory as the front end hands it over: descriptors of memory files, mapped here, and regions of
 * them that the guest sees (SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG).
 *
 * A region has two addresses: the guest's, and the front end's own, its *user address*, in whose terms ring addresses
 * arrive. User addresses have all 64 bits, so they are pages and offsets here.
 *
 * Order of a removal: the table changes and queues notice, the device is told, and once it keeps nothing that leads
 * there the buffers are detached and the memory is unmapped. After each step nothing can reach what the next one ends.
 */
import { type Descriptor, SharedMemory } from "../host/mod.ts";
import { GuestMemory, type MemoryRegion } from "../../vring/mod.ts";
import {
  type Address,
  addressText,
  isSameAddress,
  LAST_PAGE,
  PAGE_SIZE,
  readAddress,
} from "../address.ts";
import type { VirtioDevice } from "../virtio_device.ts";
import { MAX_MEMORY_SLOTS, readU64 } from "./protocol.ts";

/** A region as a message describes it. */
export interface RegionDescription {
  /** First byte as the guest sees it. */
  readonly guestAddress: number;
  /** Bytes. */
  readonly size: number;
  /** First byte in the front end's own address space. */
  readonly userAddress: Address;
  /** Where in the file it begins, in bytes. */
  readonly fileOffset: number;
}

/** A region as a process that takes over is told of it. */
export interface RegionState extends RegionDescription {
  /** Its descriptor, as `Descriptor.heldAs` numbers it. */
  readonly heldAs: number;
}

/** A region with its mapping. */
interface MappedRegion {
  readonly region: MemoryRegion;
  readonly memory: SharedMemory;
  /** First byte in the front end's own address space. */
  readonly userAddress: Address;
  /** The file it is of, so that the same region handed over again is recognised. */
  readonly file: string;
  readonly fileOffset: number;
  /** Its descriptor, as `Descriptor.heldAs` numbers it. */
  readonly heldAs: number;
}

/** Reads a region description at byte `at`; a guest address, size or offset of 2^53 or more comes out as -1. */
export function readRegion(data: DataView, at: number): RegionDescription {
  return {
    guestAddress: readU64(data, at),
    size: readU64(data, at + 8),
    userAddress: readAddress(data, at + 16),
    fileOffset: readU64(data, at + 24),
  };
}

/** Regions of guest memory and their mappings. */
export class MemoryTable {
  /** The same memory as queues and the device see it: the device's, if it has one. */
  readonly memory: GuestMemory;
  readonly #device: VirtioDevice;
  #mapped: MappedRegion[] = [];

  /** An empty table whose changes `device` is told of. */
  constructor(device: VirtioDevice) {
    this.#device = device;
    this.memory = device.memory ?? new GuestMemory();
  }

  /**
   * Adds a region (ADD_MEM_REG). The descriptor stays the caller's.
   *
   * @returns nothing, or why it was refused; then nothing has changed.
   */
  add(description: RegionDescription, file: Descriptor): string | undefined {
    if (this.#mapped.length >= MAX_MEMORY_SLOTS) {
      return `there are ${MAX_MEMORY_SLOTS} regions already`;
    }
    const mapped = map(description, file);
    if (typeof mapped === "string") return mapped;
    const error = this.memory.add(mapped.region);
    if (error !== undefined) {
      mapped.memory.close();
      return error.message;
    }
    this.#mapped.push(mapped);
    this.#device.memoryAdded(mapped.region);
    return undefined;
  }

  /**
   * Removes a region (REM_MEM_REG): guest address, size and user address have to agree, the file's offset
   * does not count.
   *
   * @returns nothing, or why it was refused; then nothing has changed.
   */
  remove(description: RegionDescription): string | undefined {
    const { guestAddress, size, userAddress } = description;
    const found = this.#mapped.find((each) =>
      each.region.guestAddress === guestAddress && each.region.size === size &&
      isSameAddress(each.userAddress, userAddress)
    );
    if (found === undefined) {
      return `no region of ${size} bytes is at 0x${guestAddress.toString(16)}, user address ` +
        addressText(userAddress.page, userAddress.offset);
    }
    this.memory.remove(guestAddress, size);
    this.#unmapAllBut(this.#mapped.filter((each) => each !== found));
    return undefined;
  }

  /**
   * Puts a whole table in place (SET_MEM_TABLE). A region of the old table that is the same file, place and
   * address in the new one stays as it is, and the device does not notice. Descriptors stay the caller's.
   *
   * @returns nothing, or why it was refused; then nothing has changed.
   */
  replace(
    descriptions: readonly RegionDescription[],
    files: readonly Descriptor[],
  ): string | undefined {
    const table: MappedRegion[] = [];
    const fresh: MappedRegion[] = [];
    let problem: string | undefined;
    for (let i = 0; i < descriptions.length && problem === undefined; i++) {
      const same = this.#find(descriptions[i], files[i]);
      const mapped = same ?? map(descriptions[i], files[i]);
      if (typeof mapped === "string") {
        problem = `region ${i}: ${mapped}`;
        break;
      }
      if (same === undefined) fresh.push(mapped);
      table.push(mapped);
    }
    problem ??= this.memory.replace(table.map((each) => each.region))?.message;
    if (problem !== undefined) {
      for (const each of fresh) each.memory.close();
      return problem;
    }
    this.#unmapAllBut(table);
    for (const each of fresh) this.#device.memoryAdded(each.region);
    return undefined;
  }

  /** The guest-physical address behind a user address, as SET_VRING_ADDR gives them; -1 if it is in no region. */
  guestAddressOf(address: Address): number {
    for (const { region, userAddress } of this.#mapped) {
      // The difference is exact wherever it is below 2^53, and so inside any region.
      const into = (address.page - userAddress.page) * PAGE_SIZE +
        (address.offset - userAddress.offset);
      if (into >= 0 && into < region.size) return region.guestAddress + into;
    }
    return -1;
  }

  /** The regions, for {@linkcode MemoryTable.restore}. */
  save(): readonly RegionState[] {
    return this.#mapped.map(({ region, userAddress, fileOffset, heldAs }) => ({
      guestAddress: region.guestAddress,
      size: region.size,
      userAddress,
      fileOffset,
      heldAs,
    }));
  }

  /**
   * Maps the regions of an earlier process. Descriptors stay the caller's.
   *
   * @returns nothing, or why one cannot be mapped.
   */
  restore(
    regions: readonly RegionState[],
    descriptors: ReadonlyMap<number, Descriptor>,
  ): string | undefined {
    for (const region of regions) {
      const file = descriptors.get(region.heldAs);
      const problem = file === undefined ? "its file is missing" : this.add(region, file);
      if (problem !== undefined) return problem;
    }
    return undefined;
  }

  /** Removes everything. */
  clear(): void {
    this.replace([], []);
  }

  #find(description: RegionDescription, file: Descriptor): MappedRegion | undefined {
    const status = SharedMemory.status(file);
    if (typeof status === "string") return undefined;
    return this.#mapped.find(({ region, userAddress, file, fileOffset }) =>
      file === status.identity && fileOffset === description.fileOffset &&
      region.guestAddress === description.guestAddress && region.size === description.size &&
      isSameAddress(userAddress, description.userAddress)
    );
  }

  #unmapAllBut(kept: MappedRegion[]): void {
    const old = this.#mapped;
    this.#mapped = kept;
    const removed = old.filter((each) => !kept.includes(each));
    for (const { region } of removed) this.#device.memoryRemoved(region);
    for (const each of removed) {
      const close = () => each.memory.close();
      if (this.#device.keepsMemory?.(each.region, close) !== true) close();
    }
  }
}

function map(description: RegionDescription, file: Descriptor): MappedRegion | string {
  const { guestAddress, size, userAddress, fileOffset } = description;
  if (guestAddress < 0 || size < 0 || fileOffset < 0) {
    return "a guest address, size or offset is 2^53 or more";
  }
  if (userAddress.page + Math.floor((userAddress.offset + size - 1) / PAGE_SIZE) > LAST_PAGE) {
    return "its user addresses reach beyond 2^64";
  }
  const status = SharedMemory.status(file);
  const memory = typeof status === "string" ? status : SharedMemory.map(file, fileOffset, size);
  if (typeof memory === "string" || typeof status === "string") {
    return `the file of guest memory at 0x${guestAddress.toString(16)}: ${memory}`;
  }
  const region = { guestAddress, size, buffer: memory.buffer, offset: 0 };
  const { heldAs } = file;
  return { region, memory, userAddress, file: status.identity, fileOffset, heldAs };
}
