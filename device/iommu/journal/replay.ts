/**
 * Does again what the entries of a journal say, in a device that has done everything before them.
 *
 * Only what succeeded is done again, and it succeeds again: entries are in the order in which things happened, and everything
 * that an outcome depends on is an entry, too. Something that cannot be done means another program or other options wrote the
 * journal; then the device cannot be used.
 */
import { type Errno, OK } from "../../../pagetable/mod.ts";
import { rangeText } from "../../address.ts";
import type { ResetKind, StartSign } from "../../virtio_device.ts";
import type { ConfigSpace } from "../config_space.ts";
import type { GuestLife, LifeState } from "../guest_life.ts";
import type { GuestLives } from "../guest_lives.ts";
import type { GuestRam } from "../guest_ram.ts";
import { finish } from "../pieces.ts";
import type { VirtioIommu } from "../virtio_iommu.ts";
import { REQUEST_NAMES, REQUEST_QUEUE, S_OK, T_ATTACH, T_DETACH, T_MAP, T_UNMAP } from "../wire.ts";
import type { Answers } from "./answers.ts";
import {
  type Entry,
  ENTRY_BYPASS,
  ENTRY_DISCONNECTED,
  ENTRY_FRESH,
  ENTRY_LOADED,
  ENTRY_QUEUE_BEGINS,
  ENTRY_QUEUE_STARTED,
  ENTRY_REGION,
  ENTRY_REGION_ADDED,
  ENTRY_REGION_REMOVED,
  ENTRY_RESET,
} from "./journal.ts";

/** Kinds of resets and signs of starts as entries have them: by their places here. */
export const RESET_KINDS: readonly ResetKind[] = ["device", "system", "doubtful"];
export const START_SIGNS: readonly StartSign[] = ["new", "unused", "used", "loaded"];
/** Flag of {@linkcode ENTRY_REGION_REMOVED}. */
export const REMOVED_UNMAPPED = 1 << 0;
/** What is known of a guest that has attached nothing. */
export const FRESH_STATES: readonly LifeState[] = ["none", "known"];

/** The parts of a device that entries change. */
export interface ReplayParts {
  /** Domains. */
  readonly iommu: VirtioIommu;
  /** What is known of the guest. */
  readonly life: GuestLife;
  /** Resets, ends of connections, starts of queues. */
  readonly lives: GuestLives;
  /** The bypass byte. */
  readonly config: ConfigSpace;
  /** Guest memory. */
  readonly ram: GuestRam;
}

/** The flags of an entry that has the bypass byte, and what a driver has written early. */
export function bypassFlags({ bypass, early }: ConfigSpace): number {
  return Number(bypass) | (early === undefined ? 0 : early ? 3 : 2) << 1;
}

/** Sets the bypass byte as such flags say. */
export function restoreBypass(config: ConfigSpace, flags: number): void {
  const early = flags >>> 1 & 3;
  config.restore((flags & 1) !== 0, early === 0 ? undefined : early === 3);
}

/** Replays entries. */
export class Replay {
  readonly #parts: ReplayParts;
  readonly #answers: Answers;

  /** @param answers Gets the answer of each request. */
  constructor(parts: ReplayParts, answers: Answers) {
    this.#parts = parts;
    this.#answers = answers;
  }

  /**
   * Does what an entry says.
   *
   * @returns One line if it cannot be done.
   */
  apply(entry: Entry): string | undefined {
    const { kind } = entry;
    if (kind <= T_UNMAP) return this.#applyRequest(entry);
    return this.#applyEvent(entry);
  }

  #applyRequest(entry: Entry): string | undefined {
    const { kind, status, position } = entry;
    this.#answers.add(position, status);
    // Requests come when a queue has started for good, which ends what a driver can write early.
    this.#parts.config.forgetEarly();
    if (status !== S_OK) return undefined;
    const error = this.#execute(entry);
    if (error === OK) return undefined;
    const what = kind === T_MAP || kind === T_UNMAP
      ? `of ${rangeText(entry.first, entry.last)} in domain ${entry.domain}`
      : `of endpoint ${entry.id}`;
    return `Cannot replay the journal: ${REQUEST_NAMES[kind]} ${what} failed with error ${error}`;
  }

  #execute(entry: Entry): Errno {
    const { iommu } = this.#parts;
    const domain = iommu.domain(entry.domain);
    switch (entry.kind) {
      case T_MAP: {
        if (domain === undefined) return -1;
        const { first, last, frame, flags } = entry;
        let error = iommu.map(domain, first, last, frame, flags);
        if (error === OK && domain.space.isFilling) {
          while (!domain.fillStep());
          error = iommu.endMap(domain, first, last);
        }
        return error;
      }
      case T_UNMAP:
        // A reset may have come before the end of an UNMAP.
        return domain === undefined || entry.last < entry.first
          ? OK
          : iommu.unmap(domain, entry.first, entry.last);
      case T_ATTACH:
        return this.#ended(iommu.attach(entry.domain, entry.id, entry.flags !== 0));
      case T_DETACH:
        return this.#ended(iommu.detach(entry.id));
      default:
        return -1;
    }
  }

  /** What has ended is given back at once, so that nothing behind it lacks it. */
  #ended(error: Errno): Errno {
    const { iommu } = this.#parts;
    while (iommu.isEnding) iommu.endPiece();
    return error;
  }

  #applyEvent({ kind, flags, id, first, last }: Entry): string | undefined {
    const { lives, life, config } = this.#parts;
    switch (kind) {
      case ENTRY_FRESH:
        restoreBypass(config, flags);
        life.assign({ state: FRESH_STATES[id], endpoints: [] });
        this.#answers.clear();
        break;
      case ENTRY_REGION:
      case ENTRY_REGION_ADDED:
      case ENTRY_REGION_REMOVED:
        if ((flags & REMOVED_UNMAPPED) !== 0) {
          finish(this.#parts.iommu.unmapGuestPages(first, last));
        }
        return this.#applyRegion(kind, first, last);
      case ENTRY_RESET:
        lives.reset(RESET_KINDS[flags]);
        this.#answers.clear();
        break;
      case ENTRY_DISCONNECTED:
        lives.end();
        this.#answers.clear();
        break;
      case ENTRY_BYPASS:
        restoreBypass(config, flags);
        break;
      case ENTRY_QUEUE_BEGINS: {
        const sign = START_SIGNS[flags];
        if (sign === "loaded" && lives.mustRebuild) finish(lives.rebuildLoaded());
        lives.queueBegins(id, sign);
        break;
      }
      case ENTRY_QUEUE_STARTED:
        if (id === REQUEST_QUEUE) this.#answers.clear();
        break;
      case ENTRY_LOADED:
        lives.loadedIsLost();
        break;
      default:
        return `Cannot replay the journal: it has an entry of unknown kind ${kind}`;
    }
    this.#ended(OK);
    return undefined;
  }

  #applyRegion(kind: number, first: number, last: number): string | undefined {
    const { ram, lives } = this.#parts;
    const isThere = ram.regions.some((region) =>
      region.firstIndex === first && region.lastIndex === last
    );
    if (kind === ENTRY_REGION && isThere) return undefined;
    if (kind !== ENTRY_REGION) lives.memoryChanged();
    const isDone = kind === ENTRY_REGION_REMOVED
      ? ram.removePages(first, last)
      : ram.addPages(first, last);
    return isDone
      ? undefined
      : `Cannot replay the journal: guest memory at ${rangeText(first, last)} does not fit`;
  }
}
