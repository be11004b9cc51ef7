import { setImmediate } from "node:timers";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Event, POLLIN, POLLNVAL, POLLOUT, PollSet } from "../../../device/host/mod.ts";
import { libc, replaceLibc } from "../../../device/host/libc.ts";
import { failAsPlanned, FailurePlan } from "./failing_libc.ts";
import { openDescriptors } from "./host_state.ts";

Deno.test("PollSet tells which descriptors are ready for what", () => {
  using set = new PollSet(1);
  using one = Event.create();
  using other = Event.create();
  const first = set.add(one.descriptor.number);
  const second = set.add(other.descriptor.number, POLLIN | POLLOUT);
  assertEquals(set.poll(0), 1);
  assertEquals([set.ready(first), set.ready(second)], [0, POLLOUT]);
  one.signal();
  other.signal();
  assertEquals(set.poll(0), 2);
  assertEquals([set.ready(first), set.ready(second)], [POLLIN, POLLIN | POLLOUT]);
  set.clear();
  assertEquals(set.poll(0), 0);
});

Deno.test("PollSet ignores numbers below 0 and names those that are not open", () => {
  using set = new PollSet();
  const absent = set.add(-1);
  const closed = set.add(1000);
  assertEquals(set.poll(0), 1);
  assertEquals([set.ready(absent), set.ready(closed)], [0, POLLNVAL]);
});

Deno.test("PollSet waits while the event loop goes on", async () => {
  using set = new PollSet();
  using event = Event.create();
  const slot = set.add(event.descriptor.number);
  setTimeout(() => event.signal(), 10);
  assertEquals(await set.wait(), 1);
  assertEquals(set.ready(slot), POLLIN);
});

Deno.test("PollSet ends a wait when its time is over or wake() is called", async () => {
  using set = new PollSet();
  assertEquals(await set.wait(5), 0);
  setTimeout(() => set.wake(), 10);
  assertEquals(await set.wait(), 0);
  set.wake();
  assertEquals(await set.wait(), 0);
  assertEquals(set.poll(0), 0);
});

Deno.test("PollSet may change and grow that is waited on", async () => {
  using set = new PollSet(1);
  using event = Event.create();
  const wait = set.wait();
  for (let i = 0; i < 20; i++) set.add(-1);
  const slot = set.add(event.descriptor.number);
  event.signal();
  set.wake();
  assertEquals(await wait, 1);
  assertEquals(set.ready(slot), POLLIN);
});

Deno.test("PollSet has one wait at a time and is not closed under it", async () => {
  const before = openDescriptors();
  const set = new PollSet();
  const wait = set.wait();
  try {
    await assertRejects(() => set.wait(), Error, "Cannot wait twice");
    assertThrows(() => set.close(), Error, "that is waited on");
  } finally {
    set.wake();
    await wait;
    set.close();
  }
  assertEquals(openDescriptors(), before);
});

Deno.test("PollSet dozes until a descriptor is ready, its time is over or wake() is called", async () => {
  using set = new PollSet();
  using event = Event.create();
  const slot = set.add(event.descriptor.number);
  assertEquals(await set.doze(5), 0);
  setTimeout(() => event.signal(), 10);
  assertEquals(await set.doze(), 1);
  assertEquals(set.ready(slot), POLLIN);
  event.drain();
  setTimeout(() => set.wake(), 10);
  assertEquals(await set.doze(), 0);
  set.wake();
  assertEquals(await set.doze(), 0);
});

Deno.test("PollSet goes from dozing to awaiting, and can be changed meanwhile", async () => {
  using set = new PollSet(1);
  using event = Event.create();
  const doze = set.doze();
  setTimeout(() => {
    set.add(event.descriptor.number);
    event.signal();
    set.wake();
  }, 400);
  assertEquals(await doze, 1);
});

/** Counts how the host is asked to poll, until the end of its block. */
class CountedPolls implements Disposable {
  /** Calls that hold this thread for a while. */
  inThread = 0;
  /** Those of them that came before the event loop had turned since the last. */
  withoutTurn = 0;
  /** Calls on a thread of the pool. */
  onThread = 0;
  #hasTurned = true;

  constructor() {
    const real = libc();
    replaceLibc({
      ...real,
      poll: (slots, count, timeout) => {
        if (timeout !== 0) this.#inThread();
        return real.poll(slots, count, timeout);
      },
      pollOnThread: (slots, count, timeout) => {
        this.onThread++;
        return real.pollOnThread(slots, count, timeout);
      },
    });
  }

  [Symbol.dispose](): void {
    replaceLibc(undefined);
  }

  #inThread(): void {
    this.inThread++;
    if (!this.#hasTurned) this.withoutTurn++;
    this.#hasTurned = false;
    setImmediate(() => this.#hasTurned = true);
  }
}

Deno.test("the event loop runs while PollSet dozes", async () => {
  using polls = new CountedPolls();
  using set = new PollSet();
  let ticks = 0;
  const interval = setInterval(() => {
    if (++ticks === 5) set.wake();
  }, 5);
  try {
    assertEquals(await set.doze(), 0);
  } finally {
    clearInterval(interval);
  }
  assertEquals([ticks, polls.withoutTurn], [5, 0]);
  assert(polls.inThread > 0, "it polled in this thread");
});

Deno.test("PollSet does not doze while another set is awaited, whose end no descriptor tells", async () => {
  using polls = new CountedPolls();
  using dozing = new PollSet();
  using awaited = new PollSet();
  using event = Event.create();
  awaited.add(event.descriptor.number);
  for (let round = 1; round <= 20; round++) {
    const wait = awaited.wait().then((found) => (dozing.wake(), found));
    const doze = dozing.doze();
    event.signal();
    assertEquals(await wait, 1);
    event.drain();
    assertEquals(await doze, 0);
    assertEquals([polls.inThread, polls.onThread], [0, 2 * round]);
  }
});

Deno.test("PollSet finds nothing ready when the host refuses to poll, says why, and does not spin", async () => {
  const plan = new FailurePlan();
  using _failing = failAsPlanned(plan);
  using set = new PollSet();
  using event = Event.create();
  const problems: string[] = [];
  set.onProblem = (line) => problems.push(line);
  const slot = set.add(event.descriptor.number);
  event.signal();
  plan.fail("poll", 12, 1);
  assertEquals([set.poll(0), set.ready(slot)], [0, 0]);
  assertEquals(problems, ["Cannot poll: poll failed: ENOMEM"]);
  assertEquals([set.poll(0), set.ready(slot)], [1, POLLIN]);
  event.drain();
  plan.fail("pollOnThread", 12, 1_000_000);
  const start = performance.now();
  for (let i = 0; i < 5; i++) assertEquals(await set.wait(1000), 0);
  assertEquals(plan.end(), 5);
  assert(performance.now() - start >= 40);
  event.signal();
  assertEquals([await set.wait(), set.ready(slot)], [1, POLLIN]);
});
