/**
 * Hostile back ends, one after the other, at one relay, while a guest has requests on its way. What no back end may
 * change is looked at here; what they have done between them is told.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { eventLoopTurn, PollSet, UnixListener } from "../../../../device/host/mod.ts";
import { descriptorsClosing } from "../../../../device/host/closing.ts";
import { attachRequest, mapRequest } from "../../../../device/iommu/driver_requests.ts";
import { EndpointRelay, relayedType } from "../../../../device/endpoint/mod.ts";
import { Log } from "../../../../device/log.ts";
import { FrontEnd, TransportFeature } from "../../../../device/vhost_user/mod.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../../in_process_guest.ts";
import { Chance, HostileBackEnd } from "./hostile_back_end.ts";
import { Connected, ENDPOINT, IOVA, MEMORY, pattern } from "./relay_world.ts";

/** Steps after which a session that goes on is ended. */
const STEPS_MAX = 18;
/** What back ends are cut off for, among other things. */
export const KINDS: readonly string[] = [
  "in queue 0, it used a chain that is not in flight",
  "in queue 0, its used index is ahead of what is in flight",
  "in queue 0, it says that it wrote",
  "it refused SET_VRING_ADDR",
  "which is no reply",
  "came unasked",
  "came in place of one to",
  "bytes, not 8",
];
const READ_AT = 0x20_0000;
const WRITE_AT = 0x40_0000;
const SLOTS = 32;
const SLOT = 0x4000;

/** Which back ends, and how many. */
export interface HostileOrder {
  readonly seed: number;
  readonly sessions: number;
}

/** What came of it. */
export interface HostileOutcome {
  readonly sessions: number;
  /** Those of back ends that said what they are. */
  readonly identified: number;
  /** Those that were ended for a broken rule. */
  readonly violations: number;
  /** Requests of the guest. */
  readonly submitted: number;
  readonly answered: number;
  /** Which of {@linkcode KINDS} came up. */
  readonly kinds: readonly string[];
}

/** Connects one back end after another. Throws if one of them affects anything but its own session. */
export async function hostileSessions(order: HostileOrder): Promise<HostileOutcome> {
  const chance = new Chance(order.seed);
  const folder = await Deno.makeTempDir();
  using guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(1, ENDPOINT), 4);
  const [virtStart, virtEnd] = [BigInt(IOVA), BigInt(IOVA + MEMORY - 1)];
  guest.request(mapRequest({ domain: 1, virtStart, virtEnd, physStart: 0n, flags: 3 }), 4);
  const lines: string[] = [];
  // A clock that goes so quickly that no line is left out.
  let clock = 0;
  const listener = UnixListener.listen(`${folder}/be.sock`);
  const relay = new EndpointRelay({
    iommu: guest.device,
    endpoint: ENDPOINT,
    listener: UnixListener.listen(`${folder}/fe.sock`),
    backEnd: `${folder}/be.sock`,
    type: relayedType("other")!,
    bufferBytes: 1 << 20,
    patience: 5000,
    retryMs: 0,
    log: new Log("info", (line) => lines.push(line), () => clock += 10_000),
  });
  using poll = new PollSet();
  const canary = pattern(32, 0x5eed);
  let backEnd: HostileBackEnd | undefined;
  let sessions = 0;
  let configured = 0;
  let steps = 0;

  /** One turn of the loop, as `loop.ts` has it, and one of the back end. */
  function turn(): void {
    poll.clear();
    relay.addTo(poll);
    poll.poll(0);
    relay.look(poll);
    relay.setNotifications(false);
    for (let i = 0; i < 4 && relay.serve(); i++);
    relay.setNotifications(true);
    if (backEnd?.isOpen === true) {
      backEnd.step();
      if (++steps > STEPS_MAX) backEnd[Symbol.dispose]();
    }
    if (backEnd?.isOpen === true) return;
    const stream = listener.accept();
    if (stream === undefined) return;
    sessions++;
    steps = 0;
    backEnd = new HostileBackEnd(stream, chance, canary);
  }

  /** Something of the front end's, while the loop turns. */
  async function during<T>(task: Promise<T>): Promise<T> {
    let isDone = false;
    const watched = task.finally(() => isDone = true);
    while (!isDone) {
      turn();
      await eventLoopTurn();
    }
    return await watched;
  }

  const { EVENT_IDX, PROTOCOL_FEATURES, VERSION_1, ACCESS_PLATFORM } = TransportFeature;
  let connected: Connected | undefined;
  let queues: Awaited<ReturnType<Connected["startQueue"]>>[] = [];
  /** Connects until a back end is right for long enough to be told of by us, whose features the next ones need. */
  async function connect(): Promise<void> {
    const frontEnd = FrontEnd.connect(`${folder}/fe.sock`, {
      acceptLow: EVENT_IDX | PROTOCOL_FEATURES,
      acceptHigh: VERSION_1 | ACCESS_PLATFORM,
      iovaOffset: IOVA,
    });
    await during(frontEnd.negotiate());
    connected = new Connected(frontEnd, await during(frontEnd.addMemory(0, MEMORY)));
    queues = [await during(connected.startQueue(0, 64))];
    if (relay.service.device.queueCount > 1) queues.push(await during(connected.startQueue(1, 64)));
    for (let at = 0x60_0000; at < MEMORY; at += 4096) connected.bytes.set(canary, at);
  }
  const sent = queues.map(() => 0);
  const readable = pattern(6000, 1);
  let answered = 0;
  let submitted = 0;
  /** Keeps requests under way. */
  function drive(): void {
    queues.forEach((queue, i) => {
      while (queue.driver.reap()) {
        answered++;
        assert(queue.driver.usedLength <= SLOT, "a used length is within its buffer");
      }
      sent[i] ??= 0;
      for (let n = chance.below(2); n > 0 && queue.driver.free > 8; n--) {
        const slot = sent[i]++ % SLOTS;
        const place = (i * SLOTS + slot) * SLOT;
        const room = chance.below(3) * chance.below(chance.oneIn(4) ? 5000 : 200);
        connected!.send(
          queue,
          [READ_AT + place, readable.subarray(0, 1 + chance.below(chance.oneIn(4) ? 6000 : 200))],
          [WRITE_AT + place, room],
        );
        submitted++;
      }
    });
  }
  try {
    await connect();
    const guestBytes = connected!.bytes.slice(0x60_0000);
    while (sessions < order.sessions) {
      drive();
      turn();
      // Sockets with unread bytes are closed on other threads, which tell the event loop.
      if (descriptorsClosing() > 8) await eventLoopTurn();
      if (backEnd?.hasRing === true && steps % 16 === 8) {
        configured++;
        // It takes some time to look through a megabyte.
        if (configured % 64 === 0) backEnd.look();
      }
      assertEquals(backEnd?.sawCanary ?? false, false, "no byte of the guest's other pages");
    }
    const after = connected!.bytes.subarray(0x60_0000);
    assert(guestBytes.every((byte, i) => byte === after[i]), "nor has any changed");
    assertEquals(relay.service.connected, true, "the guest's session goes on");
    assertEquals(relay.service.faults, 0);
    const { counters } = relay;
    return {
      sessions,
      identified: counters.sessions,
      violations: counters.violations,
      submitted,
      answered,
      kinds: KINDS.filter((kind) => lines.some((line) => line.includes(kind))),
    };
  } finally {
    backEnd?.[Symbol.dispose]();
    connected?.frontEnd.close();
    relay.close();
    listener.close();
    await Deno.remove(folder, { recursive: true });
  }
}
