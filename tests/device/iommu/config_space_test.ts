import { assertEquals, assertThrows } from "@std/assert";
import { CONFIG_SIZE, ConfigSpace } from "../../../device/iommu/config_space.ts";

/** A configuration space with a distinct value in each field. */
function configSpace(bypass = true): ConfigSpace {
  return new ConfigSpace({
    pageSizeMask: 2 ** 12 + 2 ** 21 + 2 ** 39,
    inputFirstPage: 1,
    inputLastPage: 2 ** 36 - 1,
    domainFirst: 0,
    domainLast: 0xfffffffe,
    probeSize: 24,
    bypass,
  });
}

Deno.test("ConfigSpace has its fields where virtio 1.4 5.13.4 has them", () => {
  const bytes = new Uint8Array(CONFIG_SIZE);
  configSpace().read(bytes, 0);
  const view = new DataView(bytes.buffer);
  assertEquals(view.getBigUint64(0, true), 0x80_0020_1000n);
  assertEquals(view.getBigUint64(8, true), 0x1000n);
  assertEquals(view.getBigUint64(16, true), 0xffff_ffff_ffffn);
  assertEquals([view.getUint32(24, true), view.getUint32(28, true)], [0, 0xfffffffe]);
  assertEquals(view.getUint32(32, true), 24);
  assertEquals([...bytes.subarray(36)], [1, 0, 0, 0]);
});

Deno.test("ConfigSpace.read() gives parts, and zeros behind its end", () => {
  const bytes = new Uint8Array(8).fill(0xee);
  configSpace().read(bytes, 34);
  assertEquals([...bytes], [0, 0, 1, 0, 0, 0, 0, 0]);
  configSpace().read(bytes.fill(0xee), 400);
  assertEquals([...bytes], [0, 0, 0, 0, 0, 0, 0, 0]);
});

Deno.test("C1: ConfigSpace needs a page size", () => {
  const values = { inputFirstPage: 0, inputLastPage: 1, domainFirst: 0, domainLast: 1 };
  assertThrows(
    () => new ConfigSpace({ ...values, pageSizeMask: 0, probeSize: 24, bypass: true }),
    RangeError,
    "without a page size",
  );
});

Deno.test("C3: the bypass byte survives all but a system reset", () => {
  const config = configSpace(true);
  config.write(Uint8Array.of(0), 36);
  assertEquals(config.bypass, false);
  config.systemReset();
  assertEquals(config.bypass, true);
});

Deno.test("C3: what a driver writes before it starts a queue is the value of its own life", () => {
  const config = configSpace(true);
  config.write(Uint8Array.of(0), 36, true);
  config.systemReset();
  assertEquals(config.bypass, false);
  config.forgetEarly();
  config.systemReset();
  assertEquals(config.bypass, true);
});

Deno.test("C4: the bypass byte never takes a value but 0 and 1", () => {
  const config = configSpace(true);
  assertEquals(config.write(Uint8Array.of(2), 36), false);
  const bytes = new Uint8Array(1);
  config.read(bytes, 36);
  assertEquals(bytes[0], 1);
});

Deno.test("ConfigSpace.write() takes the bypass byte out of whole spaces, words and bytes", () => {
  const whole = new Uint8Array(CONFIG_SIZE).fill(0xff);
  whole[36] = 0;
  for (
    const [bytes, offset] of [[whole, 0], [new Uint8Array(4), 36], [new Uint8Array(1), 36]] as const
  ) {
    const config = configSpace(true);
    assertEquals(config.write(bytes, offset), true);
    assertEquals(config.bypass, false);
    assertEquals(config.write(bytes, offset), false);
  }
});

Deno.test("ConfigSpace.write() ignores the bytes that a driver may not write", () => {
  const config = configSpace(true);
  const before = new Uint8Array(CONFIG_SIZE);
  config.read(before, 0);
  config.write(new Uint8Array(36).fill(0xff), 0);
  config.write(new Uint8Array(3).fill(0xff), 37);
  config.write(new Uint8Array(3), 400);
  const after = new Uint8Array(CONFIG_SIZE);
  config.read(after, 0);
  assertEquals(after, before);
});
