/**
 * Puts the PCI endpoints of a machine behind a virtio-iommu, in the machine's device tree.
 *
 * Source: the Linux bindings `virtio/pci-iommu` (a child of the PCI host bridge, by its PCI address) and
 * `pci/pci-iommu` (`iommu-map` on the bridge: first requester id, IOMMU, first endpoint id, count), and
 * IEEE 1275 for PCI addresses. An endpoint's id is segment * 65536 + requester id, as everywhere here.
 */
import { endpointText } from "../address.ts";
import type { DeviceTree, DeviceTreeNode, DeviceTreeProperty } from "./device_tree.ts";
import type { Topology } from "./viot.ts";

/** Highest number that names a node: 0xffffffff is reserved. */
const LAST_PHANDLE = 0xfffffffe;
/** Requester ids of one PCI segment. */
const SEGMENT_SIZE = 65536;

/**
 * The same tree with the IOMMU in it and every endpoint of the topology behind it but the IOMMU itself.
 *
 * @throws {RangeError} If the topology does not lie in one segment, the IOMMU not on its bus 0, or if the
 * tree has no PCI host bridge for it or one that has an IOMMU already.
 */
export function addVirtioIommu(tree: DeviceTree, topology: Topology): DeviceTree {
  checkIommuTopology(topology);
  const segment = Math.floor(topology.iommu / SEGMENT_SIZE);
  const path = findHostBridge(tree.root, segment);
  const phandle = freePhandle(tree.root);
  return { ...tree, root: replaceAt(tree.root, path, (node) => patched(node, topology, phandle)) };
}

/**
 * Fails if a device tree cannot say what the topology is.
 *
 * @throws {RangeError} If the endpoints lie in another segment than the IOMMU, or the IOMMU not on bus 0.
 */
export function checkIommuTopology(topology: Topology): void {
  const { iommu, firstEndpoint, lastEndpoint } = topology;
  const segment = Math.floor(iommu / SEGMENT_SIZE);
  if (iommu % SEGMENT_SIZE > 0xff) {
    throw new RangeError(
      `Cannot describe an IOMMU at ${endpointText(iommu)}: it must be on bus 0 of its segment`,
    );
  }
  if (
    lastEndpoint < firstEndpoint || Math.floor(firstEndpoint / SEGMENT_SIZE) !== segment ||
    Math.floor(lastEndpoint / SEGMENT_SIZE) !== segment
  ) {
    throw new RangeError(
      `Cannot describe endpoints ${endpointText(firstEndpoint)} to ${
        endpointText(lastEndpoint)
      }: ` +
        `they must be a range in the IOMMU's segment, ${segment}`,
    );
  }
}

/** The host bridge with the IOMMU as a child and in its map. */
function patched(bridge: DeviceTreeNode, topology: Topology, phandle: number): DeviceTreeNode {
  const { iommu, firstEndpoint, lastEndpoint } = topology;
  const address = iommu % SEGMENT_SIZE;
  const place = `${((address >> 3) & 0x1f).toString(16)},${address & 7}`;
  const child: DeviceTreeNode = {
    name: `iommu@${place}`,
    properties: [
      { name: "compatible", value: new TextEncoder().encode("virtio,pci-iommu\0") },
      { name: "reg", value: cells(address << 8, 0, 0, 0, 0) },
      { name: "#iommu-cells", value: cells(1) },
      { name: "phandle", value: cells(phandle) },
    ],
    children: [],
  };
  // The IOMMU's own accesses are not translated, so it has no place in the map.
  const runs = iommu < firstEndpoint || iommu > lastEndpoint
    ? [[firstEndpoint, lastEndpoint]]
    : [[firstEndpoint, iommu - 1], [iommu + 1, lastEndpoint]];
  const map = runs.filter(([first, last]) => first <= last)
    .flatMap(([first, last]) => [first % SEGMENT_SIZE, phandle, first, last - first + 1]);
  checkBridge(bridge, place);
  return {
    ...bridge,
    properties: [...bridge.properties, { name: "iommu-map", value: cells(...map) }],
    children: [...bridge.children, child],
  };
}

/** Fails unless the bridge has cells as PCI host bridges do, and room for the IOMMU. */
function checkBridge(bridge: DeviceTreeNode, place: string): void {
  for (const [name, want] of [["#address-cells", 3], ["#size-cells", 2]] as const) {
    const have = cell(bridge, name);
    if (have !== want) {
      throw unfit(`${bridge.name} has ${name} ${have ?? "missing"}, a PCI host bridge has ${want}`);
    }
  }
  for (const name of ["iommu-map", "iommus"]) {
    if (property(bridge, name) !== undefined) {
      throw unfit(`${bridge.name} has an IOMMU already (${name})`);
    }
  }
  const unit = new RegExp(`@${place.replace(",0", "(,0)?")}$`);
  const occupant = bridge.children.find((child) => unit.test(child.name));
  if (occupant !== undefined) {
    throw unfit(`${bridge.name} has ${occupant.name} where the IOMMU would be`);
  }
}

/**
 * The way to the PCI host bridge of a segment: the index of a child at each step. A bridge that does not say
 * its segment (`linux,pci-domain`) has its place among the bridges.
 */
function findHostBridge(root: DeviceTreeNode, segment: number): readonly number[] {
  const found: (readonly number[])[] = [];
  let match: readonly number[] | undefined;
  visit(root, [], (node, path) => {
    if (!isHostBridge(node)) return;
    if (match === undefined && (cell(node, "linux,pci-domain") ?? found.length) === segment) {
      match = path;
    }
    found.push(path);
  });
  if (match !== undefined) return match;
  throw unfit(
    found.length === 0
      ? "it has no PCI host bridge"
      : `none of its PCI host bridges is that of segment ${segment}`,
  );
}

/** Whether a node is a PCI host bridge and not a bridge below one, whose `reg` is a PCI address. */
function isHostBridge(node: DeviceTreeNode): boolean {
  const type = property(node, "device_type");
  return type !== undefined && new TextDecoder().decode(type.value) === "pci\0" &&
    property(node, "ranges") !== undefined && /^pcie?@/.test(node.name);
}

/** A number for a new node that no node of the tree has: the next one, or else the lowest. */
function freePhandle(root: DeviceTreeNode): number {
  const taken = new Set<number>();
  visit(root, [], (node) => {
    for (const name of ["phandle", "linux,phandle"]) {
      const value = cell(node, name);
      if (value !== undefined && value <= LAST_PHANDLE) taken.add(value);
    }
  });
  let next = 1;
  for (const value of taken) next = Math.max(next, value + 1);
  if (next <= LAST_PHANDLE) return next;
  for (next = 1; taken.has(next);) next++;
  return next;
}

/** Shows every node with the way to it, a parent before its children. */
function visit(
  node: DeviceTreeNode,
  path: readonly number[],
  see: (node: DeviceTreeNode, path: readonly number[]) => void,
): void {
  see(node, path);
  node.children.forEach((child, index) => visit(child, [...path, index], see));
}

/** The tree below a node with the node at the end of a way changed. */
function replaceAt(
  node: DeviceTreeNode,
  path: readonly number[],
  change: (node: DeviceTreeNode) => DeviceTreeNode,
): DeviceTreeNode {
  if (path.length === 0) return change(node);
  const [index, ...rest] = path;
  return {
    ...node,
    children: node.children.with(index, replaceAt(node.children[index], rest, change)),
  };
}

function property(node: DeviceTreeNode, name: string): DeviceTreeProperty | undefined {
  return node.properties.find((each) => each.name === name);
}

/** The value of a property that is one 32-bit cell; undefined if it is missing or of another size. */
function cell(node: DeviceTreeNode, name: string): number | undefined {
  const value = property(node, name)?.value;
  if (value?.length !== 4) return undefined;
  return new DataView(value.buffer, value.byteOffset, 4).getUint32(0);
}

/** 32-bit cells as the value of a property. */
function cells(...values: number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.length * 4));
  values.forEach((value, index) => view.setUint32(index * 4, value));
  return new Uint8Array(view.buffer);
}

function unfit(what: string): RangeError {
  return new RangeError(`Cannot put the IOMMU into the device tree: ${what}`);
}
