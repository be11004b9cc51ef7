/**
 * What a relay has to know of the type of a device: what of it needs more than queues, and what may be done with
 * requests whose back end has died.
 *
 * vhost-user has no message that says what a back end is, so the user says it (`type=`). Without that, requests are
 * submitted again, which is what VMMs do with a record of requests in flight.
 *
 * | type | in flight when the back end dies | reason |
 * | --- | --- | --- |
 * | blk, other | submitted again, in order | a sector read or written twice is the same (5.2.6) |
 * | net | buffers to receive: submitted again; packets to send: dropped | a network may lose packets; one sent late may be a second one (5.1.6) |
 * | vsock | buffers to receive: submitted again; packets to send: dropped; then TRANSPORT_RESET | a stream must not get bytes twice; the event ends all connections (5.10.6.7) |
 * | fs | answered with the error EIO | removing, renaming or appending twice is not the same, and a new server knows no open file: mount again |
 *
 * @module
 */

/** What becomes of a queue's requests in flight. */
export type Replay = "again" | "drop" | "fuse-error";

/** What a relay knows of a type. */
export interface RelayedType {
  /** Its name on the command line. */
  readonly name: string;
  /** Features 0–31 that a relay cannot pass. */
  readonly withheldLow: number;
  /** Features 32–63 likewise. */
  readonly withheldHigh: number;
  /** Queues of a back end that cannot say how many it has (no MQ). */
  readonly queues: number;
  /** Queues of the device: those that its back end does not have, the relay has. */
  readonly queuesLeast: number;
  /** The queue for TRANSPORT_RESET, where the relay has it. */
  readonly eventQueue: number;
  /** What becomes of a queue's requests in flight when the back end dies. */
  replay(queue: number): Replay;
  /**
   * Whether a queue's buffers wait for what comes from outside, such as a packet: a device that is removed does not
   * wait for them.
   */
  receives(queue: number): boolean;
}

/**
 * Features of a network card that need its control queue, which no back end has: bits 2, 17–23, 52, 53, 57 and 60.
 * A VMM has a control queue of its own for them.
 */
const NET_CONTROL_LOW = 0x00fe_0004;
const NET_CONTROL_HIGH = 1 << 20 | 1 << 21 | 1 << 25 | 1 << 28;

const PLAIN: RelayedType = {
  name: "other",
  withheldLow: 0,
  withheldHigh: 0,
  queues: 2,
  queuesLeast: 1,
  eventQueue: -1,
  replay: () => "again",
  receives: () => false,
};

/** The types that there is something to say of. */
const TYPES: readonly RelayedType[] = [
  PLAIN,
  { ...PLAIN, name: "blk", queues: 1 },
  {
    ...PLAIN,
    name: "net",
    withheldLow: NET_CONTROL_LOW,
    withheldHigh: NET_CONTROL_HIGH,
    replay: (queue) => queue % 2 === 0 ? "again" : "drop",
    receives: (queue) => queue % 2 === 0,
  },
  {
    ...PLAIN,
    name: "vsock",
    queuesLeast: 3,
    eventQueue: 2,
    replay: (queue) => queue === 1 ? "drop" : "again",
    receives: (queue) => queue !== 1,
  },
  { ...PLAIN, name: "fs", replay: () => "fuse-error" },
];

/** The names there are. */
export const RELAYED_TYPE_NAMES: readonly string[] = TYPES.map(({ name }) => name);

/** The type of a name; by default the one that nothing is known of. */
export function relayedType(name = PLAIN.name): RelayedType | undefined {
  return TYPES.find((type) => type.name === name);
}
