import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  addressText,
  endpointText,
  parseAddress,
  parseAddressRange,
  parseEndpoint,
  parseEndpointRange,
  parseNumber,
  parseSize,
  rangeText,
  readAddress,
  sizeText,
  writeAddress,
} from "../../device/address.ts";

/** Any byte address. */
const anyAddress = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

Deno.test("parseAddress() and addressText() keep every 64-bit address exact", () => {
  fc.assert(fc.property(anyAddress, fc.boolean(), (value, hexadecimal) => {
    const text = hexadecimal ? `0x${value.toString(16)}` : value.toString();
    const address = parseAddress(text)!;
    assertEquals(BigInt(address.page) * 4096n + BigInt(address.offset), value);
    assertEquals(addressText(address.page, address.offset), `0x${value.toString(16)}`);
  }));
});

Deno.test("writeAddress() writes every 64-bit address as little-endian bytes, and readAddress() reads it", () => {
  fc.assert(fc.property(anyAddress, (value) => {
    const view = new DataView(new ArrayBuffer(8));
    writeAddress(view, 0, Number(value >> 12n), Number(value & 0xfffn));
    assertEquals(view.getBigUint64(0, true), value);
    const read = readAddress(view, 0);
    assertEquals(BigInt(read.page) * 4096n + BigInt(read.offset), value);
  }));
});

Deno.test("parseAddress() refuses what is no address below 2^64", () => {
  for (const text of ["", "-1", "0x", "12g", "1e3", " 1", "0x10000000000000000"]) {
    assertEquals(parseAddress(text), undefined, text);
  }
});

Deno.test("parseAddressRange() takes whole pages only, both ends included", () => {
  assertEquals(parseAddressRange("0x8000000-0x80fffff"), { firstPage: 0x8000, lastPage: 0x80ff });
  assertEquals(parseAddressRange("0-0xffffffffffffffff"), { firstPage: 0, lastPage: 2 ** 52 - 1 });
  for (const text of ["0x1000", "0x1000-0x2000", "0x1001-0x1fff", "0x2000-0x1fff", "-", "a-b"]) {
    assertEquals(parseAddressRange(text), undefined, text);
  }
});

Deno.test("rangeText() gives byte addresses, both ends included", () => {
  assertEquals(rangeText(0xfee00, 0xfeeff), "0xfee00000-0xfeefffff");
});

Deno.test("parseEndpoint() takes numbers and PCI addresses with or without a segment", () => {
  assertEquals(parseEndpoint("24"), 24);
  assertEquals(parseEndpoint("0x18"), 24);
  assertEquals(parseEndpoint("00:03.0"), 24);
  assertEquals(parseEndpoint("0001:ff:1f.7"), 0x1ffff);
  for (const text of ["", "00:20.0", "00:03.8", "0:3.0", "4294967296", "x"]) {
    assertEquals(parseEndpoint(text), undefined, text);
  }
});

Deno.test("endpointText() and parseEndpoint() are inverse", () => {
  fc.assert(fc.property(fc.nat(0x7fffffff), (id) => {
    assertEquals(parseEndpoint(endpointText(id)), id);
  }));
});

Deno.test("parseEndpointRange() takes one endpoint or two in order", () => {
  assertEquals(parseEndpointRange("00:00.0-ff:1f.7"), [0, 0xffff]);
  assertEquals(parseEndpointRange("7"), [7, 7]);
  assertEquals(parseEndpointRange("8-7"), undefined);
});

Deno.test("parseSize() and sizeText() know K, M, G and T", () => {
  assertEquals(["4096", "4K", "2m", "1G", "1T"].map(parseSize), [
    4096,
    4096,
    2 ** 21,
    2 ** 30,
    2 ** 40,
  ]);
  assertEquals([4096, 2 ** 21, 2 ** 30, 5].map(sizeText), ["4K", "2M", "1G", "5"]);
  for (const text of ["", "0", "K", "4KB", "1.5G", "99999999T"]) {
    assertEquals(parseSize(text), undefined, text);
  }
});

Deno.test("parseNumber() keeps to its last value", () => {
  assertEquals(parseNumber("0x10", 16), 16);
  assertEquals(parseNumber("17", 16), undefined);
});
