/**
 * Random steps of a front end that is a mix of those that there are (`vmm_mix.ts`), for a device behind the IOMMU whichever it
 * is: after each the guest uses the device.
 *
 * @module
 */
import fc from "fast-check";
import { Request } from "../../../device/vhost_user/mod.ts";
import type { Vmm, VmmRegion } from "../vhost_user/vmm.ts";
import { type VmmHabits, VMMS } from "../vhost_user/vmm_habits.ts";
import { startBy, startWay, type Way, way } from "../vhost_user/vmm_mix.ts";

const KIB = 1024;
const REGIONS_MAX = 32;
const REGION = 64 * KIB;
/** Where memory that comes later begins, guest-physical. */
const PLUGGED = 1024 * KIB * KIB;

/** A session that takes steps, and what is behind it. */
export interface SteppedSession {
  readonly vmm: Vmm;
  /** The config space. */
  readonly config: Uint8Array;
  /** The guest uses the device, with a buffer at a guest-physical address where one is given. */
  works(at?: number): Promise<void>;
  /** The VMM connects again: the session before has ended, or there was none. */
  open(): Promise<void>;
  /** Memory came, or is about to go. */
  plugged(region: VmmRegion): void;
  /** Stops the rings while requests are under way, starts them, and sees each of them answered once. */
  underLoad?(stop: () => Promise<void>, start: () => Promise<void>): Promise<void>;
  /** Sees that writes are logged, or not. */
  logs?(): Promise<void>;
}

/** What the front end does next. */
export type Step =
  | { readonly does: "work" | "pause" | "plug" | "unplug" | "table" }
  | { readonly does: "log"; readonly way: Way; readonly stage: "begin" | "next" | "end" }
  | {
    readonly does: "stop" | "restart" | "reset" | "reconnect" | "crash";
    readonly ways: readonly [Way, Way];
    readonly seed: number;
  }
  | {
    readonly does: "config";
    readonly way: Way;
    readonly offset: number;
    readonly length: number;
    readonly writes: boolean;
  };

/** Any step. */
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    does: fc.constantFrom(
      "work" as const,
      "pause" as const,
      "plug" as const,
      "plug" as const,
      "unplug" as const,
      "table" as const,
    ),
  }),
  fc.record({
    does: fc.constant("log" as const),
    way: fc.constantFrom(0, 3),
    stage: fc.constantFrom("begin" as const, "next" as const, "end" as const),
  }),
  fc.record({
    does: fc.constantFrom(
      "stop" as const,
      "restart" as const,
      "reset" as const,
      "reconnect" as const,
      "crash" as const,
    ),
    ways: fc.tuple(way, startWay),
    seed: fc.nat(0xffff),
  }),
  fc.record({
    does: fc.constant("config" as const),
    way,
    offset: fc.oneof(fc.nat(64), fc.nat(4095)),
    length: fc.oneof(fc.nat(8), fc.nat(512)),
    writes: fc.boolean(),
  }),
);

/** A whole life: whose addresses and rings, how it begins, and its steps. */
export const lives = fc.record({
  steps: fc.array(step, { minLength: 3, maxLength: 12 }),
  isPacked: fc.boolean(),
  identity: way,
  first: fc.tuple(way, startWay),
  seed: fc.nat(0xffff),
});

/** Takes the steps of one life, one after the other. */
export class SteppedLife {
  readonly #session: SteppedSession;
  readonly #plugged: VmmRegion[] = [];
  #next = PLUGGED;

  /** Of a session that is not connected. */
  constructor(session: SteppedSession) {
    this.#session = session;
  }

  /** The first driver begins. */
  async begin([connects, starts]: readonly [Way, Way], seed: number): Promise<void> {
    this.#session.vmm.newDriver();
    await this.#connect(connects, starts, seed);
    await this.#session.works();
  }

  async take(step: Step): Promise<void> {
    const session = this.#session;
    const { vmm } = session;
    switch (step.does) {
      case "work":
        break;
      case "pause": {
        const [pause, resume] = VMMS[0].pause!(vmm);
        await vmm.play(...pause, ...resume);
        break;
      }
      case "plug":
      case "unplug":
      case "table":
        await this.#changeMemory(step.does);
        break;
      case "log": {
        const { beginLog, nextLog, endLog } = VMMS[step.way];
        const messages = { begin: beginLog, next: nextLog, end: endLog }[step.stage]!;
        await vmm.play(...messages(vmm));
        if (step.stage !== "end") await session.logs?.();
        break;
      }
      case "config":
        await this.#access(VMMS[step.way], step.offset, step.length, step.writes);
        break;
      case "stop":
        await vmm.play(...VMMS[step.ways[0]].stop(vmm));
        await this.#start(step.ways[1], step.seed);
        break;
      case "restart":
        await session.underLoad?.(
          () => vmm.play(...vmm.stopAnywhere(VMMS[step.ways[0]])),
          () => this.#start(step.ways[1], step.seed),
        );
        break;
      case "reset": {
        const { reset, stop, read } = VMMS[step.ways[0]];
        await vmm.play(...(reset ?? stop)(vmm));
        vmm.newDriver();
        await vmm.play(read(0, session.config));
        await this.#start(step.ways[1], step.seed);
        break;
      }
      case "reconnect":
        await vmm.play(...VMMS[step.ways[0]].stop(vmm));
        vmm.disconnect();
        await this.#connect(...step.ways, step.seed);
        break;
      case "crash":
        vmm.disconnect();
        vmm.newDriver();
        await this.#connect(...step.ways, step.seed);
        break;
    }
    await session.works();
  }

  async #connect(connects: Way, starts: Way, seed: number): Promise<void> {
    const { vmm, config } = this.#session;
    await this.#session.open();
    const { connect, read } = VMMS[connects];
    await vmm.play(...connect(vmm), read(0, config));
    await this.#start(starts, seed);
  }

  async #start(way: Way, seed: number): Promise<void> {
    await this.#session.vmm.play(...startBy(this.#session.vmm, way, seed));
  }

  async #changeMemory(does: "plug" | "unplug" | "table"): Promise<void> {
    const { vmm } = this.#session;
    if (does === "unplug") {
      const gone = this.#plugged.shift();
      if (gone === undefined) return;
      await vmm.play(...VMMS[3].unplug!(vmm, gone));
      vmm.removeRegion(gone);
      return;
    }
    if (vmm.regions.length === REGIONS_MAX) return;
    const region = vmm.addRegion(this.#next, REGION);
    this.#next += 2 * REGION;
    this.#plugged.push(region);
    this.#session.plugged(region);
    const files = vmm.regions.map(({ file }) => file);
    await vmm.play(
      ...(does === "plug"
        ? VMMS[0].plug!(vmm, region)
        : [{ request: Request.SET_MEM_TABLE, payload: vmm.table(), files, needsReply: true }]),
    );
    await this.#session.works(region.guestAddress);
  }

  async #access(
    { read, write }: VmmHabits,
    offset: number,
    length: number,
    writes: boolean,
  ): Promise<void> {
    const { vmm, config } = this.#session;
    const space = new Uint8Array(8192);
    space.set(config);
    // A back end that has only a part of what it is asked for gives nothing, which is its own answer.
    if (offset < config.length && offset + length > config.length) return;
    if (writes) await vmm.play(write(offset, space.slice(offset, offset + length)));
    await vmm.play(read(offset, space.slice(offset, offset + length)));
  }
}
