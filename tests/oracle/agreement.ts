/**
 * Asks QEMU's IOMMU and our walker the same questions and insists on the same answers.
 *
 * A question is one DMA of 4 bytes by an `edu` device. Where our walker names an output address, the data
 * must have moved there and no fault may be recorded; where it names a fault, the IOMMU must have recorded
 * the same one (none where its code is 0), and memory must be as it was.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { READ, type TranslationUnit, WalkResult, WRITE } from "../../pagetable/mod.ts";
import { Random } from "../guest/random.ts";
import type { Edu } from "./edu.ts";
import type { Judge } from "./judge.ts";
import type { Qtest } from "./qtest.ts";

/** One access to ask about. */
export interface Question {
  readonly edu: Edu;
  /** Byte address, a multiple of 4. */
  readonly iova: number;
  readonly access: "r" | "w";
  /** Byte address that must not change where the access is refused. */
  readonly untouched?: number;
  /** What is special about it, for messages. */
  readonly about?: string;
}

/** What the two of them have to share. */
export interface AgreementOptions {
  readonly machine: Qtest;
  readonly judge: Judge;
  readonly unit: Pick<TranslationUnit, "walk">;
  /** Page through which an `edu` gets and leaves data, mapped to the frame of the same number. */
  readonly scratch: number;
  /** The code QEMU records for a fault of our walker, where it is known to record another one. */
  readonly codeOf?: (result: WalkResult, access: "r" | "w") => number;
}

/** Puts questions and counts the answers. */
export class Agreement {
  /** Accesses that both let through. */
  translated = 0;
  /** Accesses that both refused. */
  refusals = 0;

  readonly #options: AgreementOptions;
  readonly #result: WalkResult = new WalkResult();
  readonly #random: Random = new Random(7);

  constructor(options: AgreementOptions) {
    this.#options = options;
  }

  /** Asks both; throws unless they agree. */
  async ask(question: Question): Promise<void> {
    const { unit } = this.#options;
    const { edu, iova, access } = question;
    const page = Math.floor(iova / 4096);
    const result = this.#result;
    const ok = unit.walk(edu.bdf, page, access === "r" ? READ : WRITE, result);
    const about = question.about === undefined ? "" : `, ${question.about}`;
    const place = `${access} at 0x${iova.toString(16)} by 0x${edu.bdf.toString(16)}${about}`;
    if (ok) {
      const phys = result.frame * 4096 + iova % 4096;
      await this.#expectMoved(question, phys, `${place}, we say 0x${phys.toString(16)}`);
      this.translated++;
    } else {
      const code = this.#options.codeOf?.(result, access) ?? result.faultCode;
      await this.#expectRefused(question, code, `${place}, we say ${result.faultName}`);
      this.refusals++;
    }
  }

  async #expectMoved(question: Question, phys: number, place: string): Promise<void> {
    const { machine, judge } = this.#options;
    const { edu, iova, access } = question;
    const token = this.#token();
    const moved = access === "r"
      ? await this.#readThrough(edu, iova, phys, token)
      : await this.#writeThrough(edu, iova, phys, token);
    assertEquals(await judge.takeFault(), undefined, place);
    assertEquals(moved, token, place);
    assertEquals(await machine.readl(phys), token, place);
  }

  /** Puts the token at `phys`; what `edu` reads at `iova`. Commands are sent ahead, in order. */
  async #readThrough(edu: Edu, iova: number, phys: number, token: number): Promise<number> {
    const { machine, scratch } = this.#options;
    const [, , , , , moved] = await Promise.all([
      machine.writel(scratch * 4096, ~token >>> 0),
      edu.load(scratch * 4096),
      machine.writel(phys, token),
      edu.load(iova),
      edu.store(scratch * 4096 + 8),
      machine.readl(scratch * 4096 + 8),
    ]);
    return moved;
  }

  /** What is at `phys` after `edu` has written the token at `iova`. */
  async #writeThrough(edu: Edu, iova: number, phys: number, token: number): Promise<number> {
    const { machine, scratch } = this.#options;
    const [, , , , moved] = await Promise.all([
      machine.writel(scratch * 4096, token),
      edu.load(scratch * 4096),
      machine.writel(phys, ~token >>> 0),
      edu.store(iova),
      machine.readl(phys),
    ]);
    return moved;
  }

  async #expectRefused(question: Question, code: number, place: string): Promise<void> {
    const { machine, judge } = this.#options;
    const { edu, iova, access, untouched } = question;
    const token = this.#token();
    if (judge.forgetsRefusals) await judge.invalidateAll();
    const [, , after] = await Promise.all([
      untouched === undefined ? undefined : machine.writel(untouched, token),
      access === "r" ? edu.load(iova) : edu.store(iova),
      untouched === undefined ? token : machine.readl(untouched),
    ]);
    const fault = await judge.takeFault();
    assertEquals(after, token, place);
    if (code === 0) {
      assertEquals(fault, undefined, `${place}, without a record`);
      return;
    }
    assert(fault !== undefined, `${place}, QEMU records no fault`);
    assertEquals(fault.code, code, place);
    assertEquals(fault.endpoint, edu.bdf, place);
    assertEquals(fault.page ?? Math.floor(iova / 4096), Math.floor(iova / 4096), place);
    assertEquals(fault.write ?? access === "w", access === "w", place);
    assertEquals(await judge.takeFault(), undefined, `${place}, once`);
  }

  #token(): number {
    return this.#random.below(2 ** 32);
  }
}
