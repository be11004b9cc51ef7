/** Back ends that disconnect while they have requests: what happens to those, by the type of the device. */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import fc from "fast-check";
import { UnixStream } from "../../../../device/host/mod.ts";
import { failAsPlanned, FailurePlan } from "../../host/failing_libc.ts";
import { until } from "../../../until.ts";
import { CHANGE, EchoBackEnd } from "./echo_back_end.ts";
import { pattern, RelayWorld } from "./relay_world.ts";

const EMFILE = 24;
const READ_AT = 0x20_0000;
const WRITE_AT = 0x40_0000;
const STEP = 0x2000;

for (const backEndConnects of [false, true]) {
  const how = backEndConnects ? "that connects to us" : "that we connect to";
  Deno.test(`A back end ${how} dies; the next one gets what was in flight, in order`, async () => {
    const [world, connected, first] = await RelayWorld.start({ backEndConnects }, { holds: true });
    await using _ = world;
    const queue = await connected.startQueue(0, 16);
    async function send(): Promise<void> {
      for (let i = 0; i < 8; i++) {
        const [from, to] = [READ_AT + i * STEP, WRITE_AT + i * STEP];
        connected.send(queue, [from, pattern(300 + i, i)], [to, 400]);
      }
      await until(() => first.held.length === 8, "the first one has them");
    }
    // Answered from the last one on, so that places in the ring are no longer in order.
    for (let round = 0; round < 2; round++) {
      await send();
      first.answerAll();
      for (let i = 0; i < 8; i++) assert(await queue.reap());
      first.holds = true;
    }
    await send();
    await first[Symbol.asyncDispose]();
    // The guest changes nothing, and what a dying back end did to its memory does not matter.
    const second = await world.join();
    await world.backEndReady(2);
    const done = new Set<number>();
    for (let i = 0; i < 8; i++) {
      assert(await queue.reap());
      assert(!done.has(queue.driver.token), "each once");
      done.add(queue.driver.token);
    }
    assertEquals(second.seen, Array.from({ length: 8 }, (_, i) => pattern(300 + i, i)));
    for (let i = 0; i < 8; i++) {
      const at = WRITE_AT + i * STEP;
      assertEquals(
        connected.bytes.slice(at, at + 300 + i),
        pattern(300 + i, i).map((byte) => byte + CHANGE),
      );
    }
    const { reconnects, resubmitted, inFlight } = world.counters;
    assertEquals([reconnects, resubmitted, inFlight], [1, 8, 0]);
  });
}

const STEPS = ["send", "send", "last", "answer", "die", "stop"] as const;

Deno.test("Requests are answered exactly once whenever back ends die and queues stop", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...STEPS), { minLength: 4, maxLength: 30 }),
      fc.boolean(),
      async (steps, packed) => {
        const [world, connected, first] = await RelayWorld.start({ packed }, { holds: true });
        await using _ = world;
        const queue = await connected.startQueue(0, 32);
        let backEnd = first;
        let sent = 0;
        const tokens = new Set<number>();
        let answered = 0;
        function take(): void {
          while (queue.driver.reap()) {
            assert(tokens.delete(queue.driver.token), "it was in flight");
            answered++;
          }
        }
        for (const step of steps) {
          if (step === "send" && tokens.size < 16) {
            const at = sent++ % 64;
            tokens.add(
              connected.send(
                queue,
                [READ_AT + at * STEP, pattern(50, sent)],
                [WRITE_AT + at * STEP, 50],
              ),
            );
          } else if (step === "last") {
            backEnd.answerLast();
          } else if (step === "answer") {
            backEnd.answerAll();
            backEnd.holds = true;
          } else if (step === "die") {
            const { sessions } = world.counters;
            await backEnd[Symbol.asyncDispose]();
            backEnd = await EchoBackEnd.accept(world.listener!, { holds: true });
            await world.backEndReady(sessions + 1);
          } else if (step === "stop") {
            const base = await connected.frontEnd.stopQueue(queue);
            await connected.frontEnd.resumeQueue(queue, base);
          }
          take();
        }
        backEnd.answerAll();
        backEnd.wake();
        await until(() => {
          take();
          return answered === sent;
        }, "all are answered");
        assertEquals(world.counters.inFlight, 0);
        assertEquals(world.relay.pool.used, 0);
        await backEnd[Symbol.asyncDispose]();
      },
    ),
    { numRuns: 40 },
  );
});

Deno.test("net: packets to send are dropped, buffers to receive wait on", async () => {
  const [world, connected, first] = await RelayWorld.start({ typeName: "net" }, { holds: true });
  await using _ = world;
  const [receive, transmit] = [await connected.startQueue(0), await connected.startQueue(1)];
  connected.send(receive, [READ_AT, new Uint8Array(0)], [WRITE_AT, 1500]);
  connected.send(transmit, [READ_AT, pattern(100, 1)], [WRITE_AT, 0]);
  await until(() => first.held.length === 2, "it has both");
  await first[Symbol.asyncDispose]();
  await using second = await world.join({ holds: true });
  assert(await transmit.reap(), "the packet counts as sent");
  await until(() => second.held.length === 1, "the buffer waits in the next one");
  assertEquals(second.held[0].index, 0);
  assertEquals(receive.driver.reap(), false);
});

Deno.test("vsock: the guest is told that its connections are gone (virtio 1.4, 5.10.6.7)", async () => {
  const [world, connected, first] = await RelayWorld.start({ typeName: "vsock" }, { holds: true });
  await using _ = world;
  const transmit = await connected.startQueue(1);
  const events = await connected.startQueue(2);
  connected.bytes.fill(0xee, WRITE_AT, WRITE_AT + 4);
  connected.send(events, [READ_AT, new Uint8Array(0)], [WRITE_AT, 4]);
  connected.send(transmit, [READ_AT, pattern(44, 1)], [WRITE_AT, 0]);
  await until(() => first.held.length === 1, "it has the packet, and no event buffer");
  assertEquals(events.driver.reap(), false);
  await first[Symbol.asyncDispose]();
  await using _second = await world.join();
  assert(await events.reap(), "the event comes");
  assertEquals(events.driver.usedLength, 4);
  assertEquals(connected.bytes.slice(WRITE_AT, WRITE_AT + 4), new Uint8Array(4));
  assert(await transmit.reap(), "the packet is dropped");
});

Deno.test("fs: what is in flight is answered with EIO, under its own number", async () => {
  const [world, connected, first] = await RelayWorld.start({ typeName: "fs" }, { holds: true });
  await using _ = world;
  const queue = await connected.startQueue(1);
  const request = new Uint8Array(80);
  const header = new DataView(request.buffer);
  header.setUint32(0, 80, true);
  header.setUint32(4, 15, true);
  header.setBigUint64(8, 0x1234_5678_9abcn, true);
  connected.send(queue, [READ_AT, request], [WRITE_AT, 4096]);
  await until(() => first.held.length === 1, "it has the request");
  await first[Symbol.asyncDispose]();
  await using second = await world.join();
  assert(await queue.reap());
  assertEquals(queue.driver.usedLength, 16);
  const answer = new DataView(connected.bytes.slice(WRITE_AT, WRITE_AT + 16).buffer);
  assertEquals(answer.getUint32(0, true), 16);
  assertEquals(answer.getInt32(4, true), -5);
  assertEquals(answer.getBigUint64(8, true), 0x1234_5678_9abcn);
  assertEquals(second.seen, []);
});

Deno.test("A back end that is less than the one before is refused, and one that is as much taken", async () => {
  const [world, connected, first] = await RelayWorld.start({}, { featuresLow: 7, queues: 2 });
  await using _ = world;
  const queue = await connected.startQueue(0);
  await first[Symbol.asyncDispose]();
  await using poor = await EchoBackEnd.accept(world.listener!, { featuresLow: 5 });
  await poor.closed;
  await using few = await EchoBackEnd.accept(world.listener!, { featuresLow: 7, queues: 1 });
  await few.closed;
  await using _second = await EchoBackEnd.accept(world.listener!, { featuresLow: 15, queues: 4 });
  connected.send(queue, [READ_AT, pattern(5, 5)], [WRITE_AT, 5]);
  assert(await queue.reap());
  assertEquals(world.counters.violations, 2);
  assert(world.warnings.some((line) => line.includes("it lacks features that the guest uses")));
  assert(world.warnings.some((line) => line.includes("it has 1 queues, the one before had 2")));
});

Deno.test("Requests that wait for a back end, or for room, are no reason to stay awake", async () => {
  const [world, connected, first] = await RelayWorld.start({ bufferBytes: 1 << 20 }, {
    holds: true,
  });
  await using _ = world;
  const queue = await connected.startQueue(0);
  for (let i = 0; i < 16; i++) {
    connected.send(queue, [READ_AT, pattern(65_536, i)], [WRITE_AT, 0]);
  }
  await until(() => world.counters.stalls === 1, "there is no room for all");
  assertEquals(world.relay.setNotifications(true), false, "while there is no room");
  await first[Symbol.asyncDispose]();
  // From the next try to connect on an answer is waited for, which may not come in time: then it must be looked at.
  await until(
    () => !world.relay.hasBackEnd && !world.relay.mustPoll,
    "the back end is gone, and none is tried",
  );
  assertEquals(world.relay.setNotifications(true), false, "while there is no back end");
  await using _second = await world.join();
  for (let i = 0; i < 16; i++) assert(await queue.reap(), `request ${i}`);
});

Deno.test("A back end that is silent is disconnected when its time is over", async () => {
  const world = new RelayWorld({ patience: 1000 });
  await using _ = world;
  using silent = await acceptRaw(world);
  await until(() => world.counters.timeouts >= 1, "it is given up");
  assert(silent !== undefined);
  assert(
    world.warnings.some((line) =>
      line.includes("the back end has not answered GET_FEATURES within 1000 ms")
    ),
  );
  await using _echo = await world.join();
  await world.backEndReady(1);
});

/** Accepts the relay's connection and does nothing with it. */
async function acceptRaw(world: RelayWorld): Promise<Disposable> {
  let stream = world.listener!.accept();
  await until(() => (stream ??= world.listener!.accept()) !== undefined, "the relay connects");
  return stream!;
}

Deno.test("A back end that cannot be accepted does not keep the processor busy", async () => {
  await using world = new RelayWorld({ backEndConnects: true });
  const plan = new FailurePlan();
  using _failing = failAsPlanned(plan);
  plan.fail("accept4", EMFILE, 1_000_000);
  using _waiting = UnixStream.connect(world.backEndPath);
  const begun = performance.now();
  await until(() => plan.hits > 0, "the relay tries");
  await delay(300);
  const hits = plan.end();
  // The listener rests for 100 ms after each failure.
  const most = (performance.now() - begun) / 100 + 2;
  assert(hits <= most, `${hits} times, ${most} at most`);
});
