/**
 * The packets between the holder and its workers, which both are versions of this program, perhaps not the same.
 *
 * A packet is: kind u32, number u32, count of ids u32, bytes of the first part u32, bytes of the second part u32, the
 * ids (u32 each), the first part, the second part; little endian. Descriptors come beside it. The holder does not look
 * into a part, only passes it on or keeps it.
 */

/** Kinds of packets; those of a worker first. */
export const PacketKind = {
  /** The worker can take over. First part: what it offers; a worker that offers something else is no replacement. */
  READY: 1,
  /** The next `number` bytes of the front end are to be read and sent. */
  READ: 2,
  /**
   * A message is done: of the bytes read, the first `number` are. First part: the session from now on; ids: the
   * descriptors that belong to it; second part and descriptors: what is sent to the front end.
   */
  COMMIT: 3,
  /** The session is over: the connection is to be closed. */
  END: 4,
  /** The worker has stopped after RELEASE, and does not touch the guest any more. */
  RELEASED: 5,
  /** The worker serves. */
  SERVING: 6,
  /** A file that every worker gets from now on, in the place of the one before. Number: {@linkcode HeldFile}. */
  KEEP: 7,
  /** The first packet to a worker. Number: its generation; ids: what its descriptors are ({@linkcode HeldFile}). */
  INIT: 16,
  /** Descriptors of the session that follows; ids: theirs. */
  KEPT: 17,
  /**
   * A session begins or goes on. First part: as in its last commit, empty at its beginning. Descriptor: the connection. One
   * that was held already comes before GO.
   */
  SESSION: 18,
  /** Bytes of the front end, the first part; ids and descriptors that came with them. Number: 1 if some were lost. */
  DATA: 19,
  /** The front end has closed the connection. */
  ENDED: 20,
  /** The worker is the active one from now on. */
  GO: 21,
  /** The worker is to stop between two requests and to say so. */
  RELEASE: 22,
} as const;

/** What a descriptor in INIT is. */
export const HeldFile = {
  /** Memory that this worker and the holder share ({@linkcode WorkerPage}). */
  PAGE: 1,
  /** Memory of the holder's about itself and its workers ({@linkcode ProcessRecord}). */
  RECORD: 2,
  /** The listener of the API socket. */
  API: 3,
  /** What the device has done, entry by entry. */
  JOURNAL: 4,
  /** What the device was at a place in the journal. */
  SNAPSHOT: 5,
} as const;

/** A packet. */
export interface Packet {
  /** One of {@linkcode PacketKind}. */
  readonly kind: number;
  /** What it means depends on the kind; 0 to 2^32 - 1. */
  readonly number: number;
  /** Numbers of descriptors. */
  readonly ids: readonly number[];
  /** Bytes. */
  readonly first: Uint8Array<ArrayBuffer>;
  /** More bytes. */
  readonly second: Uint8Array<ArrayBuffer>;
}

const HEADER_BYTES = 20;
/** No bytes. */
export const NOTHING: Uint8Array<ArrayBuffer> = new Uint8Array(0);

/** A packet with what is given of it, and nothing else. */
export function packet(kind: number, parts: Partial<Omit<Packet, "kind">> = {}): Packet {
  return { kind, number: 0, ids: [], first: NOTHING, second: NOTHING, ...parts };
}

/** The bytes of a packet. */
export function encode(
  { kind, number, ids, first, second }: Packet,
): Uint8Array<ArrayBuffer> {
  const idsEnd = HEADER_BYTES + ids.length * 4;
  const bytes = new Uint8Array(idsEnd + first.length + second.length);
  const data = new DataView(bytes.buffer);
  [kind, number, ids.length, first.length, second.length, ...ids].forEach((word, i) =>
    data.setUint32(i * 4, word, true)
  );
  bytes.set(first, idsEnd);
  bytes.set(second, idsEnd + first.length);
  return bytes;
}

/** A packet from its bytes, which are copied; `undefined` if they are none. */
export function decode(bytes: Uint8Array<ArrayBuffer>): Packet | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [kind, number, count, firstBytes, secondBytes] = [0, 4, 8, 12, 16].map((at) =>
    data.getUint32(at, true)
  );
  const idsEnd = HEADER_BYTES + count * 4;
  if (bytes.length !== idsEnd + firstBytes + secondBytes) return undefined;
  const ids = Array.from({ length: count }, (_, i) => data.getUint32(HEADER_BYTES + i * 4, true));
  const first = bytes.slice(idsEnd, idsEnd + firstBytes);
  return { kind, number, ids, first, second: bytes.slice(idsEnd + firstBytes) };
}
