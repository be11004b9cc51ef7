/** The buffers of the chain that a driver is putting together. */
export class DriverChain {
  /** Address of each buffer. */
  readonly addresses: Float64Array;
  /** Bytes of each buffer. */
  readonly lengths: Uint32Array;
  /** Buffers so far. */
  count = 0;
  /** How many of them, the first ones, are device-readable. */
  readableCount = 0;
  /** Bytes of the device-writable ones. */
  writableLength = 0;

  /** Makes an empty chain of at most `capacity` buffers. */
  constructor(capacity: number) {
    this.addresses = new Float64Array(capacity);
    this.lengths = new Uint32Array(capacity);
  }

  /** Empties the chain. */
  clear(): void {
    this.count = 0;
    this.readableCount = 0;
    this.writableLength = 0;
  }

  /** Adds a buffer. */
  add(address: number, length: number, writable: boolean): void {
    const count = this.count;
    if (count === this.addresses.length) {
      throw new RangeError(`Cannot add a buffer to the chain: it has ${count} already`);
    }
    if (writable) {
      this.writableLength += length;
    } else {
      if (this.readableCount !== count) {
        throw new RangeError("Cannot add a readable buffer: writable ones have been added");
      }
      this.readableCount = count + 1;
    }
    this.addresses[count] = address;
    this.lengths[count] = length;
    this.count = count + 1;
  }
}
