/**
 * Memory of the exchange form: chunks in every encoding, runs of zeros, and images.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  build,
  buildOutput,
  ChunkReader,
  chunksOf,
  imageOf,
  TableMemory,
  walk,
} from "../../../pagetable/mod.ts";

Deno.test("chunks may come as base64, hexadecimal or words", () => {
  const output = buildOutput(build({
    format: "amdv1",
    base: 0x2000000,
    domains: [{ id: 1, mappings: [{ iova: 0, phys: 0x5000, length: 0x1000, prot: "r" }] }],
    endpoints: [{ sid: 5, domain: 1 }],
  }));
  const queries = [{ iova: 0x10, access: "r", sid: 5 }];
  const bytes = Uint8Array.fromBase64(output.mem[0].b64 ?? "");
  const words = [...new BigUint64Array(bytes.buffer)].map((word) => `0x${word.toString(16)}`);
  for (
    const mem of [output.mem, [{ addr: 0x2000000, hex: bytes.toHex() }], [{
      addr: "0x2000000",
      u64: words,
    }]]
  ) {
    assertEquals(walk({ ...output, mem, queries }).results[0].pa, "0x5010");
  }
  const single = { addr: "0x2000000", u64: ["0x0"] };
  const damaged = walk({ ...output, mem: [...output.mem, single], queries }).results[0];
  assertEquals([damaged.ok, damaged.fault?.name], [false, "not-present"]);
});

Deno.test("chunks of zeros clear what came before, make pages readable and take no memory", () => {
  const reader = new ChunkReader([
    { addr: 0x1000, u64: ["0x1111", "0x2222", "0x3333"] },
    { addr: 0x1008, zeros: 8 },
    { addr: "0x2000", zeros: "0xfffffffffffffffff".slice(0, 18) },
    { addr: 0x5010, u64: ["0x4444"] },
  ]);
  const word = (frame: number, index: number): number =>
    reader.load(frame, index) ? reader.low : -1;
  assertEquals([0, 1, 2, 3].map((index) => word(1, index)), [0x1111, 0, 0x3333, 0]);
  assertEquals([word(0, 0), word(2, 5), word(5, 1), word(5, 2), word(2 ** 52 - 1, 511)], [
    -1,
    0,
    0,
    0x4444,
    0,
  ]);
});

Deno.test("chunks give back any memory, in pieces of at most 4 MiB", () => {
  const run = fc.record({ zeros: fc.nat(40), bytes: fc.nat(2000) });
  fc.assert(
    fc.property(fc.array(run, { maxLength: 4 }), (runs) => {
      const memory = new TableMemory({ baseFrame: 0x100, bytes: 64 * 2 ** 20 });
      for (const { zeros, bytes } of runs) {
        for (let page = 0; page < zeros; page++) memory.allocate(0);
        for (let page = 0; page < bytes; page++) {
          const made = memory.allocate(0);
          // Some of them zero, so that short runs of zeros lie between.
          memory.words[made * 1024 + page % 1024] = page % 7;
        }
      }
      const chunks = [...chunksOf(memory)];
      for (const { b64 } of chunks) assert((b64?.length ?? 0) <= 4 * 2 ** 20 * 4 / 3 + 4);
      const reader = new ChunkReader(chunks);
      for (let page = 0; page < memory.touched; page++) {
        assert(reader.load(0x100 + page, (page % 1024) >> 1));
        memory.load(0x100 + page, (page % 1024) >> 1);
        assertEquals([reader.low, reader.high], [memory.low, memory.high]);
      }
      assert(!reader.load(0x100 + memory.touched, 0));
    }),
    { numRuns: 20 },
  );
});

Deno.test("the image of table memory holds the tables", () => {
  const built = build({
    format: "smmuv3-s2",
    base: 0x8000000,
    domains: [{ id: 1, mappings: [{ iova: 0x4000, phys: 0x9000, length: 0x1000, prot: "w" }] }],
    endpoints: [{ sid: 9, domain: 1 }],
  });
  const image = imageOf(built.memory).toBase64();
  const reader = new ChunkReader([{ addr: "0x8000000", b64: image }]);
  const queries = [{ iova: 0x4010, access: "w", sid: 9 }, { iova: 0x4010, access: "r", sid: 9 }];
  const { results } = walk({ ...built.description, queries }, reader);
  assertEquals(results[0].pa, "0x9010");
  assertEquals(results[1].fault, { code: "0x13", name: "no-read" });
});
