/** Accesses that pin, unpin and move in random histories. */
import { assertEquals } from "@std/assert";
import {
  type Access,
  EDEADLK,
  EINVAL,
  ENOENT,
  EPERM,
  type Errno,
  type IoAddressSpace,
  OK,
  READ,
  WRITE,
} from "../../iommufd/mod.ts";
import type { FaultPlan } from "./fault_plan.ts";
import type { Model, ModelPin } from "./model.ts";

/** The accesses of a history. */
export class WorldPins {
  /** Whether each access keeps its pins when asked to let go. */
  readonly isDeaf: readonly boolean[];
  readonly #model: Model;
  readonly #plan: FaultPlan;
  readonly #accesses: readonly Access[];
  readonly #spaces: readonly IoAddressSpace[];

  /** Nothing is pinned. */
  constructor(
    model: Model,
    plan: FaultPlan,
    accesses: readonly Access[],
    spaces: readonly IoAddressSpace[],
    isDeaf: readonly boolean[],
  ) {
    this.#model = model;
    this.#plan = plan;
    this.#accesses = accesses;
    this.#spaces = spaces;
    this.isDeaf = isDeaf;
  }

  /** Pins; expects what the model says, or any refusal if a planned fault hit. */
  pin(access: number, first: number, count: number, isWrite: boolean): void {
    const last = first + count - 1;
    const space = this.#model.homes[access];
    const pin: ModelPin = { first, last, parts: [] };
    let expected: Errno = OK;
    this.#model.pins[access].push(pin);
    for (let page = first; page <= last && expected === OK;) {
      const area = this.#model.areaAt(space, page);
      if (area === undefined) expected = ENOENT;
      else if ((area.protection & (isWrite ? WRITE : READ)) === 0) expected = EPERM;
      else {
        const end = Math.min(last, area.last);
        const from = area.index + page - area.first;
        const to = from + (end - page);
        if (isWrite && area.list === 1) expected = EPERM;
        else if (this.#model.hasAccess(area.list, from, to)) expected = OK;
        else if (this.#model.slice(area.list, from, to).some((page) => page.isDevice)) {
          expected = EINVAL;
        } else expected = this.#model.expectHold(-1, [[area.list, from, to]]);
        if (expected === OK) pin.parts.push({ list: area.list, first: from, last: to, area });
        page = end + 1;
      }
    }
    this.#model.pins[access].pop();
    const frames = new Float64Array(count).fill(-7);
    const errno = this.#accesses[access].pin(first, last, frames, isWrite);
    if (!this.#plan.agrees(`pin ${first}+${count}`, errno, expected)) return;
    this.#model.pins[access].push(pin);
    const wanted = pin.parts.flatMap((part) =>
      this.#model.slice(part.list, part.first, part.last).map((page) => page.frame)
    );
    assertEquals([...frames], wanted);
  }

  /** Unpins one of the ranges that an access has pinned. */
  unpin(access: number, which: number): void {
    const pins = this.#model.pins[access];
    if (pins.length === 0) {
      assertEquals(this.#accesses[access].unpin(which, which + 1), ENOENT);
      return;
    }
    const pin = pins[which % pins.length];
    const engine = this.#accesses[access];
    assertEquals(this.#plan.without(() => engine.unpin(pin.first, pin.last)), OK);
    pins.splice(pins.indexOf(pin), 1);
  }

  /** Moves an access to the other space, which drops its pins first unless it is deaf. */
  moveAccess(access: number): void {
    const to = 1 - this.#model.homes[access];
    const stays = this.isDeaf[access] && this.#model.pins[access].length > 0;
    const errno = this.#plan.without(() => this.#accesses[access].replace(this.#spaces[to]));
    assertEquals(errno, stays ? EDEADLK : OK);
    if (stays) return;
    this.#model.pins[access] = [];
    this.#model.homes[access] = to;
  }

  /** An unmap asks for what is pinned in pages `[from, to]` of a space. */
  ask(space: number, from: number, to: number): void {
    const { homes, pins } = this.#model;
    for (let at = 0; at < pins.length; at++) {
      if (homes[at] !== space || this.isDeaf[at]) continue;
      pins[at] = pins[at].filter((pin) => pin.first > to || pin.last < from);
    }
  }
}
