/**
 * One of QEMU's IOMMUs as the judge of our tables and our walker.
 *
 * @module
 */
import type { TableMemory } from "../../pagetable/mod.ts";
import { findQemu, type Qemu } from "../guest/lab/mod.ts";
import { Qtest } from "./qtest.ts";

/** A fault that the IOMMU recorded. */
export interface RecordedFault {
  /** The code in the record: VT-d fault reason, SMMUv3 event type, AMD event code. */
  readonly code: number;
  /** Requester id or StreamID. */
  readonly endpoint: number;
  /** Page of the input address, where the record has it. */
  readonly page?: number;
  /** Whether the access was a write, where the record says so. */
  readonly write?: boolean;
}

/** An IOMMU of QEMU. */
export interface Judge {
  /** Whether it records no fault when it refuses by a translation that it has cached. */
  readonly forgetsRefusals: boolean;
  /** Points it at the device tables and turns translation on; `registers` as our units name them. */
  enable(registers: Readonly<Record<string, bigint>>): Promise<void>;
  /** Makes it forget every translation and every device table entry it holds. */
  invalidateAll(): Promise<void>;
  /** Makes it look at a device's entry again, where `invalidateAll` does not. */
  invalidateDevice?(endpoint: number): Promise<void>;
  /** The oldest fault recorded since the last call, which is then forgotten, or undefined. */
  takeFault(): Promise<RecordedFault | undefined>;
}

/** The QEMU that plays the judge. Throws where there is none, or one that qtest cannot drive. */
export async function prepareJudge(arch: "x86_64" | "aarch64"): Promise<Qemu> {
  const qemu = await findQemu(arch);
  try {
    await using machine = new Qtest(qemu, ["-M", "none"]);
    await machine.step(1);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot drive ${qemu.command[0]} over qtest: ${reason}`);
  }
  return qemu;
}

/** Words of a 4 KiB page. */
const PAGE_WORDS = 1024;

/** Most pages that one command of the machine carries. */
const LOAD_PAGES = 256;

/** Keeps a machine's copy of our table memory equal to it. */
export class TableLoader {
  readonly #machine: Qtest;
  readonly #memory: TableMemory;
  readonly #loaded: Int32Array<ArrayBuffer>;

  /** The machine's memory is zero where the tables will be. */
  constructor(machine: Qtest, memory: TableMemory) {
    this.#machine = machine;
    this.#memory = memory;
    this.#loaded = new Int32Array(memory.words.length);
  }

  /** Copies the pages that changed since the last call to the addresses that they believe they have. */
  async load(): Promise<void> {
    const { words, capacity, baseFrame } = this.#memory;
    for (let page = 0; page < capacity;) {
      if (!this.#differs(page)) {
        page++;
        continue;
      }
      let end = page + 1;
      while (end < capacity && end - page < LOAD_PAGES && this.#differs(end)) end++;
      const part = words.subarray(page * PAGE_WORDS, end * PAGE_WORDS);
      this.#loaded.set(part, page * PAGE_WORDS);
      const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
      await this.#machine.write((baseFrame + page) * 4096, bytes);
      page = end;
    }
  }

  #differs(page: number): boolean {
    const { words } = this.#memory;
    for (let at = page * PAGE_WORDS; at < (page + 1) * PAGE_WORDS; at++) {
      if (words[at] !== this.#loaded[at]) return true;
    }
    return false;
  }
}
