/**
 * The calls of `/dev/iommu` and of VFIO devices as tests make them (Linux, `include/uapi/linux/{iommufd,vfio}.h`): numbers,
 * sizes and fields. Written apart from `device/vfio`, which it judges.
 *
 * @module
 */

/** Where a field is, in bytes, and how many bits it has. */
type Field = readonly [offset: number, bits: 32 | 64];

/** One call. The first word of each structure is its size. */
interface Call {
  readonly number: number;
  readonly bytes: number;
  readonly fields: Readonly<Record<string, Field>>;
}

/** The calls by name. */
export const CALLS = {
  // On a device's file.
  BIND: { number: 0x3b76, bytes: 16, fields: { flags: [4, 32], iommufd: [8, 32], id: [12, 32] } },
  ATTACH: { number: 0x3b77, bytes: 12, fields: { flags: [4, 32], id: [8, 32] } },
  DETACH: { number: 0x3b78, bytes: 8, fields: { flags: [4, 32] } },
  REGION_INFO: {
    number: 0x3b6c,
    bytes: 32,
    fields: { index: [8, 32], size: [16, 64], offset: [24, 64] },
  },
  // On an open /dev/iommu.
  DESTROY: { number: 0x3b80, bytes: 8, fields: { id: [4, 32] } },
  IOAS_ALLOC: { number: 0x3b81, bytes: 12, fields: { flags: [4, 32], id: [8, 32] } },
  COPY: {
    number: 0x3b83,
    bytes: 40,
    fields: {
      flags: [4, 32],
      to: [8, 32],
      from: [12, 32],
      length: [16, 64],
      iova: [24, 64],
      source: [32, 64],
    },
  },
  IOVA_RANGES: {
    number: 0x3b84,
    bytes: 32,
    fields: { ioas: [4, 32], count: [8, 32], pointer: [16, 64], alignment: [24, 64] },
  },
  MAP: {
    number: 0x3b85,
    bytes: 40,
    fields: {
      flags: [4, 32],
      ioas: [8, 32],
      address: [16, 64],
      length: [24, 64],
      iova: [32, 64],
    },
  },
  UNMAP: {
    number: 0x3b86,
    bytes: 24,
    fields: { ioas: [4, 32], iova: [8, 64], length: [16, 64] },
  },
  HWPT_ALLOC: {
    number: 0x3b89,
    bytes: 48,
    fields: { flags: [4, 32], device: [8, 32], parent: [12, 32], id: [16, 32] },
  },
  HARDWARE_INFO: {
    number: 0x3b8a,
    bytes: 40,
    fields: { flags: [4, 32], device: [8, 32], type: [24, 32], capabilities: [32, 64] },
  },
  MAP_FILE: {
    number: 0x3b8f,
    bytes: 40,
    fields: {
      flags: [4, 32],
      ioas: [8, 32],
      file: [12, 32],
      offset: [16, 64],
      length: [24, 64],
      iova: [32, 64],
    },
  },
} as const satisfies Readonly<Record<string, Call>>;

/** A call's name. */
export type CallName = keyof typeof CALLS;

/** Map flags: at the given address; the device may write; it may read. */
export const FIXED = 1;
export const WRITEABLE = 2;
export const READABLE = 4;

/** The structure of a call with some of its fields, the others 0. */
export class Structure {
  readonly number: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView<ArrayBuffer>;
  readonly #fields: Readonly<Record<string, Field>>;

  constructor(name: CallName, fields: Readonly<Record<string, number | bigint>>) {
    const call: Call = CALLS[name];
    this.number = call.number;
    this.bytes = new Uint8Array(call.bytes);
    this.#view = new DataView(this.bytes.buffer);
    this.#fields = call.fields;
    this.#view.setUint32(0, call.bytes, true);
    for (const [field, value] of Object.entries(fields)) this.#set(field, BigInt(value));
  }

  #field(name: string): Field {
    const field = this.#fields[name];
    if (field === undefined) throw new RangeError(`The call has no field ${name}`);
    return field;
  }

  #set(name: string, value: bigint): void {
    const [offset, bits] = this.#field(name);
    if (bits === 64) this.#view.setBigUint64(offset, BigInt.asUintN(64, value), true);
    else this.#view.setUint32(offset, Number(BigInt.asUintN(32, value)), true);
  }

  /** The value of a field. */
  get(name: string): bigint {
    const [offset, bits] = this.#field(name);
    if (bits === 64) return this.#view.getBigUint64(offset, true);
    return BigInt(this.#view.getUint32(offset, true));
  }
}
