/**
 * A front end that is a random mix of those that there are (`vmm_habits.ts`): whichever way it does each of its steps, and in
 * whichever order they come, the guest is served and has the translations that it had.
 *
 * `VIOMMU_TEST=full` tries more of them.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import { Request, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { IOMMU_FACTS, IommuWorld, ReplayedGuest } from "./replayed_guest.ts";
import { Vmm } from "./vmm.ts";
import { type VmmHabits, VMMS } from "./vmm_habits.ts";
import { mixed, RUNS, startBy, startWay, type Way, way } from "./vmm_mix.ts";

const KIB = 1024;
/** Requests under way when the rings stop. */
const LOAD = 10;

/** What the front end does next. */
type Step =
  | { readonly does: "work" | "fault" | "pause" | "save" | "forget" | "plug" | "unplug" | "table" }
  | { readonly does: "log"; readonly way: Way; readonly stage: "begin" | "next" | "end" }
  | {
    readonly does: "stop" | "restart" | "reset" | "move";
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

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    does: fc.constantFrom(
      "work" as const,
      "fault" as const,
      "pause" as const,
      "save" as const,
      "forget" as const,
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
    does: fc.constantFrom("stop" as const, "restart" as const, "reset" as const, "move" as const),
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
const whole = fc.record({
  steps: fc.array(step, { minLength: 3, maxLength: 12 }),
  isPacked: fc.boolean(),
  identity: way,
  first: fc.tuple(way, startWay),
  seed: fc.nat(0xffff),
});

/** The front end, its guest and the processes that serve it, one after the other. */
class Mix implements AsyncDisposable {
  readonly vmm: Vmm;
  readonly guest: ReplayedGuest;
  world: IommuWorld = new IommuWorld();
  /** The configuration as the guest knows it. */
  readonly #config = new Uint8Array(8192);
  readonly #plugged: { readonly region: ReturnType<Vmm["addRegion"]> }[] = [];
  readonly #past: IommuWorld[] = [];
  #nextAddress = 1024 * KIB * KIB;

  constructor(habits: VmmHabits) {
    this.vmm = new Vmm(habits, IOMMU_FACTS);
    this.guest = new ReplayedGuest(this.vmm);
    this.#config.set(IOMMU_FACTS.config);
  }

  async begin([connects, starts]: readonly [Way, Way], seed: number): Promise<void> {
    this.vmm.newDriver();
    await this.#connect(connects);
    await this.vmm.play(VMMS[connects].read(0, IOMMU_FACTS.config));
    await this.#start(starts, seed);
    await this.guest.boot();
  }

  async take(step: Step): Promise<void> {
    const { vmm, guest } = this;
    switch (step.does) {
      case "work":
        break;
      case "fault":
        await guest.hearsOfFault(this.world.device);
        break;
      case "pause": {
        const [pause, resume] = VMMS[0].pause!(vmm);
        await vmm.play(...pause);
        guest.check(this.world.device);
        await vmm.play(...resume);
        break;
      }
      case "save":
        await vmm.play(...VMMS[0].stop(vmm));
        await vmm.save();
        await vmm.play(...VMMS[0].activate(vmm));
        break;
      case "plug":
      case "unplug":
      case "table":
        await this.#changeMemory(step.does);
        break;
      case "log":
        await this.#log(step.way, step.stage);
        break;
      case "config":
        await this.#access(step.way, step.offset, step.length, step.writes);
        break;
      case "forget":
        await vmm.play(...VMMS[2].stop(vmm));
        await this.#moveOn();
        await this.#connect(2);
        await this.#start(2, 0);
        await guest.isForgotten(this.world.device);
        await guest.boot();
        this.#config.set(IOMMU_FACTS.config);
        break;
      case "restart":
        guest.load(LOAD);
        await vmm.play(...vmm.stopAnywhere(VMMS[step.ways[0]]));
        await this.#start(step.ways[1], step.seed);
        await guest.loaded(LOAD);
        break;
      case "stop":
        await vmm.play(...VMMS[step.ways[0]].stop(vmm));
        guest.check(this.world.device);
        await this.#start(step.ways[1], step.seed);
        break;
      case "reset":
        await this.#reset(step.ways, step.seed);
        break;
      case "move": {
        await vmm.play(...VMMS[step.ways[0]].stop(vmm));
        const state = await vmm.save();
        await this.#moveOn();
        await this.#connect(step.ways[0]);
        await vmm.load(state);
        await this.#start(step.ways[1], step.seed);
        break;
      }
    }
    await guest.works(this.world.device);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.vmm[Symbol.dispose]();
    for (const world of [this.world, ...this.#past]) {
      await world.vacant();
      await world[Symbol.asyncDispose]();
    }
  }

  async #connect(way: Way): Promise<void> {
    this.vmm.open(this.world.path);
    await this.vmm.play(...VMMS[way].connect(this.vmm));
  }

  /** Another process takes the place of the one that served. */
  async #moveOn(): Promise<void> {
    this.vmm.disconnect();
    await this.world.vacant();
    this.#past.push(this.world);
    this.world = new IommuWorld();
  }

  async #start(way: Way, seed: number): Promise<void> {
    await this.vmm.play(...startBy(this.vmm, way, seed));
  }

  async #reset([stops, starts]: readonly [Way, Way], seed: number): Promise<void> {
    const { vmm, guest } = this;
    const { reset, stop, read } = VMMS[stops];
    await vmm.play(...(reset ?? stop)(vmm));
    vmm.newDriver();
    // A device that the driver has reset keeps its bypass byte (virtio 1.4, 5.13.4), a machine's reset takes it back.
    this.#config[36] = this.world.device.bypass ? 1 : 0;
    await vmm.play(read(0, this.#config.slice(0, 40)));
    await this.#start(starts, seed);
    await guest.boot();
    this.#config[36] = this.world.device.bypass ? 1 : 0;
  }

  async #changeMemory(does: "plug" | "unplug" | "table"): Promise<void> {
    const { vmm } = this;
    if (does === "unplug") {
      const gone = this.#plugged.shift();
      if (gone === undefined) return;
      await vmm.play(...VMMS[3].unplug!(vmm, gone.region));
      vmm.removeRegion(gone.region);
      return;
    }
    if (vmm.regions.length === 32) return;
    const region = vmm.addRegion(this.#nextAddress, 64 * KIB);
    this.#nextAddress += 128 * KIB;
    this.#plugged.push({ region });
    const files = vmm.regions.map(({ file }) => file);
    await vmm.play(
      ...(does === "plug"
        ? VMMS[0].plug!(vmm, region)
        : [{ request: Request.SET_MEM_TABLE, payload: vmm.table(), files, needsReply: true }]),
    );
    await this.guest.works(this.world.device, region.guestAddress / 4096);
  }

  async #log(way: Way, stage: "begin" | "next" | "end"): Promise<void> {
    const { vmm } = this;
    const { beginLog, nextLog, endLog } = VMMS[way];
    const messages = stage === "begin" ? beginLog : stage === "next" ? nextLog : endLog;
    await vmm.play(...messages!(vmm));
    if (stage === "end") return;
    await this.guest.works(this.world.device);
    const isLogged = ((vmm.agreed?.[0] ?? 0) & TransportFeature.LOG_ALL) !== 0;
    assertEquals(vmm.dirtyPages(vmm.log!).includes(0x48), isLogged);
  }

  async #access(way: Way, offset: number, length: number, writes: boolean): Promise<void> {
    const { read, write } = VMMS[way];
    // The one byte that the guest may write must stay 0, or unattached endpoints would pass.
    if (writes) await this.vmm.play(write(offset, new Uint8Array(length)));
    await this.vmm.play(read(offset, this.#config.slice(offset, offset + length)));
  }
}

Deno.test("a front end that is a random mix of those that there are keeps its guest served", async () => {
  const mapped = mappingsOf("vmm-");
  const before = openDescriptors();
  await fc.assert(
    fc.asyncProperty(whole, async ({ steps, isPacked, identity, first, seed }) => {
      await using mix = new Mix(mixed(VMMS[identity], isPacked));
      await mix.begin(first, seed);
      for (const step of steps) await mix.take(step);
      const refusals = mix.world.lines.filter((line) => line.includes("refused"));
      assertEquals(refusals, []);
    }),
    { numRuns: RUNS, seed: 20261130, endOnFailure: false },
  );
  await descriptorsClosed();
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf("vmm-"), mapped);
});
