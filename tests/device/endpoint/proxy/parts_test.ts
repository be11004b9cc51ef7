/** The small parts of a proxied endpoint: its messages byte by byte, memory, misses, the order of replies. */
import { assertEquals } from "@std/assert";
import {
  invalidateMessage,
  readIotlbMessage,
  updateMessage,
} from "../../../../device/endpoint/proxy/iotlb_message.ts";
import { RememberedMisses } from "../../../../device/endpoint/proxy/remembered_misses.ts";
import { ReplyOrder } from "../../../../device/endpoint/proxy/reply_order.ts";
import { UserRegions } from "../../../../device/endpoint/proxy/user_regions.ts";
import { FLAG_NEED_REPLY, ProtocolFeature, Request } from "../../../../device/vhost_user/mod.ts";

const LAST_PAGE = 2 ** 52 - 1;

/** The eight bytes of a field. */
function field(bytes: Uint8Array, at: number): bigint {
  return new DataView(bytes.buffer).getBigUint64(at, true);
}

Deno.test("IOTLB messages are 32 bytes: address, size, user address, permission, type", () => {
  const update = updateMessage(2 ** 40 + 5, 2 ** 40 + 6, 2 ** 52 - 2, 0x801, 2);
  assertEquals(update.length, 32);
  assertEquals(
    [field(update, 0), field(update, 8), field(update, 16), update[24], update[25]],
    [2n ** 52n + 0x5000n, 0x2000n, 2n ** 64n - 0x17ffn, 2, 2],
  );
  const some = invalidateMessage(1, 2 ** 51);
  assertEquals([field(some, 0), field(some, 8), some[25]], [0x1000n, 2n ** 63n, 3]);
  const less = invalidateMessage(2 ** 40, 2 ** 40, true);
  assertEquals([field(less, 0), field(less, 8)], [2n ** 52n, 0xfffn]);
  const all = invalidateMessage(0, LAST_PAGE);
  assertEquals([field(all, 0), field(all, 8)], [0n, 2n ** 64n - 1n]);
  const miss = new Uint8Array(32);
  new DataView(miss.buffer).setBigUint64(0, 2n ** 64n - 1n, true);
  miss[24] = 3;
  miss[25] = 1;
  assertEquals(readIotlbMessage(new DataView(miss.buffer)), {
    type: 1,
    page: LAST_PAGE,
    offset: 0xfff,
    permission: 3,
  });
});

/** SET_MEM_TABLE of regions of guest address, size, user address. */
function table(...regions: readonly (readonly [bigint, bigint, bigint])[]): DataView {
  const data = new DataView(new ArrayBuffer(8 + regions.length * 32));
  data.setUint32(0, regions.length, true);
  regions.forEach((fields, i) =>
    fields.forEach((value, k) => data.setBigUint64(8 + i * 32 + k * 8, value, true))
  );
  return data;
}

Deno.test("regions count in whole pages, and a table that drops one says so", () => {
  const regions = new UserRegions();
  const low = [0x800n, 0x9_0000n, 0x10_0000n] as const;
  const high = [2n ** 32n, 0x1000n, 0x20_0000n] as const;
  const first = table(low, high);
  assertEquals(regions.replace(first, first.byteLength), true, "nothing was dropped");
  assertEquals(regions.find(0), undefined, "half a page is none");
  assertEquals(regions.find(1), {
    firstPage: 1,
    lastPage: 0x8f,
    userAddress: { page: 0x100, offset: 0x800 },
  });
  assertEquals(regions.find(0x90), undefined);
  assertEquals(regions.find(2 ** 20)?.userAddress, { page: 0x200, offset: 0 });
  const other = table(high);
  assertEquals(regions.replace(other, other.byteLength), false);
  assertEquals(regions.find(1), undefined);
  regions.add(table(low));
  assertEquals(regions.all.length, 2);
  regions.remove(table(high));
  assertEquals(regions.all.length, 1);
  regions.remove(table(high));
  assertEquals(regions.all.length, 1);
});

Deno.test("regions that cannot be are left out: no page, beyond 2^53 or 2^64, a count that the message has no room for", () => {
  const regions = new UserRegions();
  const data = table(
    [0n, 0xfffn, 0n],
    [2n ** 53n, 4096n, 0n],
    [0n, 4096n, 2n ** 64n - 4095n],
  );
  data.setUint32(0, 7, true);
  regions.replace(data, data.byteLength);
  assertEquals(regions.all, []);
});

Deno.test("user addresses keep all their 64 bits", () => {
  const regions = new UserRegions();
  // Two pages whose last byte is at 2^64 - 1, and one that begins in the middle of a page.
  const data = table([0n, 0x2000n, 2n ** 64n - 0x2000n], [0x3800n, 0x1800n, 2n ** 63n + 0x801n]);
  regions.replace(data, data.byteLength);
  assertEquals(regions.find(1)?.userAddress, { page: LAST_PAGE - 1, offset: 0 });
  assertEquals(regions.find(4), {
    firstPage: 4,
    lastPage: 4,
    userAddress: { page: 2 ** 51 + 1, offset: 1 },
  });
});

Deno.test("misses are remembered once, taken by range, and the oldest goes first", () => {
  const misses = new RememberedMisses();
  for (const page of [5, 7, 5, 9]) misses.add(page, 1);
  misses.add(5, 2);
  assertEquals(misses.count, 4);
  assertEquals(misses.take(5, 7).map(({ page }) => page), [5, 7, 5]);
  assertEquals(misses.take(0, 8), []);
  for (let page = 100; page < 700; page++) misses.add(page, 1);
  assertEquals(misses.count, 512);
  assertEquals(misses.take(9, 187).length, 0, "forgotten");
  assertEquals(misses.take(188, 188).length, 1);
});

Deno.test("replies given on the way keep their places", () => {
  const order = new ReplyOrder();
  const [one, two, three] = [1, 2, 3].map((i) => ({ request: 22, payload: Uint8Array.of(i) }));
  const nothing = { before: [], behind: [], access: undefined };
  assertEquals(order.answered(one), true, "nothing is due before it");
  order.passed(Request.SET_VRING_ENABLE, 0, ProtocolFeature.REPLY_ACK);
  order.passed(Request.SET_VRING_ENABLE, FLAG_NEED_REPLY, 0);
  order.passed(Request.SET_LOG_BASE, 0, 0);
  assertEquals(order.answered(one), true, "those are not replied to");
  order.passed(Request.SET_VRING_ENABLE, FLAG_NEED_REPLY, ProtocolFeature.REPLY_ACK);
  assertEquals(order.answered(one), false);
  order.passed(Request.SET_LOG_BASE, 0, ProtocolFeature.LOG_SHMFD);
  const access = { offset: 0, length: 8, flags: 0, passed: 8 };
  order.passed(Request.GET_CONFIG, 0, 0, access);
  assertEquals(order.answered(two), false);
  assertEquals(order.answered(three), false);
  assertEquals(order.replied(Request.SET_VRING_ENABLE), { ...nothing, behind: [one] });
  assertEquals(order.replied(Request.GET_STATUS), nothing, "it was not asked for");
  assertEquals(order.replied(Request.GET_CONFIG), { before: [], behind: [two, three], access });
  assertEquals(order.answered(one), true);
  order.passed(Request.GET_STATUS, 0, 0);
  assertEquals(order.answered(one), false);
  order.passed(Request.GET_FEATURES, 0, 0);
  assertEquals(order.replied(Request.GET_FEATURES), { ...nothing, before: [one] });
});
