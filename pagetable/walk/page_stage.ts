/**
 * The part that the decoders of VT-d and AMD tables share: tables are single pages of 512 entries, and levels count
 * down to 1.
 */
import { INVERSES, POWERS } from "./arithmetic.ts";
import { type Fault, NO_FAULT } from "./fault.ts";
import { StageDecoder } from "./stage.ts";

/** A decoder of tables of 512 entries. */
export abstract class PageStageDecoder extends StageDecoder {
  /** Levels of the tables. */
  protected levels = 4;
  #rootFrame = 0;

  /** Sets the top table of the next walks. */
  setRoot(rootFrame: number, levels: number): void {
    this.#rootFrame = rootFrame;
    this.levels = levels;
  }

  index(page: number): number {
    return (page * INVERSES[9 * (this.level - 1)]) & 511;
  }

  reach(): number {
    return POWERS[9 * (this.level - 1)];
  }

  /** Begins a walk at the top table, below entries that permit `permission`. */
  protected begin(access: number, permission: number): void {
    this.enter(this.#rootFrame, this.levels);
    this.leaf = false;
    this.access = access;
    this.permission = permission;
  }

  /** Moves on to a table. */
  protected enter(tableFrame: number, level: number): Fault {
    this.tableFrame = tableFrame;
    this.level = level;
    return NO_FAULT;
  }
}
