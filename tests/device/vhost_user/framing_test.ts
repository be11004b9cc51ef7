/** What is no message at all, and what ends within one. */
import { assert, assertEquals } from "@std/assert";
import type { Descriptor } from "../../../device/host/mod.ts";
import { Request } from "../../../device/vhost_user/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { openDescriptors } from "../host/host_state.ts";
import { RawPeer, withDescriptors } from "./raw_peer.ts";

Deno.test("broken framing closes the connection: version, size, reply bit, descriptors", () => {
  const before = openDescriptors();
  withDescriptors(({ event }) => {
    const during = openDescriptors();
    const broken: [Uint8Array<ArrayBuffer>, Descriptor[], string][] = [
      [words(1, 0, 0), [], "GET_FEATURES: version 0 in the flags, 1 is known"],
      [words(1, 2, 0), [], "GET_FEATURES: version 2 in the flags"],
      [words(2, 1, 8193), [], "SET_FEATURES: size 8193, at most 8192 is accepted"],
      [words(2, 1, 0xffff_ffff), [], "SET_FEATURES: size 4294967295"],
      [words(1, 1 | 4, 0), [], "GET_FEATURES refused: it is marked as a reply"],
      [words(1, 1, 0), [event], "GET_FEATURES refused: 1 descriptors came, at most 0"],
      [words(77, 1, 0), [], "message 77 refused: this device does not know it"],
    ];
    for (const [bytes, files, line] of broken) {
      using peer = new RawPeer();
      assertEquals(peer.sendBytes(bytes, files), false, line);
      assert(peer.warnings[0].startsWith(line), peer.warnings[0]);
      peer.close();
      assertEquals(openDescriptors(), during, line);
    }
  });
  assertEquals(openDescriptors(), before);
});

Deno.test("more descriptors than the kernel passes on at once belong to no message", () => {
  const before = openDescriptors();
  withDescriptors(({ event }) => {
    const during = openDescriptors();
    using peer = new RawPeer();
    const header = words(Request.SET_MEM_TABLE, 1, 8);
    assertEquals(peer.sendBytes(header.slice(0, 4), new Array(200).fill(event)), true);
    assertEquals(peer.sendBytes(header.slice(4, 8), new Array(54).fill(event)), false);
    assertEquals(peer.warnings, [
      "a message: 254 descriptors, at most 253 belong to a message; connection closed",
    ]);
    peer.close();
    assertEquals(openDescriptors(), during);
  });
  assertEquals(openDescriptors(), before);
});

Deno.test("a connection that ends within a message is closed with a line that says where", () => {
  const before = openDescriptors();
  withDescriptors(({ event }) => {
    const message = joined(words(Request.SET_VRING_CALL, 1, 8), longs(0));
    for (let length = 1; length < message.length; length++) {
      using peer = new RawPeer();
      peer.sendBytes(message.slice(0, length), [event]);
      peer.connection.close();
      assertEquals(peer.backEnd.onReadable(), false);
      const where = length < 12
        ? `closed within a header, after ${length} bytes`
        : `SET_VRING_CALL: closed after ${length - 12} of 8 bytes`;
      assertEquals(peer.warnings, [`${where}; connection closed`]);
    }
  });
  assertEquals(openDescriptors(), before);
});
