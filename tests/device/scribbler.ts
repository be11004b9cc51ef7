/**
 * A process that scribbles over the memory of rings while another serves them: descriptors, indirect tables, available
 * and used rings, requests, records of requests in flight and dirty logs, as fast as it can, with a preference for what
 * nearly makes sense.
 *
 * Arguments: the path of the memory file, and a seed. It goes on until it is killed, or its parent has gone.
 *
 * @module
 */
import { cString, libc } from "../../device/host/libc.ts";
import { Descriptor, mapMemoryFile } from "../../device/host/mod.ts";
import {
  BUFFERS,
  CONTROL,
  Control,
  DEVICE_AREA,
  DRIVER_AREA,
  ENDPOINTS,
  FILE_BYTES,
  FIRST_ENDPOINT_RING,
  IOVA,
  LOG_BYTES,
  LOG_STEP,
  LOGS,
  MEMORY,
  Mode,
  queuesOf,
  RECORD_STEP,
  recordBytes,
  RECORDS,
  REQUEST_BYTES,
  REQUEST_COUNT,
  REQUESTS,
  RING_SIZE,
  RING_STEP,
  RINGS,
  SESSIONS,
  TABLE_BYTES,
  TABLE_COUNT,
  TABLES,
} from "./scribbled_layout.ts";

const O_RDWR = 2;
/** Scribbles between two looks at what the other process wants. */
const BATCH = 1000;
/** Lengths of buffers, most of them of requests of the IOMMU's and of disks. */
const LENGTHS = [4, 4, 8, 16, 20, 24, 36, 36, 40, 64, 128, 512, 4096, 0, 0x7fff_ffff, 0xffff_ffff];
/** Flags of descriptors (virtio 1.4, 2.7.5 and 2.8.1). */
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL_BIT = 7;
const USED_BIT = 15;
/** One in so many words of a ring is one that stops it: it has to go on for a while for what follows to be tried. */
const RARELY = 512;
/** Edges of memory, and addresses above which arithmetic on numbers or on 32 bits goes wrong. */
const EDGES: readonly (readonly [low: number, high: number])[] = [
  [MEMORY - 1, 0],
  [MEMORY - 8, 0],
  [MEMORY, 0],
  [0xffff_fff8, 0],
  [0, 1],
  [0, 0x10_0000],
  [0, 0x20_0000],
  [0xffff_f000, 0xffff_ffff],
];
/** The types of requests: of the IOMMU's and of disks', known and unknown. */
const TYPES = [1, 1, 2, 3, 3, 3, 4, 4, 5, 0, 8, 11, 13, 0xff];

const [path, seed] = Deno.args;
const number = libc().open(cString(path), O_RDWR, 0);
using file = new Descriptor(number);
using mapping = mapMemoryFile(file, 0, FILE_BYTES);
const data = new DataView(mapping.buffer);
const control = new Int32Array(mapping.buffer, CONTROL);
const parent = Deno.ppid;
let state = Number(seed) | 1;
let isPacked = false;
let isTranslated = false;

while (Deno.ppid === parent) {
  const mode = Atomics.load(control, Control.MODE);
  isPacked = (mode & Mode.PACKED) !== 0;
  isTranslated = (mode & Mode.TRANSLATED) !== 0;
  for (let i = 0; i < BATCH; i++) scribble();
  Atomics.add(control, Control.COUNT, 1);
}

function below(limit: number): number {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % limit;
}

function pick<T>(values: readonly T[]): T {
  return values[below(values.length)];
}

function scribble(): void {
  const ring = below(RINGS);
  const at = ring * RING_STEP;
  switch (below(24)) {
    case 0: // Anything, anywhere but in buffers.
      return data.setUint8(below(BUFFERS), below(256));
    case 1:
      return data.setUint32(4 * below(BUFFERS / 4), below(2 ** 31), true);
    case 2:
      return below(8) === 0 ? scribbleRecord() : undefined;
    case 3:
      return data.setUint8(LOGS + below(SESSIONS) * LOG_STEP + below(LOG_BYTES), below(256));
    case 4: // What the device alone has a right to write, the index of it rarely.
      if (below(RARELY) === 0) return data.setUint16(at + DEVICE_AREA + 2, below(0x1_0000), true);
      return data.setUint16(at + DEVICE_AREA + 4 + 2 * below(4 * RING_SIZE), below(40), true);
    case 5: // Notifications: flags, and the event index behind the ring.
      if (below(2) === 0) return data.setUint16(at + DRIVER_AREA, below(4), true);
      return data.setUint16(at + DRIVER_AREA + (isPacked ? 2 : 4 + 2 * RING_SIZE), below(40), true);
    case 6:
    case 7:
    case 8:
      return putDescriptor(
        TABLES + below(TABLE_COUNT) * TABLE_BYTES + 16 * below(4),
        ring,
        below(4),
        true,
      );
    case 9:
    case 10:
    case 11:
    case 12:
      return putRequest(REQUESTS + below(REQUEST_COUNT) * REQUEST_BYTES);
    case 13:
    case 14:
    case 15:
    case 16:
    case 17:
      return makeAvailable(at);
  }
  const slot = below(RING_SIZE);
  putDescriptor(at + 16 * slot, ring, slot, false);
}

/** A descriptor of a ring, or of an indirect table. Every word is written for itself: the reader sees halves. */
function putDescriptor(at: number, ring: number, slot: number, isInTable: boolean): void {
  const goesToTable = !isInTable && below(8) === 0;
  // Most chains are a request in an even slot and a place for its answer behind it.
  const isSensible = below(8) > 0;
  const isRequest = isSensible ? slot % 2 === 0 : below(2) === 0;
  let flags = isSensible ? isRequest ? NEXT : WRITE : below(4);
  let [low, high] = addressFor(isRequest);
  if (goesToTable) {
    low = TABLES + below(TABLE_COUNT) * TABLE_BYTES;
    high = 0;
    flags = INDIRECT;
  }
  if (isTranslated && ring >= FIRST_ENDPOINT_RING && below(16) > 0) low += IOVA;
  const length = goesToTable && below(16) > 0 ? 16 * (1 + below(4)) : pick(LENGTHS);
  const next = below(RARELY) === 0 ? below(0x1_0000) : (slot + 1) % (isInTable ? 4 : RING_SIZE);
  data.setUint32(at, low, true);
  data.setUint32(at + 4, high, true);
  data.setUint32(at + 8, length, true);
  if (isPacked) {
    const wrap = below(2);
    const marks = isInTable ? 0 : wrap << AVAIL_BIT | (1 - wrap) << USED_BIT;
    data.setUint16(at + 12, next, true);
    data.setUint16(at + 14, flags | marks, true);
  } else {
    data.setUint16(at + 12, flags, true);
    data.setUint16(at + 14, next, true);
  }
}

function addressFor(isRequest: boolean): readonly [low: number, high: number] {
  const what = below(32);
  if (what === 0) return pick(EDGES);
  if (what === 1) return [below(BUFFERS), 0];
  if (isRequest || what === 2) return [REQUESTS + below(REQUEST_COUNT) * REQUEST_BYTES, 0];
  return [BUFFERS + below(MEMORY - BUFFERS), 0];
}

/** A request that is often a sensible one, word by word. */
function putRequest(at: number): void {
  if (below(8) === 0) return data.setUint32(at + 4 * below(REQUEST_BYTES / 4), below(256), true);
  const page = below(MEMORY / 4096);
  const words = [
    pick(TYPES),
    below(3),
    below(2) === 0 ? pick(ENDPOINTS) : IOVA + page * 4096,
    0,
    below(4) === 0 ? 0xffff_ffff : IOVA + (page + below(4)) * 4096 + 4095,
    below(64) === 0 ? below(64) : 0,
    below(MEMORY / 4096) * 4096,
    0,
    1 + below(3),
  ];
  for (let i = 0; i < words.length; i++) data.setUint32(at + 4 * i, words[i], true);
}

/** Makes chains of a split ring available. Those of a packed one are, or not, by their own marks. */
function makeAvailable(at: number): void {
  if (isPacked) return data.setUint32(at + DRIVER_AREA, below(4) << 16 | below(RING_SIZE), true);
  const any = below(RARELY) === 0 ? below(0x1_0000) : below(RING_SIZE);
  const head = below(8) === 0 ? any : any & ~1;
  data.setUint16(at + DRIVER_AREA + 4 + 2 * below(RING_SIZE), head, true);
  // Onwards from where it is, as far as there is room by the device's own account; rarely elsewhere.
  const used = data.getUint16(at + DEVICE_AREA + 2, true);
  const index = data.getUint16(at + DRIVER_AREA + 2, true);
  const ahead = (index - used) & 0xffff;
  const isSane = ahead <= RING_SIZE && below(RARELY) > 0;
  const next = isSane ? index + below(RING_SIZE - ahead + 1) : used + below(2 * RING_SIZE);
  data.setUint16(at + DRIVER_AREA + 2, next & 0xffff, true);
}

function scribbleRecord(): void {
  // As long as the shorter kind: what is behind it shows whether the device keeps within it.
  const session = below(SESSIONS);
  const bytes = recordBytes(false) * queuesOf(session);
  const at = RECORDS + session * RECORD_STEP;
  if (below(2) === 0) data.setUint8(at + below(bytes), below(256));
  else data.setUint16(at + 2 * below(bytes / 2), below(RING_SIZE + 1), true);
}
