/**
 * A hostile front end and a hostile back end, with the proxy between them: any messages, bytes and descriptors on either
 * connection and on either end of the channel, while the guest maps and unmaps. Whatever they do, nothing but their own
 * session ends, nothing of it is left, and no answer of the guest's is held back for it.
 *
 * Six thousand steps, or a million in the long mode, `VIOMMU_TEST=full`; `VIOMMU_SEED=n` takes another seed.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { EndpointProxy } from "../../../../device/endpoint/mod.ts";
import { GuardedPollSource } from "../../../../device/guarded_poll_source.ts";
import {
  createMemoryFile,
  type Descriptor,
  descriptorsClosed,
  Event,
  isUnixStream,
  PollSet,
  UnixListener,
  UnixStream,
} from "../../../../device/host/mod.ts";
import { IommuDevice } from "../../../../device/iommu/iommu_device.ts";
import { Log } from "../../../../device/log.ts";
import { Request } from "../../../../device/vhost_user/mod.ts";
import { HEADER_BYTES } from "../../../../device/vhost_user/protocol.ts";
import { servedMessage } from "../../../../device/vhost_user/message_table.ts";
import { joined, longs, words } from "../../../bytes.ts";
import { isLong, setting } from "../../../long_mode.ts";
import { openDescriptors, temporaryPath } from "../../host/host_state.ts";
import { DEFAULT_OPTIONS } from "../../in_process_guest.ts";
import { DescriptorKinds } from "../../vhost_user/descriptor_kinds.ts";

const ENDPOINT = 24;
const STEPS = 40;
const steps = isLong ? 1_000_000 : 6_000;
const seed = Number(setting("VIOMMU_SEED") ?? 20261130);
/** SET_VRING_ADDR and the like: what is passed on as it is. */
const REPLY = 4;
const NEED_REPLY = 8;
const CHANNEL_IOTLB = 1;

/** On which of the four ends something is sent. */
type End = "front" | "back" | "channel" | "upstream";

type Step =
  | {
    readonly does: "message";
    readonly end: End;
    readonly request: number;
    readonly flags: number;
    readonly size: number | undefined;
    readonly values: readonly number[];
    readonly files: readonly number[];
  }
  | {
    readonly does: "bytes";
    readonly end: End;
    readonly bytes: Uint8Array<ArrayBuffer>;
    readonly files: readonly number[];
  }
  | {
    readonly does: "guest";
    readonly first: number;
    readonly last: number;
    readonly maps: boolean;
  }
  | { readonly does: "vanish"; readonly end: End }
  | { readonly does: "look" };

const end = fc.constantFrom<End>("front", "front", "back", "channel", "upstream");
const files = fc.oneof(
  { weight: 3, arbitrary: fc.constant<number[]>([]) },
  { weight: 4, arbitrary: fc.array(fc.nat(99), { minLength: 1, maxLength: 1 }) },
  { weight: 1, arbitrary: fc.array(fc.nat(99), { maxLength: 9 }) },
);
const value = fc.oneof(
  fc.constantFrom(0, 1, 2, 3, 8, 0x1000, 0x100000, 0x40000001, 0x7fffffff, 0xffffffff),
  fc.nat(0xffffffff),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({
      does: fc.constant("message" as const),
      end,
      request: fc.oneof(
        { weight: 10, arbitrary: fc.constantFrom(...Object.values(Request)) },
        { weight: 10, arbitrary: fc.constantFrom(2, 5, 16, 21, 22, 37, 38, CHANNEL_IOTLB) },
        { weight: 1, arbitrary: fc.nat(0xffffffff) },
      ),
      flags: fc.constantFrom(1, 1 | NEED_REPLY, 1 | REPLY, 1 | REPLY, 1 | REPLY | NEED_REPLY),
      size: fc.oneof(
        { weight: 10, arbitrary: fc.constant(undefined) },
        { weight: 1, arbitrary: fc.nat(300) },
      ),
      values: fc.array(value, { maxLength: 12 }),
      files,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      does: fc.constant("bytes" as const),
      end,
      bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }).map((bytes) => bytes.slice()),
      files,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      does: fc.constant("guest" as const),
      first: fc.nat(300),
      last: fc.nat(300),
      maps: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("vanish" as const), end }) },
  { weight: 10, arbitrary: fc.constant<Step>({ does: "look" }) },
);
/** A session that behaves for some messages, and then does as it likes. */
const plays = fc.record({
  good: fc.nat(6),
  steps: fc.array(step, { minLength: STEPS / 2, maxLength: STEPS }),
});

/** What is sent along: all kinds, memory and events that fit, and ends of connections. */
class Belongings {
  readonly memory = createMemoryFile("proxy-fuzz", 1 << 20);
  readonly event = Event.create();
  readonly kinds = new DescriptorKinds();
  readonly #all = [this.memory, this.event.descriptor, ...this.kinds.all.map(([, each]) => each)];

  of(index: number): Descriptor {
    return this.#all[index % this.#all.length];
  }

  close(): void {
    this.memory.close();
    this.event.close();
    this.kinds.close();
  }
}

/** The proxy, and both peers. */
class Table {
  readonly lines: string[] = [];
  readonly iommu = new IommuDevice(DEFAULT_OPTIONS);
  readonly proxy: EndpointProxy;
  readonly guarded: GuardedPollSource;
  readonly ends = new Map<End, UnixStream>();
  readonly #frontPath = temporaryPath();
  readonly #backPath = temporaryPath();
  readonly #poll = new PollSet();

  constructor() {
    const log = new Log("warn", (line) => this.lines.push(line));
    this.proxy = new EndpointProxy({
      iommu: this.iommu,
      endpoint: ENDPOINT,
      listener: UnixListener.listen(this.#frontPath),
      backEnd: UnixListener.listen(this.#backPath),
      writeOnly: "widen",
      patience: 1000,
      log,
    });
    this.guarded = new GuardedPollSource(this.proxy, log);
  }

  /** Connects both sides anew. */
  connect(): void {
    this.ends.set("back", UnixStream.connect(this.#backPath));
    this.ends.set("front", UnixStream.connect(this.#frontPath));
    for (let i = 0; i < 3; i++) this.look();
  }

  look(): void {
    this.#poll.clear();
    this.guarded.addTo(this.#poll);
    this.#poll.poll(0);
    this.guarded.look(this.#poll);
  }

  send(end: End, bytes: Uint8Array<ArrayBuffer>, files: readonly Descriptor[]): void {
    const numbers = files.map(({ number }) => number).filter((number) => number >= 0);
    this.ends.get(end)?.send(bytes, 0, bytes.length, numbers);
  }

  /** Reads what has come, and keeps the end of the channel if there is one. */
  receive(): void {
    const target = new Uint8Array(65536);
    for (const [end, stream] of this.ends) {
      while (stream.receive(target, 0, target.length) > 0) {
        for (const each of stream.received.splice(0)) {
          if (end === "back" && target[0] === Request.SET_BACKEND_REQ_FD && isUnixStream(each)) {
            this.ends.get("channel")?.close();
            this.ends.set("channel", new UnixStream(each));
          } else each.close();
        }
      }
    }
  }

  vanish(end: End): void {
    this.ends.get(end)?.end();
    this.ends.delete(end);
  }

  /** Both peers go. The proxy has nothing left of them. */
  endSession(): void {
    for (const end of [...this.ends.keys()]) this.vanish(end);
    for (let i = 0; i < 100 && (this.proxy.connected || i < 3); i++) this.look();
    assertEquals(this.proxy.connected, false);
    assertEquals(this.iommu.iotlbListeners.waiting, 0);
  }

  close(): void {
    this.guarded.close();
    this.iommu.close();
    this.#poll.close();
  }
}

function messageBytes(
  request: number,
  flags: number,
  payload: Uint8Array,
): Uint8Array<ArrayBuffer> {
  return joined(words(request, flags, payload.length), payload);
}

/** The beginning of a session, as messages of the front end. */
function beginning(table: Table, given: Belongings): void {
  const [ours, theirs] = UnixStream.pair();
  table.ends.set("upstream", ours);
  const region = longs(0, 0, 1 << 20, 2 ** 40, 0);
  const messages: [number, Uint8Array, Descriptor[]][] = [
    [Request.SET_PROTOCOL_FEATURES, words(0b101001, 0), []],
    [Request.SET_OWNER, words(), []],
    [Request.SET_BACKEND_REQ_FD, words(), [theirs.descriptor]],
    [Request.SET_FEATURES, words(0x4000_0000, 3), []],
    [Request.ADD_MEM_REG, region, [given.memory]],
    [Request.SET_VRING_KICK, words(0, 0), [given.event.descriptor]],
  ];
  for (const [request, payload, files] of messages.slice(0, goodMessages)) {
    table.send("front", messageBytes(request, 1, payload), files);
    table.look();
    table.receive();
  }
  theirs.close();
}

let goodMessages = 6;
/** How deep the peers got: a fuzz whose sessions end at once finds nothing. */
const reached = { looks: 0, channels: 0, acknowledged: 0, failed: 0 };

function play(table: Table, given: Belongings, all: readonly Step[]): void {
  table.connect();
  beginning(table, given);
  for (const each of all) {
    if (!table.proxy.connected) break;
    if (table.ends.has("channel")) reached.channels++;
    switch (each.does) {
      case "message": {
        const shape = servedMessage(each.request)?.least ?? 8;
        const payload = new Uint8Array(each.size ?? (each.request === 22 ? 32 : shape));
        const data = new DataView(payload.buffer);
        each.values.forEach((word, i) => {
          if (i * 4 + 4 <= payload.length) data.setUint32(i * 4, word, true);
        });
        const isReply = (each.flags & REPLY) !== 0;
        if (each.end === "back" && isReply && each.request === Request.IOTLB_MSG) {
          reached.acknowledged++;
        }
        const bytes = messageBytes(each.request, each.flags, payload);
        assert(bytes.length >= HEADER_BYTES);
        table.send(each.end, bytes, each.files.map((index) => given.of(index)));
        break;
      }
      case "bytes":
        table.send(each.end, each.bytes, each.files.map((index) => given.of(index)));
        break;
      case "guest":
        if (each.maps) table.proxy.mapped(each.first, each.first + each.last);
        else table.proxy.invalidate(each.first, each.first + each.last);
        break;
      case "vanish":
        table.vanish(each.end);
        break;
      case "look":
        table.receive();
    }
    table.look();
    reached.looks++;
  }
  table.endSession();
}

Deno.test("whatever both sides of a proxy send, their session ends at most, and nothing of it is left", async () => {
  const before = openDescriptors();
  const given = new Belongings();
  const table = new Table();
  await descriptorsClosed();
  const during = openDescriptors();
  try {
    await fc.assert(
      fc.asyncProperty(plays, async ({ good, steps }) => {
        goodMessages = good === 0 ? 6 : good;
        play(table, given, steps);
        await descriptorsClosed();
        assertEquals(openDescriptors(), during);
        assertEquals(table.lines.filter((line) => line.startsWith("viommu: error:")), []);
      }),
      { seed, numRuns: Math.ceil(steps / STEPS) },
    );
    reached.failed = table.guarded.failures;
    assert(reached.looks > 500 && reached.channels > 100, JSON.stringify(reached));
  } finally {
    table.close();
    given.close();
  }
  await descriptorsClosed();
  assertEquals(openDescriptors(), before);
});
