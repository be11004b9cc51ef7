import { assert, assertEquals } from "@std/assert";
import {
  createPipe,
  type Descriptor,
  descriptorsClosed,
  Event,
  UnixStream,
} from "../../../device/host/mod.ts";
import { Request, requestName } from "../../../device/vhost_user/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { RawPeer, withDescriptors } from "./raw_peer.ts";

type Kind = "memory" | "event";
interface Case {
  readonly what: string;
  readonly request: number;
  readonly payload: Uint8Array;
  readonly files?: readonly Kind[];
  readonly line: string;
}

const HUGE = 2n ** 64n - 1n;
const region = longs(0, 0x1000, 0, 0);
const cases: Case[] = [];

function refused(what: string, request: number, payload: Uint8Array, files: Kind[], line: string) {
  cases.push({ what, request, payload, files, line });
}

for (const request of [0, 19, 20, 23, 26, 28, 33, 41, 44, 45, 0xffff_ffff]) {
  refused("unknown", request, words(), [], "this device does not know it");
}
const fixed: [number, number][] = [
  [Request.SET_FEATURES, 8],
  [Request.SET_VRING_NUM, 8],
  [Request.SET_VRING_ADDR, 40],
  [Request.SET_VRING_BASE, 8],
  [Request.SET_VRING_KICK, 8],
  [Request.SET_VRING_CALL, 8],
  [Request.SET_VRING_ERR, 8],
  [Request.SET_PROTOCOL_FEATURES, 8],
  [Request.SET_VRING_ENABLE, 8],
  [Request.ADD_MEM_REG, 40],
  [Request.REM_MEM_REG, 40],
  [Request.SET_STATUS, 8],
  [Request.IOTLB_MSG, 32],
];
for (const [request, size] of fixed) {
  for (const wrong of [0, size - 1, size + 1, 4096]) {
    refused("size", request, new Uint8Array(wrong), [], `its size is ${wrong}, not ${size}`);
  }
}
for (const request of [Request.SET_OWNER, Request.RESET_OWNER, Request.RESET_DEVICE]) {
  refused("size", request, words(1), [], "its size is 4, not 0");
  refused("descriptor", request, words(), ["event"], "1 descriptors came, at most 0");
}
for (const request of [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]) {
  refused("two", request, longs(0), ["event", "event"], "2 descriptors came, at most 1");
  refused("missing", request, longs(0), [], "its descriptor is missing");
  refused("despite bit 8", request, longs(0x100), ["event"], "where its bit 8 says none");
  refused("kind", request, longs(0), ["memory"], "its descriptor is not an eventfd");
  refused("queue", request, longs(2), ["event"], "there is no queue 2");
}
for (const request of [Request.SET_VRING_NUM, Request.SET_VRING_BASE, Request.SET_VRING_ENABLE]) {
  refused("queue", request, words(2, 0), [], "there is no queue 2");
  refused("queue", request, words(0xffff_ffff, 0), [], "there is no queue 4294967295");
}
refused("features", Request.SET_FEATURES, longs(2), [], "features 0x2 were not on offer");
refused("features", Request.SET_FEATURES, longs(HUGE), [], "were not on offer");
refused("features", Request.SET_PROTOCOL_FEATURES, longs(4), [], "protocol features 0x4 were");
refused("features", Request.SET_PROTOCOL_FEATURES, longs(HUGE), [], "were not on offer");
refused("size 0", Request.SET_VRING_NUM, words(0, 0), [], "size 0 of queue 0 is not 1 to 1024");
refused("size 1025", Request.SET_VRING_NUM, words(1, 1025), [], "size 1025 of queue 1");
refused("base", Request.SET_VRING_BASE, words(0, 65536), [], "base 65536 of queue 0 is more");
refused("enable", Request.SET_VRING_ENABLE, words(0, 2), [], "it is 2 for queue 0");
refused("regions", Request.SET_MEM_TABLE, longs(0), [], "it has 0 regions");
refused("regions", Request.SET_MEM_TABLE, longs(33), [], "it has 33 regions");
refused("regions", Request.SET_MEM_TABLE, longs(0xffff_ffff), [], "it has 4294967295 regions");
refused("short", Request.SET_MEM_TABLE, longs(1), ["memory"], "its size is 8 with 1 regions");
refused(
  "more than 32 regions",
  Request.SET_MEM_TABLE,
  joined(longs(33), ...Array.from({ length: 33 }, (_, i) => longs(i * 4096, 4096, i * 4096, 0))),
  new Array(33).fill("memory"),
  "it has 33 regions, not 1 to 32",
);
refused(
  "as many regions as the kernel has descriptors for",
  Request.SET_MEM_TABLE,
  joined(longs(253), new Uint8Array(253 * 32)),
  new Array(253).fill("memory"),
  "it has 253 regions, not 1 to 32",
);
refused("long", Request.SET_MEM_TABLE, new Uint8Array(8192).fill(1, 0, 1), [], "its size is 8192");
refused(
  "descriptors",
  Request.SET_MEM_TABLE,
  joined(longs(1), region),
  ["memory", "memory"],
  "it has 1 regions and 2 descriptors",
);
refused(
  "descriptors",
  Request.SET_MEM_TABLE,
  joined(longs(1), region),
  [],
  "it has 1 regions and 0 descriptors",
);
refused(
  "file",
  Request.SET_MEM_TABLE,
  joined(longs(1), region),
  ["event"],
  "region 0: the file of guest memory at 0x0: it is not a memory file",
);
refused(
  "overlap",
  Request.SET_MEM_TABLE,
  joined(longs(2), region, region),
  ["memory", "memory"],
  "it overlaps",
);
refused("missing", Request.ADD_MEM_REG, joined(longs(0), region), [], "its descriptor is missing");
refused(
  "two",
  Request.ADD_MEM_REG,
  joined(longs(0), region),
  ["memory", "memory"],
  "2 descriptors came, at most 1",
);
for (
  const [guest, size, user, offset, line] of [
    [0, 0, 0, 0, "its size of 0 cannot be mapped"],
    [0, 1 << 21, 0, 0, "it ends at 1048576"],
    [0, 0x1000, 0, 1 << 20, "it ends at 1048576"],
    [0, 0x1000, 0, 3, "is not a multiple of 8"],
    [3, 0x1000, 0, 0, "multiple of 8"],
    [HUGE, 0x1000, 0, 0, "2^53 or more"],
    [0, HUGE, 0, 0, "2^53 or more"],
    [0, 0x1000, HUGE, 0, "beyond 2^64"],
    [0, 0x1000, 2n ** 64n - 0xfffn, 0, "beyond 2^64"],
    [0, 0x1000, 0, HUGE, "2^53 or more"],
    [2n ** 53n - 8n, 0x1000, 0, 0, "2^53"],
  ] as [number | bigint, number | bigint, number | bigint, number | bigint, string][]
) {
  refused("region", Request.ADD_MEM_REG, longs(0, guest, size, user, offset), ["memory"], line);
}
refused("absent", Request.REM_MEM_REG, joined(longs(0), region), [], "no region of 4096 bytes");
refused("absent", Request.REM_MEM_REG, joined(longs(0), region), ["memory"], "no region of 4096");
refused("size", Request.SET_CONFIG, words(0, 4, 0), [], "its size is 12 with 4 bytes");
refused("flags", Request.SET_CONFIG, words(0, 4, 4, 0), [], "its flags are 4");
refused("kick", Request.VRING_KICK, words(0, 0), [], "its protocol feature is not agreed");
refused("missing", Request.SET_BACKEND_REQ_FD, words(), [], "its descriptor is missing");
refused("kind", Request.SET_BACKEND_REQ_FD, words(), ["event"], "not a unix stream socket");
refused("missing", Request.SET_INFLIGHT_FD, new Uint8Array(24), [], "its descriptor is missing");
refused("empty", Request.SET_INFLIGHT_FD, new Uint8Array(24), ["memory"], "it is for 0 queues");
refused(
  "small",
  Request.SET_INFLIGHT_FD,
  joined(longs(64, 0), words(0x0400_0002)),
  ["memory"],
  "its size of 64 does not hold 2 queues of 1024",
);

function filesOf(
  kinds: readonly Kind[] | undefined,
  files: Record<Kind, Descriptor>,
): Descriptor[] {
  return (kinds ?? []).map((kind) => files[kind]);
}

Deno.test("every malformed message that asks for a reply is refused, and the session goes on", () => {
  const mapped = mappingsOf("raw-peer");
  const before = openDescriptors();
  withDescriptors((kinds) => {
    const during = openDescriptors();
    for (const { what, request, payload, files, line } of cases) {
      const name = `${requestName(request)}: ${what}`;
      using peer = new RawPeer();
      peer.agree();
      const events = peer.device.takeEvents().length;
      assertEquals(peer.acknowledged(request, payload, filesOf(files, kinds)), 1, name);
      assert(peer.warnings[0].startsWith(`${requestName(request)} refused: `), peer.warnings[0]);
      assert(peer.warnings[0].includes(line), `${name}: ${peer.warnings[0]}`);
      assertEquals(peer.device.takeEvents(), [], name);
      assertEquals(events, 1);
      assertEquals(peer.ask(Request.GET_QUEUE_NUM)?.getUint32(0, true), 2, name);
      peer.close();
      assertEquals(openDescriptors(), during, name);
    }
  });
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf("raw-peer"), mapped);
});

Deno.test("every malformed message that asks for no reply closes the connection, with one line", () => {
  const before = openDescriptors();
  withDescriptors((kinds) => {
    const during = openDescriptors();
    for (const { what, request, payload, files, line } of cases) {
      const name = `${requestName(request)}: ${what}`;
      using peer = new RawPeer();
      peer.agree();
      assertEquals(peer.send(request, payload, filesOf(files, kinds)), false, name);
      assertEquals(peer.warnings.length, 1, name);
      assert(peer.warnings[0].includes(line), `${name}: ${peer.warnings[0]}`);
      assert(peer.warnings[0].endsWith("; connection closed"), name);
      assertEquals(peer.backEnd.isOpen, false);
      assertEquals(peer.device.takeEvents().at(-1), "reset system", name);
      assertEquals(peer.connection.read(), "closed", name);
      peer.connection.close();
      assertEquals(openDescriptors(), during, name);
    }
  });
  assertEquals(openDescriptors(), before);
});

Deno.test("messages of features that are not agreed are refused", () => {
  const needing = [6, 21, 24, 25, 31, 32, 34, 35, 36, 37, 38, 39, 40, 42, 43];
  const sizes: Record<number, number> = { 6: 16, 24: 12, 25: 12, 31: 24, 32: 24 };
  Object.assign(sizes, { 35: 8, 37: 40, 38: 40, 39: 8, 42: 8 });
  for (const request of needing) {
    using peer = new RawPeer();
    assertEquals(peer.send(request, new Uint8Array(sizes[request] ?? 0)), false);
    const line = `${requestName(request)} refused: its protocol feature is not agreed`;
    assertEquals(peer.warnings, [`${line}; connection closed`]);
  }
});

Deno.test("messages that must have a reply of their own and cannot close the connection", () => {
  withDescriptors(({ memory, event }) => {
    const broken: [number, Uint8Array, Descriptor[], string][] = [
      [Request.GET_FEATURES, words(1), [], "its size is 4, not 0"],
      [Request.GET_VRING_BASE, words(2, 0), [], "there is no queue 2"],
      [Request.SET_LOG_BASE, longs(4096, 0), [], "its descriptor is missing"],
      [Request.SET_LOG_BASE, longs(4096, 0), [event], "the log's file: it is not a memory file"],
      [Request.SET_LOG_BASE, longs(HUGE, 0), [memory], "the log's file: its size of -1"],
      [Request.SET_LOG_BASE, longs(4096, HUGE), [memory], "the log's file: its offset of -1"],
      [Request.GET_INFLIGHT_FD, new Uint8Array(24), [], "it is for 0 queues of 2"],
      [
        Request.GET_INFLIGHT_FD,
        joined(longs(0, 0), words(0xffff_0002)),
        [],
        "it is for queues of size 65535",
      ],
      [Request.SET_DEVICE_STATE_FD, words(0, 0), [event, event], "2 descriptors came"],
    ];
    for (const [request, payload, files, line] of broken) {
      using peer = new RawPeer();
      peer.agree();
      assertEquals(peer.ask(request, payload, files, 8), undefined);
      assert(peer.warnings[0].includes(line), peer.warnings[0]);
      assertEquals(peer.backEnd.isOpen, false);
    }
  });
});

Deno.test("GET_CONFIG that cannot be answered gets the empty reply that says so", () => {
  for (
    const payload of [words(0, 4097, 0), words(0, 8, 0, 0), words(0, 0xffff_ffff, 0)]
  ) {
    using peer = new RawPeer();
    peer.agree();
    assertEquals(peer.ask(Request.GET_CONFIG, payload)?.byteLength, 0);
    assertEquals(peer.warnings.length, 1);
    assertEquals(peer.backEnd.isOpen, true);
  }
});

Deno.test("what a queue needs is not changed under it", () => {
  withDescriptors(({ memory, event }) => {
    using peer = new RawPeer();
    peer.agree();
    peer.send(Request.ADD_MEM_REG, longs(0, 0, 1 << 20, 0, 0), [memory]);
    peer.send(Request.SET_VRING_NUM, words(0, 8));
    peer.send(Request.SET_VRING_ADDR, joined(words(0, 0), longs(0x1000, 0x3000, 0x2000, 0)));
    peer.send(Request.SET_VRING_KICK, longs(0), [event]);
    peer.send(Request.SET_VRING_ENABLE, words(0, 1));
    assert(peer.backEnd.queue(0) !== undefined);
    assertEquals(peer.acknowledged(Request.SET_VRING_NUM, words(0, 16)), 1);
    assertEquals(peer.acknowledged(Request.SET_VRING_BASE, words(0, 1)), 1);
    assertEquals(peer.acknowledged(Request.SET_FEATURES, words(0x4000_0000, 5)), 1);
    const record = joined(longs(1 << 20, 0), words(0x0008_0002));
    assertEquals(peer.acknowledged(Request.SET_INFLIGHT_FD, record, [memory]), 1);
    assertEquals(peer.warnings.length, 4);
    assert(peer.backEnd.queue(0) !== undefined);
  });
});

Deno.test("a ring that cannot run where it is put is refused and does not run", () => {
  withDescriptors(({ memory, event }) => {
    const places: [bigint[], number, string][] = [
      [[0x1000n, 0x3000n, HUGE], 8, "its available ring are at a user address in no memory region"],
      [
        [2n ** 40n, 0x3000n, 0x2000n],
        8,
        "its descriptors are at a user address in no memory region",
      ],
      [[0x1000n, 0x10_0000n, 0x2000n], 8, "its used ring are at a user address in no"],
      [[0x1001n, 0x3000n, 0x2000n], 8, "not aligned"],
      [[0x1000n, 0x3000n, 0xf_fff0n], 8, "not in accessible memory"],
      [[0x1000n, 0x3000n, 0x2000n], 12, "Queue size cannot be used"],
    ];
    for (const [[descriptors, used, available], size, line] of places) {
      using peer = new RawPeer();
      peer.agree();
      peer.send(Request.ADD_MEM_REG, longs(0, 0, 1 << 20, 0, 0), [memory]);
      peer.send(Request.SET_VRING_NUM, words(0, size));
      const address = joined(words(0, 0), longs(descriptors, used, available, 0));
      peer.send(Request.SET_VRING_ADDR, address);
      peer.send(Request.SET_VRING_KICK, longs(0), [event]);
      assertEquals(peer.acknowledged(Request.SET_VRING_ENABLE, words(0, 1)), 1);
      assert(peer.warnings[0].includes("queue 0 cannot run: "), peer.warnings[0]);
      assert(peer.warnings[0].includes(line), peer.warnings[0]);
      assertEquals(peer.backEnd.queue(0), undefined);
    }
  });
});

Deno.test("a ring that the guest has put nowhere fails alone, also where no reply is asked for", () => {
  withDescriptors(({ memory, event }) => {
    using failed = Event.create();
    using peer = new RawPeer();
    peer.agree();
    peer.send(Request.ADD_MEM_REG, longs(0, 0, 1 << 20, 0, 0), [memory]);
    startRing(peer, 0, 0x1000, event);
    assert(peer.backEnd.queue(0) !== undefined);
    peer.send(Request.SET_VRING_ERR, words(1, 0), [failed.descriptor]);
    assertEquals(startRing(peer, 1, 0x20_0000, event), true);
    assertEquals([peer.backEnd.queue(1), failed.drain()], [undefined, true]);
    assertEquals(peer.warnings.length, 1);
    assert(peer.warnings[0].includes("queue 1 cannot run: its descriptors"), peer.warnings[0]);
    assert(!peer.warnings[0].includes("closed"), peer.warnings[0]);
    assert(peer.backEnd.queue(0) !== undefined, "the other ring runs on");

    // Memory that comes later may be the one that was meant.
    assertEquals(
      peer.acknowledged(Request.ADD_MEM_REG, longs(0, 0x20_0000, 1 << 20, 0x20_0000, 0), [memory]),
      0,
    );
    assert(peer.backEnd.queue(1) !== undefined);

    // A ring that runs and is moved to nowhere.
    const nowhere = joined(words(1, 0), longs(HUGE, HUGE, HUGE, 0));
    assertEquals(peer.send(Request.SET_VRING_ADDR, nowhere), true);
    assertEquals([peer.backEnd.queue(1), failed.drain()], [undefined, true]);
    assertEquals(peer.ask(Request.GET_VRING_BASE, words(1, 0))?.getUint32(0, true), 1);
    assertEquals(startRing(peer, 1, 0x5000, event), true);
    assert(peer.backEnd.queue(1) !== undefined, "a driver that starts again gets its ring");
    assert(peer.backEnd.queue(0) !== undefined);
  });
});

/** Describes a ring of 8 and starts it, asking for no replies. Returns whether the session goes on. */
function startRing(peer: RawPeer, index: number, at: number, kick: Descriptor): boolean {
  const places = longs(at, at + 0x2000, at + 0x1000, 0);
  peer.send(Request.SET_VRING_NUM, words(index, 8));
  peer.send(Request.SET_VRING_BASE, words(index, 0));
  peer.send(Request.SET_VRING_ADDR, joined(words(index, 0), places));
  peer.send(Request.SET_VRING_KICK, words(index, 0), [kick]);
  return peer.send(Request.SET_VRING_ENABLE, words(index, 1));
}

Deno.test("sockets and pipes where memory or events belong are refused", async () => {
  const before = openDescriptors();
  const [one, other] = UnixStream.pair();
  const [reader, writer] = createPipe();
  for (const each of [one.descriptor, reader, writer]) {
    using peer = new RawPeer();
    peer.agree();
    assertEquals(peer.acknowledged(Request.SET_VRING_KICK, longs(0), [each]), 1);
    assertEquals(peer.acknowledged(Request.ADD_MEM_REG, joined(longs(0), region), [each]), 1);
  }
  for (const each of [one, other, reader, writer]) each.close();
  await descriptorsClosed();
  assertEquals(openDescriptors(), before);
});
