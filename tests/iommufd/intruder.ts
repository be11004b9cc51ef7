/** Tries to get in in the middle of an operation: whatever would touch what is busy must be refused (I11). */
import { assertEquals } from "@std/assert";
import {
  type Access,
  EBUSY,
  type Errno,
  type IoAddressSpace,
  type PageList,
  READ,
  setDirtyTracking,
} from "../../iommufd/mod.ts";
import type { FaultPlan } from "./fault_plan.ts";
import type { Model } from "./model.ts";
import { PlainTable } from "./plain_table.ts";
import { asTable } from "./world_tables.ts";

/** What a history works on. */
export interface Engines {
  readonly model: Model;
  readonly plan: FaultPlan;
  readonly lists: readonly PageList[];
  readonly spaces: readonly IoAddressSpace[];
  readonly accesses: readonly Access[];
}

/** Calls what must be refused, one thing each time. */
export class Intruder {
  /** How often something tried, and was refused. */
  tries = 0;
  readonly #engines: Engines;
  #isInside = false;

  /** Tries nothing yet. */
  constructor(engines: Engines) {
    this.#engines = engines;
  }

  /** Tries one thing that must be refused, in the middle of an operation. */
  getIn(): void {
    if (this.#isInside) return;
    this.#isInside = true;
    const { plan } = this.#engines;
    const hits = plan.hits;
    const calls = this.#calls();
    if (calls.length > 0) {
      const [what, act] = calls[this.tries * 7919 % calls.length];
      assertEquals(act(), EBUSY, `I11: ${what} got in`);
      this.tries++;
    }
    assertEquals(plan.hits, hits, "I11: what is refused reached something that can fail");
    this.#isInside = false;
  }

  /** What must be refused now. */
  #calls(): [string, () => Errno][] {
    const calls: [string, () => Errno][] = [];
    const { accesses, lists, model, spaces } = this.#engines;
    for (let space = 0; space < 2; space++) {
      const engine = spaces[space];
      if (engine.isBusy) {
        calls.push(
          ["unmap", () => engine.unmap(0, 1000)],
          ["map", () => engine.map(900, 900, lists[0], 0, READ)],
          ["mapAuto", () => engine.mapAuto(1, lists[2], 0, READ)],
          ["copy", () => engine.copy(engine, 0, 0, 900, READ)],
          ["addPageTable", () => engine.addPageTable(new PlainTable())],
          ["reserve", () => engine.reserve(900, 901, this)],
          ["unreserve", () => engine.unreserve(this)],
          ["allow", () => engine.allow([])],
          ["setLargePages", () => engine.setLargePages(true)],
          ["setDirtyTracking", () => setDirtyTracking(engine, true)],
        );
        for (const each of model.tables[space]) {
          calls.push(["removePageTable", () => engine.removePageTable(asTable(each))]);
        }
      } else {
        for (const list of lists) {
          if (!list.isBusy) continue;
          calls.push(["map of a busy list", () => engine.map(900, 900, list, 0, READ)]);
        }
        for (const area of model.areas[space]) {
          if (!lists[area.list].isBusy) continue;
          calls.push(["unmap of a busy list", () => engine.unmap(area.first, area.last)]);
          const isWrite = (area.protection & READ) === 0;
          for (const access of accesses) {
            if (access.space !== engine) continue;
            calls.push([
              "pin of a busy list",
              () => access.pin(area.first, area.first, null, isWrite),
            ]);
          }
        }
      }
    }
    for (let at = 0; at < accesses.length; at++) {
      const access = accesses[at];
      if (access.space?.isBusy === true) {
        calls.push(["pin", () => access.pin(0, 0, null, false)]);
        calls.push(["read", () => access.read(0, 0, new Uint8Array(1))]);
      }
      for (const pin of model.pins[at]) {
        const isBusy = pin.parts.some((part) => lists[part.list].refusesRemoval);
        if (isBusy) calls.push(["unpin", () => access.unpin(pin.first, pin.last)]);
      }
    }
    return calls;
  }
}
