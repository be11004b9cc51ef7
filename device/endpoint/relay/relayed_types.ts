/**
 * What a relay has to know of a device's type: which features need more than queues, and what happens to requests whose
 * back end has disconnected.
 *
 * vhost-user has no message that tells the type of a device, so the user states it (`type=`). Without a type, requests
 * are submitted again, which is what VMMs do with a record of requests in flight.
 *
 * | type | in flight when the back end disconnects | reason |
 * | --- | --- | --- |
 * | blk, other | submitted again, in order | a sector read or written twice is the same (5.2.6) |
 * | net | buffers to receive: submitted again; packets to send: dropped | a network may lose packets; one sent late may be a second one (5.1.6) |
 * | vsock | buffers to receive: submitted again; packets to send: dropped; then TRANSPORT_RESET | a stream must not get bytes twice; the event ends all connections (5.10.6.7) |
 * | fs | answered with the error EIO | removing, renaming or appending twice is not the same, and a new server knows no open file: mount again |
 */

/** What happens to a queue's requests in flight. */
export type Replay = "again" | "drop" | "fuse-error";

/** What a relay knows of a type. */
export interface RelayedType {
  /** Its name on the command line. */
  readonly name: string;
  /** Features 0–31 that a relay cannot pass. */
  readonly withheldLow: number;
  /** Features 32–63 likewise. */
  readonly withheldHigh: number;
  /** Number of queues of a back end without MQ. */
  readonly queues: number;
  /** Least number of queues of the device: the relay serves those that the back end does not have. */
  readonly queuesLeast: number;
  /** The queue for TRANSPORT_RESET, if the relay serves it, or -1. */
  readonly eventQueue: number;
  /** What happens to a queue's requests in flight when the back end disconnects. */
  replay(queue: number): Replay;
  /**
   * Whether a queue's buffers wait for events from outside, such as packets: a device that is removed does not wait for
   * them.
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

/** All types. */
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

/** The names of all types. */
export const RELAYED_TYPE_NAMES: readonly string[] = TYPES.map(({ name }) => name);

/** The type with a name; by default, a type of which nothing is known. */
export function relayedType(name = PLAIN.name): RelayedType | undefined {
  return TYPES.find((type) => type.name === name);
}
