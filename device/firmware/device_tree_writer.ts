/**
 * Writes a flattened device tree.
 *
 * Source: Devicetree Specification v0.4, chapter 5, version 17: header, memory reservation block, structure
 * block, strings block, in this order. Each name of a property is stored once.
 */
import {
  DEVICE_TREE_COMPATIBLE_VERSION,
  DEVICE_TREE_DEPTH,
  DEVICE_TREE_HEADER_SIZE,
  DEVICE_TREE_MAGIC,
  DEVICE_TREE_VERSION,
  type DeviceTree,
  type DeviceTreeNode,
  type DeviceTreeProperty,
  DeviceTreeToken,
  nodeNameComplaint,
  padded,
  PROPERTY_NAME_LENGTH,
} from "./device_tree.ts";

/**
 * Writes a device tree as bytes.
 *
 * @throws {RangeError} If a name cannot be stored, or nodes are nested deeper than
 * {@linkcode DEVICE_TREE_DEPTH}.
 */
export function writeDeviceTree(tree: DeviceTree): Uint8Array<ArrayBuffer> {
  const strings = new StringsBlock();
  const structureSize = sizeOf(tree.root, strings, 1) + 4;
  const reservationsAt = DEVICE_TREE_HEADER_SIZE;
  const structureAt = reservationsAt + (tree.reservations.length + 1) * 16;
  const stringsAt = structureAt + structureSize;
  const bytes = new Uint8Array(stringsAt + strings.size);
  const view = new DataView(bytes.buffer);
  const header = [
    DEVICE_TREE_MAGIC,
    bytes.length,
    structureAt,
    stringsAt,
    reservationsAt,
    DEVICE_TREE_VERSION,
    DEVICE_TREE_COMPATIBLE_VERSION,
    tree.bootProcessor,
    strings.size,
    structureSize,
  ];
  header.forEach((word, index) => view.setUint32(index * 4, word));
  tree.reservations.forEach(({ address, size }, index) => {
    view.setBigUint64(reservationsAt + index * 16, address);
    view.setBigUint64(reservationsAt + index * 16 + 8, size);
  });
  const writer = new StructureWriter(bytes, structureAt, strings);
  writer.node(tree.root);
  writer.word(DeviceTreeToken.END);
  strings.write(bytes, stringsAt);
  return bytes;
}

/** Where each property's name is in the strings block (5.5). */
class StringsBlock {
  readonly #offsets = new Map<string, number>();
  size = 0;

  add(name: string): void {
    if (this.#offsets.has(name)) return;
    checkName(name);
    if (name.length > PROPERTY_NAME_LENGTH) {
      throw new RangeError(
        `Cannot write the device tree: property ${
          JSON.stringify(name)
        } has more than ${PROPERTY_NAME_LENGTH} characters`,
      );
    }
    this.#offsets.set(name, this.size);
    this.size += name.length + 1;
  }

  offset(name: string): number {
    return this.#offsets.get(name)!;
  }

  write(bytes: Uint8Array, at: number): void {
    for (const [name, offset] of this.#offsets) putText(bytes, at + offset, name);
  }
}

/** Bytes that a node takes in the structure block; its properties' names go into the strings block. */
function sizeOf(node: DeviceTreeNode, strings: StringsBlock, depth: number): number {
  if (depth > DEVICE_TREE_DEPTH) {
    throw new RangeError(
      `Cannot write the device tree: node "${node.name}" has ${DEVICE_TREE_DEPTH} nodes around it`,
    );
  }
  checkName(node.name);
  const complaint = nodeNameComplaint(node.name);
  if (complaint !== null) throw new RangeError(`Cannot write the device tree: ${complaint}`);
  let size = 4 + padded(node.name.length + 1) + 4;
  for (const { name, value } of node.properties) {
    strings.add(name);
    size += 12 + padded(value.length);
  }
  for (const child of node.children) size += sizeOf(child, strings, depth + 1);
  return size;
}

/** Writes the structure block (5.4). */
class StructureWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #strings: StringsBlock;
  #at: number;

  constructor(bytes: Uint8Array<ArrayBuffer>, at: number, strings: StringsBlock) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
    this.#at = at;
    this.#strings = strings;
  }

  word(value: number): void {
    this.#view.setUint32(this.#at, value);
    this.#at += 4;
  }

  node(node: DeviceTreeNode): void {
    this.word(DeviceTreeToken.BEGIN_NODE);
    putText(this.#bytes, this.#at, node.name);
    this.#at += padded(node.name.length + 1);
    for (const property of node.properties) this.#property(property);
    for (const child of node.children) this.node(child);
    this.word(DeviceTreeToken.END_NODE);
  }

  #property({ name, value }: DeviceTreeProperty): void {
    this.word(DeviceTreeToken.PROPERTY);
    this.word(value.length);
    this.word(this.#strings.offset(name));
    this.#bytes.set(value, this.#at);
    this.#at += padded(value.length);
  }
}

function checkName(name: string): void {
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code === 0 || code > 0xff) {
      throw new RangeError(
        `Cannot write the device tree: name ${JSON.stringify(name)} has character ${code} in it`,
      );
    }
  }
}

/** Writes a text, one byte a character; the zero behind it is there already. */
function putText(bytes: Uint8Array, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
}
