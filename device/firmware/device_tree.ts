/**
 * Reads a flattened device tree, the form in which a VMM hands a description of its machine to an ARM guest.
 *
 * Source: Devicetree Specification v0.4, chapter 5 (flattened devicetree format), version 17. All fields are
 * big endian. Offsets are bytes from the start; a block is `[offset, offset + size)`.
 */

/** First word of every flattened device tree (5.2). */
export const DEVICE_TREE_MAGIC = 0xd00dfeed;
/** The version that we read and write (5.2). */
export const DEVICE_TREE_VERSION = 17;
/** The oldest version whose readers understand version 17 (5.2). */
export const DEVICE_TREE_COMPATIBLE_VERSION = 16;
/** Bytes of the header (5.2). */
export const DEVICE_TREE_HEADER_SIZE = 40;
/** Nodes inside one another, the root included: far more than any machine has. */
export const DEVICE_TREE_DEPTH = 64;

/** Characters of a node's name in front of its unit address (2.2.1); behind the `@` there may be as many. */
export const NODE_NAME_LENGTH = 31;
/** Characters of a property's name (2.2.4.1). */
export const PROPERTY_NAME_LENGTH = 31;

/** Tokens of the structure block (5.4.1). */
export const DeviceTreeToken = {
  BEGIN_NODE: 1,
  END_NODE: 2,
  PROPERTY: 3,
  NOTHING: 4,
  END: 9,
} as const;

/** A property of a node. */
export interface DeviceTreeProperty {
  /** Name, of characters up to U+00FF without U+0000: one byte each. */
  readonly name: string;
  /** Value, in the form that the property's binding says. */
  readonly value: Uint8Array;
}

/** A node with all it holds. */
export interface DeviceTreeNode {
  /** Name with its unit address, such as `pcie@10000000`; empty for the root. */
  readonly name: string;
  /** Properties in their order. */
  readonly properties: readonly DeviceTreeProperty[];
  /** Child nodes in their order. */
  readonly children: readonly DeviceTreeNode[];
}

/** A range of physical memory that the guest must leave alone (5.3). */
export interface MemoryReservation {
  /** First byte. */
  readonly address: bigint;
  /** Bytes. */
  readonly size: bigint;
}

/** A whole device tree. */
export interface DeviceTree {
  /** Physical id of the processor that boots. */
  readonly bootProcessor: number;
  /** The memory reservation block. */
  readonly reservations: readonly MemoryReservation[];
  /** The root node. */
  readonly root: DeviceTreeNode;
}

/**
 * Reads a flattened device tree.
 *
 * @throws {RangeError} If the bytes are not a device tree, or are a damaged one: the message says what is wrong, and where.
 */
export function readDeviceTree(bytes: Uint8Array): DeviceTree {
  if (bytes.length < DEVICE_TREE_HEADER_SIZE) {
    throw damaged(`it has ${bytes.length} bytes, fewer than a header`);
  }
  const header = new DataView(bytes.buffer, bytes.byteOffset, DEVICE_TREE_HEADER_SIZE);
  const magic = header.getUint32(0);
  if (magic !== DEVICE_TREE_MAGIC) {
    throw damaged(`it begins with ${hex(magic)}, not ${hex(DEVICE_TREE_MAGIC)}`);
  }
  const total = header.getUint32(4);
  if (total > bytes.length || total < DEVICE_TREE_HEADER_SIZE) {
    throw damaged(`it says that it has ${total} bytes, and has ${bytes.length}`);
  }
  const version = header.getUint32(20);
  const compatible = header.getUint32(24);
  if (version < DEVICE_TREE_VERSION || compatible > DEVICE_TREE_VERSION) {
    throw damaged(`it is of version ${version}, compatible with ${compatible}, not 17`);
  }
  const whole = bytes.subarray(0, total);
  const strings = block(whole, "strings", header.getUint32(12), header.getUint32(32), 1);
  const structure = block(whole, "structure", header.getUint32(8), header.getUint32(36), 4);
  return {
    bootProcessor: header.getUint32(28),
    reservations: readReservations(whole, header.getUint32(16)),
    root: new StructureReader(structure, strings).read(),
  };
}

/** The part of the bytes that a block takes. */
function block(
  bytes: Uint8Array,
  name: string,
  offset: number,
  size: number,
  alignment: number,
): Uint8Array {
  if (offset % alignment !== 0) {
    throw damaged(`the ${name} block is at ${offset}, no multiple of ${alignment}`);
  }
  if (offset < DEVICE_TREE_HEADER_SIZE || offset + size > bytes.length) {
    throw damaged(`the ${name} block, ${size} bytes at ${offset}, does not lie in it`);
  }
  return bytes.subarray(offset, offset + size);
}

/** The memory reservation block (5.3): pairs of 64-bit words up to one of zeros. */
function readReservations(bytes: Uint8Array, offset: number): readonly MemoryReservation[] {
  const rest = block(
    bytes,
    "memory reservation",
    offset,
    Math.max(0, bytes.length - offset),
    8,
  );
  const view = new DataView(rest.buffer, rest.byteOffset, rest.length);
  const list: MemoryReservation[] = [];
  for (let at = 0; at + 16 <= rest.length; at += 16) {
    const address = view.getBigUint64(at);
    const size = view.getBigUint64(at + 8);
    if (address === 0n && size === 0n) return list;
    list.push({ address, size });
  }
  throw damaged(`the memory reservation block at ${offset} does not end`);
}

/** A node whose end has not been read. */
interface OpenNode {
  readonly name: string;
  readonly properties: DeviceTreeProperty[];
  readonly children: DeviceTreeNode[];
}

/** Reads the structure block (5.4), token by token, without recursion. */
class StructureReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #strings: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array, strings: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#strings = strings;
  }

  /** The root node, which must be the only one, with the end behind it. */
  read(): DeviceTreeNode {
    const open: OpenNode[] = [];
    let root: OpenNode | undefined;
    while (true) {
      const at = this.#at;
      const token = this.#word();
      const node = open.at(-1);
      switch (token) {
        case DeviceTreeToken.NOTHING:
          break;
        case DeviceTreeToken.BEGIN_NODE: {
          if (open.length === DEVICE_TREE_DEPTH) {
            throw this.#damaged(at, `a node has ${DEVICE_TREE_DEPTH} nodes around it`);
          }
          if (node === undefined && root !== undefined) {
            throw this.#damaged(at, "there is a second root");
          }
          const begun: OpenNode = { name: this.#name(), properties: [], children: [] };
          root ??= begun;
          node?.children.push(begun);
          open.push(begun);
          break;
        }
        case DeviceTreeToken.PROPERTY:
          if (node === undefined) throw this.#damaged(at, "a property is in no node");
          if (node.children.length > 0) {
            throw this.#damaged(at, "a property comes behind a child node");
          }
          node.properties.push(this.#property());
          break;
        case DeviceTreeToken.END_NODE:
          if (open.pop() === undefined) throw this.#damaged(at, "no node is there to end");
          break;
        case DeviceTreeToken.END:
          if (root === undefined) throw this.#damaged(at, "there is no root");
          if (open.length > 0) throw this.#damaged(at, `${open.length} nodes do not end`);
          if (this.#at !== this.#bytes.length) throw this.#damaged(at, "it goes on behind its end");
          return root;
        default:
          throw this.#damaged(at, `${hex(token)} is not a token`);
      }
    }
  }

  #word(): number {
    if (this.#at + 4 > this.#bytes.length) throw this.#damaged(this.#at, "it does not end");
    const word = this.#view.getUint32(this.#at);
    this.#at += 4;
    return word;
  }

  /** A node's name and the padding behind it. */
  #name(): string {
    const name = zeroTerminated(this.#bytes, this.#at, 2 * NODE_NAME_LENGTH + 1);
    if (name === undefined) {
      const most = `${NODE_NAME_LENGTH} characters and a unit address`;
      throw this.#damaged(this.#at, `a node's name does not end, or has more than ${most}`);
    }
    const complaint = nodeNameComplaint(name);
    if (complaint !== null) throw this.#damaged(this.#at, complaint);
    this.#at += padded(name.length + 1);
    return name;
  }

  /** The length, name and value of a property, and the padding behind them. */
  #property(): DeviceTreeProperty {
    const at = this.#at;
    const length = this.#word();
    const nameAt = this.#word();
    if (length > this.#bytes.length - this.#at) {
      throw this.#damaged(at, `a property of ${length} bytes does not fit`);
    }
    const name = zeroTerminated(this.#strings, nameAt, PROPERTY_NAME_LENGTH);
    if (name === undefined) {
      const most = `${PROPERTY_NAME_LENGTH} characters`;
      const what = `is not in the strings block, or has more than ${most}`;
      throw this.#damaged(at, `a property's name at ${nameAt} ${what}`);
    }
    const value = this.#bytes.slice(this.#at, this.#at + length);
    this.#at += padded(length);
    return { name, value };
  }

  #damaged(at: number, what: string): RangeError {
    return damaged(`at ${at} of the structure block: ${what}`);
  }
}

/** A length with the padding to the next multiple of 4. */
export function padded(length: number): number {
  return Math.ceil(length / 4) * 4;
}

/** What is wrong with the length of a node's name (2.2.1); null if nothing is. */
export function nodeNameComplaint(name: string): string | null {
  const at = name.indexOf("@");
  const length = at < 0 ? name.length : at;
  if (length <= NODE_NAME_LENGTH && name.length - length <= NODE_NAME_LENGTH + 1) return null;
  const most = `${NODE_NAME_LENGTH} characters before or behind its @`;
  return `node ${JSON.stringify(name)} has more than ${most}`;
}

/**
 * The text from an offset up to a zero byte, one character a byte; undefined if there is none within `most`
 * characters. What is longer is not looked through: thousands of properties can share one name.
 */
function zeroTerminated(bytes: Uint8Array, at: number, most: number): string | undefined {
  const found = bytes.subarray(at, at + most + 1);
  const length = found.indexOf(0);
  return length < 0 ? undefined : String.fromCharCode(...found.subarray(0, length));
}

function damaged(what: string): RangeError {
  return new RangeError(`Cannot read the device tree: ${what}`);
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
