/**
 * Memory that another process scribbles over while its rings are served: rings, split and packed, and their indirect
 * tables, requests, records of requests in flight and dirty logs, of an IOMMU and of devices behind it. Whatever is
 * there, every call ends within its bounds, nothing is written where nothing has a right to write, and once the other
 * process is gone the next guest is served.
 *
 * An input is a request that was answered, or a ring that was stopped. `VIOMMU_FUZZ_INPUTS` and `VIOMMU_FUZZ_SEED`
 * choose how many and which. What the other process writes when is up to the host, so a seed does not repeat a run.
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, mapRequest } from "../../device/iommu/driver_requests.ts";
import { descriptorsClosed, eventLoopTurn } from "../../device/host/mod.ts";
import { Random } from "../guest/random.ts";
import { until } from "../until.ts";
import { mappingsOf, openDescriptors } from "./host/host_state.ts";
import {
  BUFFERS,
  FIRST_ENDPOINT_RING,
  IOVA,
  MEMORY,
  REQUESTS,
  RING_STEP,
} from "./scribbled_layout.ts";
import { ScribbledMachine } from "./scribbled_machine.ts";
import type { ScribbledMode } from "./scribbled_memory.ts";
import { type Buffer, CopyableDriver } from "./vhost_user/copyable_driver.ts";

const INPUTS = Number(Deno.env.get("VIOMMU_FUZZ_INPUTS") ?? 100_000);
const SEED = Number(Deno.env.get("VIOMMU_FUZZ_SEED") ?? 20_261_130);
/** Rounds of a session; in each, all rings are served once. */
const ROUNDS = 1000;
/** Rounds between two looks at everything else. */
const ROUNDS_PER_LOOK = 32;
/** No single round takes as long, in milliseconds, on a machine however busy: a call that does is without end. */
const ENDLESS = 10_000;
const SECTOR = 512;

/** The other process, which begins at once. */
class Scribbler implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;

  constructor(machine: ScribbledMachine) {
    this.#process = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        "--allow-ffi",
        new URL("./scribbler.ts", import.meta.url).href,
        `/proc/${Deno.pid}/fd/${machine.memory.file.number}`,
        `${SEED}`,
      ],
    }).spawn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.status;
  }
}

function randomMode(random: Random): ScribbledMode {
  const chance = () => random.below(2) === 0;
  return {
    packed: chance(),
    eventIndex: chance(),
    inOrder: random.below(4) === 0,
    translated: chance(),
    records: chance(),
    logs: chance(),
    overlaid: random.below(4) === 0,
  };
}

/** One session of each front end. */
async function scribbledSession(machine: ScribbledMachine, random: Random): Promise<void> {
  machine.begin(randomMode(random));
  for (let round = 0; round < ROUNDS && machine.isComplete; round++) {
    if (random.below(2) === 0) machine.memory.refill(random);
    machine.serve();
    if (round % ROUNDS_PER_LOOK !== 0) continue;
    machine.setNotifications(random.below(2) === 0);
    machine.look();
    if (random.below(8) === 0) machine.setBypass(random.below(4) > 0);
    if (machine.isComplete) machine.permit();
    if (machine.isComplete) machine.revive(random.below(2) === 0);
    // Flushes of the disk end on another thread.
    await eventLoopTurn();
  }
  machine.end();
}

/** Puts a chain into a ring and serves until it is used. */
async function exchange(
  machine: ScribbledMachine,
  driver: CopyableDriver,
  chain: readonly Buffer[],
): Promise<number> {
  driver.put(chain);
  let used = -1;
  await until(() => {
    machine.serve();
    used = driver.reap();
    return used >= 0;
  }, "the chain is used");
  return used;
}

/** A guest that behaves is served by all three devices. */
async function assertServed(machine: ScribbledMachine, mode: ScribbledMode): Promise<void> {
  const { bytes, data: words } = machine.memory;
  bytes.fill(0, 0, MEMORY);
  assert(machine.begin(mode), "the sessions begin");
  const ring = (index: number) => new CopyableDriver(words, index * RING_STEP, mode.packed);
  const iommu = ring(0);
  const request = async (readable: Uint8Array) => {
    bytes.set(readable, REQUESTS);
    bytes.fill(0xff, REQUESTS + 64, REQUESTS + 68);
    const used = await exchange(machine, iommu, [
      { address: REQUESTS, length: readable.length, isWritable: false },
      { address: REQUESTS + 64, length: 4, isWritable: true },
    ]);
    assertEquals([used, ...bytes.subarray(REQUESTS + 64, REQUESTS + 68)], [4, 0, 0, 0, 0]);
  };
  // Another domain than the one that rings are reached through.
  await request(attachRequest(7, 99));
  await request(
    mapRequest({ domain: 7, virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0x5000n, flags: 3 }),
  );

  const shift = mode.translated ? IOVA : 0;
  const random = ring(FIRST_ENDPOINT_RING);
  const target = { address: BUFFERS + shift, length: 256, isWritable: true };
  assertEquals(await exchange(machine, random, [target]), 256);
  assert(bytes.subarray(BUFFERS, BUFFERS + 256).some((byte) => byte !== 0), "random bytes");

  const disk = ring(FIRST_ENDPOINT_RING + 1);
  const data = BUFFERS + 0x1000;
  const sector = 3;
  bytes.set([0, 0, 0, 0, 0, 0, 0, 0, sector, 0, 0, 0, 0, 0, 0, 0], REQUESTS);
  const used = await exchange(machine, disk, [
    { address: REQUESTS + shift, length: 16, isWritable: false },
    { address: data + shift, length: SECTOR, isWritable: true },
    { address: REQUESTS + 64 + shift, length: 1, isWritable: true },
  ]);
  assertEquals([used, bytes[REQUESTS + 64]], [SECTOR + 1, 0]);
  const { image } = machine;
  assertEquals(
    bytes.subarray(data, data + SECTOR),
    image.subarray(sector * SECTOR, (sector + 1) * SECTOR),
  );
  machine.end();
}

Deno.test(`${INPUTS} inputs that another process scribbles end no session but their own, and write nowhere else`, async () => {
  const mapped = mappingsOf("scribbled");
  const before = openDescriptors();
  {
    using machine = new ScribbledMachine();
    const { counts } = machine;
    const random = new Random(SEED);
    {
      await using _scribbler = new Scribbler(machine);
      await until(() => machine.memory.scribbles > 10, "the other process scribbles");
      const first = machine.memory.scribbles;
      while (counts.inputs < INPUTS) await scribbledSession(machine, random);
      assert(machine.memory.scribbles > first, "it has done so all the time");
    }
    console.error(
      `scribbled memory: seed ${SEED}, ${counts.inputs} inputs: ${counts.answered} answered, ` +
        `${counts.broken} rings stopped; ${machine.memory.scribbles} thousand scribbles, ` +
        `${counts.sessions} sessions, longest round ${counts.longest.toFixed(1)} ms`,
    );
    for (const each of [...counts.answered, counts.broken, counts.refused]) {
      assert(each > INPUTS / 10_000, JSON.stringify(counts));
    }
    assert(counts.longest < ENDLESS, `a round took ${counts.longest} ms`);
    const errors = machine.lines.filter((line) => line.startsWith("viommu: error:"));
    assertEquals(errors, []);
    for (let combination = 0; combination < 16; combination++) {
      const [packed, eventIndex, translated, records] = [1, 2, 4, 8].map((bit) =>
        (combination & bit) !== 0
      );
      const rest = { inOrder: false, logs: true, overlaid: false };
      await assertServed(machine, { packed, eventIndex, translated, records, ...rest });
    }
  }
  await descriptorsClosed();
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf("scribbled"), mapped);
});
