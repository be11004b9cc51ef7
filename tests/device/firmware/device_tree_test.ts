/** Flattened device trees: read, written, patched, damaged. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  DEVICE_TREE_DEPTH,
  type DeviceTree,
  type DeviceTreeNode,
  readDeviceTree,
} from "../../../device/firmware/device_tree.ts";
import { addVirtioIommu } from "../../../device/firmware/device_tree_iommu.ts";
import { writeDeviceTree } from "../../../device/firmware/device_tree_writer.ts";

/** A node; values are texts of bytes or lists of cells. */
function node(
  name: string,
  properties: Readonly<Record<string, string | readonly number[]>> = {},
  children: readonly DeviceTreeNode[] = [],
): DeviceTreeNode {
  const list = Object.entries(properties).map(([key, value]) => ({
    name: key,
    value: typeof value === "string" ? new TextEncoder().encode(`${value}\0`) : cells(...value),
  }));
  return { name, properties: list, children };
}

function cells(...values: readonly number[]): Uint8Array {
  return Uint8Array.from(values.flatMap((v) => [v >>> 24, v >>> 16 & 255, v >>> 8 & 255, v & 255]));
}

function treeOf(root: DeviceTreeNode): DeviceTree {
  return { bootProcessor: 0, reservations: [], root };
}

/** A PCI host bridge as QEMU's `virt` machine has it. */
function bridge(
  more: Readonly<Record<string, string | readonly number[]>> = {},
  children: readonly DeviceTreeNode[] = [],
): DeviceTreeNode {
  return node("pcie@10000000", {
    "#address-cells": [3],
    "#size-cells": [2],
    "device_type": "pci",
    "ranges": [0x1000000, 0, 0],
    "linux,pci-domain": [0],
    ...more,
  }, children);
}

/** The values of a property by name, as cells. */
function cellsOf(of: DeviceTreeNode, name: string): readonly number[] {
  const { value } = of.properties.find((property) => property.name === name)!;
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  return Array.from({ length: value.length / 4 }, (_, i) => view.getUint32(i * 4));
}

const NAME = fc.string({
  unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)),
  maxLength: 9,
});
const PROPERTY = fc.record({ name: NAME, value: fc.uint8Array({ maxLength: 13 }) });

/** Nodes with children down to a depth. */
function nodes(depth: number): fc.Arbitrary<DeviceTreeNode> {
  return fc.record({
    name: NAME,
    properties: fc.array(PROPERTY, { maxLength: 4 }),
    children: depth === 0 ? fc.constant([]) : fc.array(nodes(depth - 1), { maxLength: 3 }),
  });
}

const U64 = fc.bigInt({ min: 1n, max: 2n ** 64n - 1n });
const TREE: fc.Arbitrary<DeviceTree> = fc.record({
  bootProcessor: fc.nat({ max: 0xffffffff }),
  reservations: fc.array(fc.record({ address: U64, size: U64 }), { maxLength: 3 }),
  root: nodes(3),
});

Deno.test("a device tree that is written and read is what it was", () => {
  fc.assert(fc.property(TREE, (tree) => {
    const bytes = writeDeviceTree(tree);
    assertEquals(readDeviceTree(bytes), tree);
    assertEquals(writeDeviceTree(readDeviceTree(bytes)), bytes);
  }));
});

/** A tree as Devicetree Specification v0.4, 5.2 to 5.5 lays it out, word by word. */
const BY_HAND = [
  ...[0xd00dfeed, 128, 72, 120, 40, 17, 16, 3, 5, 48],
  ...[0, 0x80000000, 0, 0x1000, 0, 0, 0, 0], // one reservation, and the end
  ...[1, 0], // the root
  ...[3, 5, 0, 0x61626364, 0x65000000], // property at string 0, 5 bytes
  ...[4], // nothing
  ...[1, 0x78403100, 2], // x@1
  ...[2],
  ...[9],
];
const BY_HAND_STRINGS = [0x61, 0x62, 0x2c, 0x63, 0]; // ab,c

function byHand(): Uint8Array {
  const words = BY_HAND.slice();
  words[8] = BY_HAND_STRINGS.length;
  words[9] = (BY_HAND.length - 18) * 4;
  words[3] = BY_HAND.length * 4;
  words[1] = words[3] + BY_HAND_STRINGS.length;
  return Uint8Array.from([...cells(...words), ...BY_HAND_STRINGS]);
}

Deno.test("a device tree is read as the specification lays it out (5.2 to 5.5)", () => {
  assertEquals(readDeviceTree(byHand()), {
    bootProcessor: 3,
    reservations: [{ address: 0x80000000n, size: 0x1000n }],
    root: {
      name: "",
      properties: [{ name: "ab,c", value: new TextEncoder().encode("abcde") }],
      children: [{ name: "x@1", properties: [], children: [] }],
    },
  });
});

Deno.test("bytes behind the end that the header names do not matter", () => {
  const bytes = byHand();
  const padded = new Uint8Array(4096).fill(0xa5);
  padded.set(bytes);
  assertEquals(readDeviceTree(padded), readDeviceTree(bytes));
});

Deno.test("each kind of damage is named in one line", () => {
  const words: [number, number, string][] = [
    [0, 0xd00dfeef, "begins with 0xd00dfeef"],
    [1, 4096, "says that it has 4096 bytes"],
    [1, 8, "says that it has 8 bytes"],
    [2, 74, "no multiple of 4"],
    [2, 0x7ffffffc, "does not lie in it"],
    [2, 0, "does not lie in it"],
    [3, 0xffffffff, "strings block"],
    [4, 44, "no multiple of 8"],
    [4, 0xfffffff8, "memory reservation block"],
    [5, 16, "version 16"],
    [6, 18, "compatible with 18"],
    [8, 0xffffffff, "strings block"],
    [9, 0xffffffff, "structure block"],
    [9, 12, "does not end"],
    [18, 7, "0x7 is not a token"],
    [18, 2, "no node is there to end"],
    [18, 3, "in no node"],
    [18, 9, "there is no root"],
    [21, 0xffffffff, "does not fit"],
    [22, 5, "not in the strings block"],
    [26, 3, "does not fit"],
    [28, 9, "2 nodes do not end"],
    [29, 9, "1 nodes do not end"],
    [30, 2, "no node is there to end"],
    [30, 1, "second root"],
  ];
  for (const [index, value, text] of words) {
    const bytes = byHand();
    bytes.set(cells(value), index * 4);
    const error = assertThrows(() => readDeviceTree(bytes), RangeError, text);
    assert(!error.message.includes("\n"));
  }
});

Deno.test("a device tree cut off anywhere is refused", () => {
  const whole = byHand();
  for (let length = 0; length < whole.length; length++) {
    assertThrows(() => readDeviceTree(whole.subarray(0, length)), RangeError);
  }
});

Deno.test("a damaged device tree is refused with a RangeError or read, never more than that", () => {
  const damage = fc.array(
    fc.tuple(
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      fc.nat({ max: 255 }),
    ),
    { minLength: 1, maxLength: 8 },
  );
  let refused = 0;
  fc.assert(
    fc.property(TREE, damage, (tree, changes) => {
      const bytes = writeDeviceTree(tree);
      for (const [place, value] of changes) bytes[Math.floor(place * bytes.length)] = value;
      try {
        const read = readDeviceTree(bytes);
        assertEquals(readDeviceTree(writeDeviceTree(read)), read);
      } catch (error) {
        if (!(error instanceof RangeError) || !error.message.startsWith("Cannot read")) throw error;
        refused++;
      }
    }),
    { numRuns: 2000 },
  );
  assert(refused > 500, `only ${refused} were refused`);
});

Deno.test("nodes are nested to a limit, in both directions", () => {
  function nested(depth: number): DeviceTreeNode {
    let inner = node("leaf");
    for (let i = 1; i < depth; i++) inner = node("n", {}, [inner]);
    return inner;
  }
  const deepest = treeOf(nested(DEVICE_TREE_DEPTH));
  assertEquals(readDeviceTree(writeDeviceTree(deepest)), deepest);
  assertThrows(() => writeDeviceTree(treeOf(nested(DEVICE_TREE_DEPTH + 1))), RangeError, "around");

  const children: DeviceTreeNode[] = [];
  const cycle = { ...node("cycle"), children };
  children.push(cycle);
  assertThrows(() => writeDeviceTree(treeOf(cycle)), RangeError, "around");

  const begins = new Uint8Array(800_000);
  for (let at = 3; at < begins.length; at += 8) begins[at] = 1;
  const total = 56 + begins.length;
  const header = cells(0xd00dfeed, total, 56, 56, 40, 17, 16, 0, 0, begins.length, 0, 0, 0, 0);
  const deep = Uint8Array.from([...header, ...begins]);
  assertThrows(() => readDeviceTree(deep), RangeError, "a node has 64 nodes around it");
});

Deno.test("names have up to 31 characters (2.2.1, 2.2.4.1), unit addresses as many", () => {
  const [fits, long] = ["n".repeat(31), "n".repeat(32)];
  const unit = `${fits}@${"1".repeat(31)}`;
  const tree = treeOf(node("", { [fits]: "" }, [node(fits), node(unit)]));
  assertEquals(readDeviceTree(writeDeviceTree(tree)), tree);
  for (const name of [long, `${long}@1`, `n@${"1".repeat(32)}`, "n".repeat(400_000)]) {
    assertThrows(() => writeDeviceTree(treeOf(node("", {}, [node(name)]))), RangeError, "31");
  }
  assertThrows(() => writeDeviceTree(treeOf(node("", { [long]: "" }))), RangeError, "31");
  // Grown in place: the zeros behind the names go.
  for (const [name, grown] of [[fits, long], [unit, `${unit}1`]]) {
    const bytes = writeDeviceTree(treeOf(node(name, { [fits]: "" })));
    const at = bytes.indexOf("n".charCodeAt(0));
    bytes.set(new TextEncoder().encode(grown), at);
    assertThrows(() => readDeviceTree(bytes), RangeError, "31");
  }
});

Deno.test("thousands of properties that share one endless name are refused at the first", () => {
  // Header; the root; 2000 properties of no bytes with their name at 0; the ends; 400 KB of name.
  const properties = Array.from({ length: 2000 }, () => [3, 0, 0]).flat();
  const structure = [1, 0, ...properties, 2, 9];
  const strings = new Uint8Array(400_000).fill(0x61);
  strings[strings.length - 1] = 0;
  const stringsAt = 56 + structure.length * 4;
  const header = [0xd00dfeed, stringsAt + strings.length, 56, stringsAt, 40, 17, 16, 0];
  const sizes = [strings.length, structure.length * 4];
  const head = cells(...header, ...sizes, 0, 0, 0, 0, ...structure);
  const bytes = new Uint8Array(stringsAt + strings.length);
  bytes.set(head);
  bytes.set(strings, stringsAt);
  const error = assertThrows(() => readDeviceTree(bytes), RangeError, "more than 31 characters");
  assertEquals(
    error.message,
    "Cannot read the device tree: at 12 of the structure block: " +
      "a property's name at 0 is not in the strings block, or has more than 31 characters",
  );
});

Deno.test("names that have no byte for a character are refused", () => {
  for (const name of ["a\0b", "\u0100", "💥"]) {
    assertThrows(() => writeDeviceTree(treeOf(node(name))), RangeError, "has character");
    assertThrows(() => writeDeviceTree(treeOf(node("", { [name]: "" }))), RangeError, "character");
  }
});

const ALL = { iommu: 0x10, firstEndpoint: 0, lastEndpoint: 0xffff };

Deno.test("the IOMMU becomes a child of the host bridge, and all others are behind it", () => {
  const tree = treeOf(node("", { "#address-cells": [2] }, [
    node("intc@8000000", { "phandle": [0x8005] }),
    bridge({}, [node("pci@1")]),
    node("memory@40000000"),
  ]));
  const patched = addVirtioIommu(tree, ALL);
  const host = patched.root.children[1];
  assertEquals(cellsOf(host, "iommu-map"), [0, 0x8006, 0, 16, 0x11, 0x8006, 0x11, 0xffef]);
  assertEquals(host.children.map(({ name }) => name), ["pci@1", "iommu@2,0"]);
  const iommu = host.children[1];
  assertEquals(cellsOf(iommu, "reg"), [0x1000, 0, 0, 0, 0]);
  assertEquals(cellsOf(iommu, "#iommu-cells"), [1]);
  assertEquals(cellsOf(iommu, "phandle"), [0x8006]);
  assertEquals(
    new TextDecoder().decode(iommu.properties.find(({ name }) => name === "compatible")!.value),
    "virtio,pci-iommu\0",
  );
  // What else there was is as it was.
  assertEquals(patched.root.children[0], tree.root.children[0]);
  assertEquals(patched.root.children[2], tree.root.children[2]);
  assertEquals(host.properties.slice(0, -1), tree.root.children[1].properties);
  assertEquals(readDeviceTree(writeDeviceTree(patched)), patched);
});

Deno.test("iommu-map leaves the IOMMU out wherever it lies in the range", () => {
  const tree = treeOf(node("", {}, [bridge()]));
  const cases: [number, number, number, readonly number[]][] = [
    [0x10, 0x10, 0x10, []],
    [0x10, 0x10, 0x12, [0x11, 1, 0x11, 2]],
    [0x10, 8, 0x10, [8, 1, 8, 8]],
    [0x10, 0x18, 0x1f, [0x18, 1, 0x18, 8]],
    [0x9, 0x0, 0xf, [0, 1, 0, 9, 0xa, 1, 0xa, 6]],
  ];
  for (const [iommu, firstEndpoint, lastEndpoint, map] of cases) {
    const patched = addVirtioIommu(tree, { iommu, firstEndpoint, lastEndpoint });
    assertEquals(cellsOf(patched.root.children[0], "iommu-map"), map);
  }
});

Deno.test("the bridge of the IOMMU's segment is taken, wherever it is", () => {
  const other = bridge({ "linux,pci-domain": [0] });
  const wanted = bridge({ "linux,pci-domain": [3] });
  const tree = treeOf(node("", {}, [other, node("soc", {}, [wanted])]));
  const topology = { iommu: 0x30010, firstEndpoint: 0x30000, lastEndpoint: 0x3ffff };
  const patched = addVirtioIommu(tree, topology);
  assertEquals(patched.root.children[0], other);
  assertEquals(
    cellsOf(patched.root.children[1].children[0], "iommu-map"),
    [0, 1, 0x30000, 16, 0x11, 1, 0x30011, 0xffef],
  );
});

Deno.test("phandles already used are left alone, also the highest one", () => {
  const taken = [1, 2, 0xfffffffe].map((value) => node(`n@${value}`, { "phandle": [value] }));
  const patched = addVirtioIommu(treeOf(node("", {}, [...taken, bridge()])), ALL);
  assertEquals(cellsOf(patched.root.children[3].children[0], "phandle"), [3]);
});

Deno.test("what a device tree cannot say, or has already, is refused", () => {
  const plain = treeOf(node("", {}, [bridge()]));
  const cases: [DeviceTree, Partial<typeof ALL>, string][] = [
    [treeOf(node("")), {}, "no PCI host bridge"],
    [plain, { iommu: 0x100 }, "on bus 0"],
    [plain, { lastEndpoint: 0x10000 }, "segment, 0"],
    [plain, { firstEndpoint: 9, lastEndpoint: 8 }, "a range"],
    [
      plain,
      { iommu: 0x10010, firstEndpoint: 0x10000, lastEndpoint: 0x1ffff },
      "segment 1",
    ],
    [treeOf(node("", {}, [bridge({ "iommu-map": [0] })])), {}, "already (iommu-map)"],
    [treeOf(node("", {}, [bridge({ "#address-cells": [2] })])), {}, "#address-cells 2"],
    [treeOf(node("", {}, [bridge({ "#size-cells": "xyz" })])), {}, "#size-cells 2021227008"],
    [treeOf(node("", {}, [bridge({ "#size-cells": [2, 2] })])), {}, "#size-cells missing"],
    [treeOf(node("", {}, [bridge({}, [node("net@2")])])), {}, "net@2 where"],
    [treeOf(node("", {}, [bridge({}, [node("net@2,0")])])), {}, "net@2,0 where"],
  ];
  for (const [tree, change, text] of cases) {
    assertThrows(() => addVirtioIommu(tree, { ...ALL, ...change }), RangeError, text);
  }
});

Deno.test("any device tree is patched or refused with a RangeError", () => {
  fc.assert(fc.property(TREE, (tree) => {
    const root = { ...tree.root, children: [...tree.root.children, bridge()] };
    const patched = addVirtioIommu({ ...tree, root }, ALL);
    assertEquals(patched.root.children.slice(0, -1), tree.root.children);
    assertEquals(patched.root.children.at(-1)!.children.length, 1);
  }));
});
