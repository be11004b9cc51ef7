/** Structures of the kernel's interfaces: iommufd and VFIO have them begin with their own size, and so does this. */

/** A structure in a buffer of its own, which is written again for each call. */
export class Structure {
  /** Its bytes, for the call. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The same, for its fields; all are little-endian. */
  readonly view: DataView<ArrayBuffer>;

  /** A structure of `size` bytes that are 0, besides its size in the first four. */
  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
    this.view.setUint32(0, size, true);
  }
}
