/**
 * UNMAP: U1 to U5 and the worked examples of the specification.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { unmapRequest } from "../../device/iommu/driver_requests.ts";
import type { DeviceUnderTest } from "./subject.ts";
import { attach, map, reaches, status, unmap } from "./requests.ts";
import type { Statement } from "./statement.ts";

/** One granule: the examples of the specification count in bytes, we scale them by it. */
const GRANULE = 0x1000n;

/** Maps units [first, last] of the examples, each to itself plus a constant. */
async function mapUnits(dut: DeviceUnderTest, first: bigint, last: bigint): Promise<void> {
  const end = (last + 1n) * GRANULE - 1n;
  assertEquals(await map(dut, 1, first * GRANULE, end, 0x100000n + first * GRANULE), "OK");
}

/** Unmaps units [first, last]. */
function unmapUnits(dut: DeviceUnderTest, first: bigint, last: bigint): Promise<string> {
  return unmap(dut, 1, first * GRANULE, (last + 1n) * GRANULE - 1n);
}

/** Which of units 0 to 14 are mapped, as a text of x and dots. */
async function picture(dut: DeviceUnderTest): Promise<string> {
  let text = "";
  for (let unit = 0n; unit < 15n; unit++) {
    const phys = await reaches(dut, 8, unit * GRANULE);
    if (phys !== undefined) assertEquals(phys, 0x100000n + unit * GRANULE);
    text += phys === undefined ? "." : "x";
  }
  return text;
}

/** The seven worked examples of virtio 1.4, 5.13.6.6: mappings, the range unmapped, answer, what is left. */
const EXAMPLES: readonly {
  readonly maps: readonly (readonly [bigint, bigint])[];
  readonly unmap: readonly [bigint, bigint];
  readonly status: string;
  readonly left: string;
}[] = [
  { maps: [], unmap: [0n, 4n], status: "OK", left: "..............." },
  { maps: [[0n, 9n]], unmap: [0n, 9n], status: "OK", left: "..............." },
  { maps: [[0n, 4n], [5n, 9n]], unmap: [0n, 9n], status: "OK", left: "..............." },
  { maps: [[0n, 9n]], unmap: [0n, 4n], status: "RANGE", left: "xxxxxxxxxx....." },
  { maps: [[0n, 4n], [5n, 9n]], unmap: [0n, 4n], status: "OK", left: ".....xxxxx....." },
  { maps: [[0n, 4n]], unmap: [0n, 9n], status: "OK", left: "..............." },
  { maps: [[0n, 4n], [10n, 14n]], unmap: [0n, 14n], status: "OK", left: "..............." },
];

/** Virtio 1.4, 5.13.6.6. */
export const UNMAP: readonly Statement[] = [
  {
    id: "U1",
    text: "UNMAP with a reserved field that is not zero may be refused with INVAL",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      const bytes = unmapRequest(1, 0x1000n, 0x1fffn);
      bytes[27] = 1;
      assertEquals(["INVAL", "OK"].includes(status(await dut.request(bytes, 4))), true);
    },
  },
  {
    id: "U2",
    text: "UNMAP of a domain that does not exist is answered with NOENT",
    async run(dut) {
      assertEquals(await unmap(dut, 1, 0x1000n, 0x1fffn), "NOENT");
    },
  },
  {
    id: "U3",
    text: "UNMAP of a bypass domain is answered with INVAL",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8, 1), "OK");
      assertEquals(await unmap(dut, 1, 0x1000n, 0x1fffn), "INVAL");
    },
  },
  {
    id: "U4",
    text: "UNMAP that would split any mapping is refused with RANGE and removes none",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      await mapUnits(dut, 0n, 4n);
      await mapUnits(dut, 5n, 9n);
      await mapUnits(dut, 12n, 14n);
      for (const [first, last] of [[0n, 13n], [1n, 14n], [4n, 4n], [0n, 7n], [2n, 7n]]) {
        assertEquals(await unmapUnits(dut, first, last), "RANGE");
        assertEquals(await picture(dut), "xxxxxxxxxx..xxx");
      }
      // A range that cuts the granule of a mapping would split it too.
      assertEquals(await unmap(dut, 1, 0n, 0xa800n), "OK");
      assertEquals(await unmap(dut, 1, 0xc800n, 0xffffn), "RANGE");
      assertEquals(await unmap(dut, 1, 0xc000n, 0xe7ffn), "RANGE");
      assertEquals(await picture(dut), "............xxx");
    },
  },
  {
    id: "U5",
    text: "UNMAP steps over holes, also over the whole address space",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      await mapUnits(dut, 1n, 1n);
      await mapUnits(dut, 3n, 5n);
      await mapUnits(dut, 9n, 9n);
      assertEquals(await unmapUnits(dut, 0n, 7n), "OK");
      assertEquals(await picture(dut), ".........x.....");
      assertEquals(await unmap(dut, 1, 0n, 2n ** 64n - 1n), "OK");
      assertEquals(await picture(dut), "...............");
      assertEquals(await unmap(dut, 1, 0n, 2n ** 64n - 1n), "OK");
    },
  },
  {
    id: "U-order",
    text: "UNMAP that ends before it begins removes nothing",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      await mapUnits(dut, 0n, 4n);
      await mapUnits(dut, 5n, 9n);
      for (const [start, end] of [[0x5000n, 0x4fffn], [0xa000n, 0xfffn], [2n ** 64n - 1n, 0n]]) {
        assertEquals(["OK", "INVAL", "RANGE"].includes(await unmap(dut, 1, start, end)), true);
        assertEquals(await picture(dut), "xxxxxxxxxx.....");
      }
    },
  },
  ...EXAMPLES.map((example, at): Statement => ({
    id: `U-example-${at + 1}`,
    text: `worked example ${at + 1} of UNMAP comes out as the specification says`,
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      for (const [first, last] of example.maps) await mapUnits(dut, first, last);
      assertEquals(await unmapUnits(dut, example.unmap[0], example.unmap[1]), example.status);
      assertEquals(await picture(dut), example.left);
    },
  })),
];
