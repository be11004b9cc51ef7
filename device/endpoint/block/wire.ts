/**
 * The constants of virtio-blk.
 *
 * Source: virtio 1.4, section 5.2. All fields are little endian.
 */

/** Virtio device id. */
export const BLOCK_ID = 2;

/** Bytes of a sector, whatever the block size (5.2.4). */
export const SECTOR = 512;

/** Feature bits (5.2.3). */
export const F_SEG_MAX: number = 1 << 2;
/** The device is read-only. */
export const F_RO: number = 1 << 5;
/** The config space has a block size. */
export const F_BLK_SIZE: number = 1 << 6;
/** There is a flush command. */
export const F_FLUSH: number = 1 << 9;
/** There are several queues. */
export const F_MQ: number = 1 << 12;
/** There is a discard command. */
export const F_DISCARD: number = 1 << 13;
/** There is a write-zeroes command. */
export const F_WRITE_ZEROES: number = 1 << 14;

/** Read sectors (5.2.6). */
export const T_IN = 0;
/** Write sectors. */
export const T_OUT = 1;
/** Flush the write cache. */
export const T_FLUSH = 4;
/** Read the device's id. */
export const T_GET_ID = 8;
/** Discard sectors. */
export const T_DISCARD = 11;
/** Write zeros to sectors. */
export const T_WRITE_ZEROES = 13;

/** Done. */
export const S_OK = 0;
/** Failed. */
export const S_IOERR = 1;
/** Not supported. */
export const S_UNSUPP = 2;

/** Bytes of a request's header: type u32, reserved u32, sector u64. */
export const HEADER_SIZE = 16;
/** Bytes of the device's id, padded with zeros. */
export const ID_SIZE = 20;
/** Bytes of a range to discard or zero: sector u64, sectors u32, flags u32. */
export const RANGE_SIZE = 16;
/** Flag of a range to zero: its blocks may be deallocated. */
export const RANGE_UNMAP = 1;

/** Ranges in one discard or write-zeroes request. */
export const RANGES_MAX = 16;
/** Sectors in one such range: 1 GiB. */
export const RANGE_SECTORS_MAX: number = 2 ** 21;
/** Data segments in a request: what fits into a queue of 128 with header and status. */
export const SEGMENTS_MAX = 126;

/** Bytes of the config space that we fill: up to and including `write_zeroes_may_unmap`, padded (5.2.4). */
export const BLOCK_CONFIG_SIZE = 60;
