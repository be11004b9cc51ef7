/**
 * Reads files out of an ext2 image without a file system driver, to verify independently what a guest wrote.
 *
 * Source: "The Second Extended Filesystem", D. Poirier. Knows what mke2fs makes of a small disk: revision 1,
 * direct, single and double indirect blocks, no extents, no 64-bit block numbers.
 *
 * @module
 */

const SUPERBLOCK = 1024;
const MAGIC = 0xef53;
const ROOT = 2;
const DIRECT = 12;
/** File types in the mode. */
const TYPE = 0xf000;
const FOLDER = 0x4000;
const PLAIN = 0x8000;

/** An image of a file system. */
export class Ext2Image {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #blockSize: number;
  readonly #inodesPerGroup: number;
  readonly #inodeSize: number;

  /** Throws if that is no ext2 file system, or one that was not unmounted. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    if (this.#u16(SUPERBLOCK + 56) !== MAGIC) {
      throw new Error("No ext2 file system is in the image");
    }
    if (this.#u16(SUPERBLOCK + 58) !== 1) throw new Error("The file system was not unmounted");
    this.#blockSize = 1024 << this.#u32(SUPERBLOCK + 24);
    this.#inodesPerGroup = this.#u32(SUPERBLOCK + 40);
    this.#inodeSize = this.#u32(SUPERBLOCK + 76) === 0 ? 128 : this.#u16(SUPERBLOCK + 88);
  }

  /** All plain files, by path from the root, with their contents. */
  files(): ReadonlyMap<string, Uint8Array> {
    const found = new Map<string, Uint8Array>();
    this.#collect(ROOT, "", found);
    return found;
  }

  #collect(inode: number, path: string, found: Map<string, Uint8Array>): void {
    const at = this.#inodeAt(inode);
    const type = this.#u16(at) & TYPE;
    const content = this.#content(at);
    if (type === PLAIN) found.set(path, content);
    if (type !== FOLDER) return;
    const view = new DataView(content.buffer);
    for (let entry = 0; entry < content.length; entry += view.getUint16(entry + 4, true)) {
      const child = view.getUint32(entry, true);
      const name = new TextDecoder().decode(
        content.subarray(entry + 8, entry + 8 + content[entry + 6]),
      );
      if (child !== 0 && name !== "." && name !== "..") {
        this.#collect(child, `${path}/${name}`, found);
      }
    }
  }

  /** Byte in the image at which an inode begins. */
  #inodeAt(inode: number): number {
    const group = Math.floor((inode - 1) / this.#inodesPerGroup);
    const descriptors = this.#blockSize === 1024 ? 2048 : this.#blockSize;
    const table = this.#u32(descriptors + group * 32 + 8) * this.#blockSize;
    return table + ((inode - 1) % this.#inodesPerGroup) * this.#inodeSize;
  }

  #content(at: number): Uint8Array<ArrayBuffer> {
    const content = new Uint8Array(this.#u32(at + 4));
    const size = this.#blockSize;
    const blocks = Array.from({ length: DIRECT }, (_, i) => this.#u32(at + 40 + 4 * i));
    const wanted = Math.ceil(content.length / size);
    this.#addIndirect(this.#u32(at + 40 + 4 * DIRECT), 1, wanted, blocks);
    this.#addIndirect(this.#u32(at + 44 + 4 * DIRECT), 2, wanted, blocks);
    if (blocks.length < wanted) {
      throw new Error("A file is larger than double indirect blocks hold");
    }
    for (let i = 0; i < wanted; i++) {
      // Block 0 stands for a hole.
      if (blocks[i] === 0) continue;
      const last = Math.min(size, content.length - i * size);
      content.set(this.#bytes.subarray(blocks[i] * size, blocks[i] * size + last), i * size);
    }
    return content;
  }

  #addIndirect(block: number, depth: number, wanted: number, blocks: number[]): void {
    const entries = this.#blockSize / 4;
    for (let i = 0; i < entries && blocks.length < wanted; i++) {
      const next = block === 0 ? 0 : this.#u32(block * this.#blockSize + 4 * i);
      if (depth === 1) blocks.push(next);
      else this.#addIndirect(next, depth - 1, wanted, blocks);
    }
  }

  #u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  #u32(at: number): number {
    return this.#view.getUint32(at, true);
  }
}
