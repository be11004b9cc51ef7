/**
 * What the front ends of five VMMs send, as data: the messages of each, in their order, with their flags.
 *
 * QEMU 11.1 and rust-vmm's `vhost` 0.17 were run; cloud-hypervisor, crosvm and OpenVMM were read (all of 2026). Numbers of
 * messages are those of vhost-user.rst.
 *
 * @module
 */
import { ProtocolFeature, Request, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { joined, longs, words } from "../../bytes.ts";
import { type Message, RING_SIZE, type Vmm, type VmmRegion } from "./vmm.ts";

const { MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD } = ProtocolFeature;
const { RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS, DEVICE_STATE } = ProtocolFeature;
const { LOG_ALL, EVENT_IDX, VERSION_1, ACCESS_PLATFORM, RING_PACKED } = TransportFeature;
const { PROTOCOL_FEATURES } = TransportFeature;

const KIB = 1024;
/** Feature bits of a device's own type, and those that every front end here takes. */
const COMMON_LOW = 0xff_ffff | EVENT_IDX | PROTOCOL_FEATURES;
const COMMON_HIGH = VERSION_1 | ACCESS_PLATFORM;

/** How one VMM talks to a back end. */
export interface VmmHabits {
  readonly name: string;
  /** Features that it accepts, 0–31 and 32–63. */
  readonly accepts: readonly [low: number, high: number];
  /** Protocol features that it knows. */
  readonly wants: number;
  /** What its user addresses are above the guest's. */
  readonly userOffset: bigint;
  /** Guest memory at first: first byte, bytes. */
  readonly regions: readonly (readonly [number, number])[];
  /** Whether messages with replies of their own have NEED_REPLY, too. */
  readonly asksAlways: boolean;
  /** Through what it takes a device's state; nothing if it never does. */
  readonly transfersBy?: "socket" | "pipe";
  /** Whether memory is handed over once in a connection and never changes. */
  readonly handsOverOnce?: boolean;
  /** A new connection. */
  connect(vmm: Vmm): Message[];
  /** A new connection that is to go on where another ended, if that is not the same. */
  reconnect?(vmm: Vmm): Message[];
  /** The guest reads the configuration. */
  read(offset: number, bytes: Uint8Array): Message;
  /** The guest writes to it. */
  write(offset: number, bytes: Uint8Array): Message;
  /** The rings start, each at its base. */
  activate(vmm: Vmm): Message[];
  /** They stop, and say their bases. */
  stop(vmm: Vmm): Message[];
  /** The driver resets the device, which has been running; if that is more than {@linkcode stop}. */
  reset?(vmm: Vmm): Message[];
  /** The machine pauses with its rings where they are, and goes on. */
  readonly pause?: (vmm: Vmm) => [pause: Message[], resume: Message[]];
  /** Memory comes while the guest runs. */
  readonly plug?: (vmm: Vmm, region: VmmRegion) => Message[];
  /** Memory goes. */
  readonly unplug?: (vmm: Vmm, region: VmmRegion) => Message[];
  /** Writes are logged from now on; only another log where they are already. */
  readonly beginLog?: (vmm: Vmm) => Message[];
  readonly nextLog?: (vmm: Vmm) => Message[];
  /** No more. */
  readonly endLog?: (vmm: Vmm) => Message[];
}

/** The config message of an access: header and the guest's buffer. */
function access(
  request: number,
  offset: number,
  bytes: Uint8Array,
  flags: number,
  needsReply: boolean,
): Message {
  const payload = joined(words(offset, bytes.length, flags), bytes);
  if (request === Request.SET_CONFIG) return { request, payload, needsReply };
  const room = joined(words(offset, bytes.length, flags), new Uint8Array(bytes.length));
  return { request, payload: room, needsReply, answer: payload };
}

/** One of the messages that set something; asks for the general reply or not. */
function set(
  needsReply: boolean,
  request: number,
  payload: Uint8Array,
  files: Message["files"] = [],
) {
  return { request, payload, files, needsReply };
}

/** The same message for each ring. */
function each(vmm: Vmm, message: (index: number) => Message): Message[] {
  return vmm.rings.map((_, index) => message(index));
}

function eventOf(vmm: Vmm, request: number, index: number): Message {
  const { kickEvent, callEvent, errorEvent } = vmm.rings[index];
  const event = request === Request.SET_VRING_KICK
    ? kickEvent
    : request === Request.SET_VRING_CALL
    ? callEvent
    : errorEvent;
  return { request, payload: longs(index), files: [event.descriptor] };
}

/** GET_VRING_BASE; the device has served everything, so the answer is known. */
function getBase(vmm: Vmm, index: number, needsReply = false): Message {
  vmm.bases[index] = vmm.expectedBase(index);
  const answer = words(index, vmm.bases[index]);
  return { request: Request.GET_VRING_BASE, payload: words(index, 0), needsReply, answer };
}

const getFeatures = (vmm: Vmm): Message => ({
  request: Request.GET_FEATURES,
  answer: words(...vmm.facts.features),
});
const getProtocol = (vmm: Vmm): Message => ({
  request: Request.GET_PROTOCOL_FEATURES,
  answer: longs(vmm.facts.protocol),
});
const getQueues = (vmm: Vmm): Message => ({
  request: Request.GET_QUEUE_NUM,
  answer: longs(vmm.facts.queues),
});
const setProtocol = (vmm: Vmm): Message => ({
  request: Request.SET_PROTOCOL_FEATURES,
  payload: longs(vmm.protocol),
});
const setOwner: Message = { request: Request.SET_OWNER };

function setFeatures(vmm: Vmm, extraLow = 0): Message {
  const [low, high] = vmm.features;
  vmm.agreed = [(low | extraLow) >>> 0, high];
  return { request: Request.SET_FEATURES, payload: words(...vmm.agreed) };
}

function setTable(vmm: Vmm): Message {
  vmm.hasTable = true;
  const files = vmm.regions.map(({ file }) => file);
  return { request: Request.SET_MEM_TABLE, payload: vmm.table(), files };
}

/** All of some messages with NEED_REPLY. */
function asking(messages: readonly Message[]): Message[] {
  return messages.map((message) => ({ ...message, needsReply: true }));
}

const setNum = (index: number) => set(false, Request.SET_VRING_NUM, words(index, RING_SIZE));
const setBase = (vmm: Vmm, index: number) =>
  set(false, Request.SET_VRING_BASE, words(index, vmm.bases[index]));
const setAddr = (vmm: Vmm, index: number, flags = 0) =>
  set(false, Request.SET_VRING_ADDR, vmm.place(index, flags));
const enable = (index: number, on: number) =>
  set(false, Request.SET_VRING_ENABLE, words(index, on));
const setLog = (vmm: Vmm): Message => {
  const payload = longs(vmm.newLog().size, 0);
  return { request: Request.SET_LOG_BASE, payload, files: [vmm.log!.file], answer: payload };
};
const region = (request: number, vmm: Vmm, region: VmmRegion): Message => ({
  request,
  payload: joined(longs(0), vmm.describe(region)),
  files: [region.file],
});

/** cloud-hypervisor's generic vhost-user device. */
const cloudHypervisor: VmmHabits = {
  name: "cloud-hypervisor",
  accepts: [COMMON_LOW, COMMON_HIGH],
  wants: MQ | LOG_SHMFD | REPLY_ACK | BACKEND_REQ | CONFIG | INFLIGHT_SHMFD | CONFIGURE_MEM_SLOTS |
    DEVICE_STATE,
  userOffset: 0x7f12_3400_0000n,
  // RAM below and above the hole, and eight slots for hotplug.
  regions: Array.from({ length: 10 }, (_, i) => [i * 1024 * KIB, i === 0 ? 1024 * KIB : 64 * KIB]),
  asksAlways: true,
  transfersBy: "socket",
  connect: (vmm) => [
    setOwner,
    getFeatures(vmm),
    getProtocol(vmm),
    setProtocol(vmm),
    ...asking([getQueues(vmm)]),
  ],
  reconnect: (vmm) => [setOwner, getFeatures(vmm), setProtocol(vmm)],
  read: (offset, bytes) => access(Request.GET_CONFIG, offset, bytes, 0, true),
  write: (offset, bytes) => access(Request.SET_CONFIG, offset, bytes, 1, true),
  activate: (vmm) => {
    const [ask, answer] = vmm.inflight();
    const isRecorded = (vmm.protocol & INFLIGHT_SHMFD) !== 0;
    return [
      ...asking([setFeatures(vmm), setTable(vmm), ...each(vmm, setNum)]),
      ...(isRecorded
        ? asking([
          { request: Request.GET_INFLIGHT_FD, payload: ask, answer },
          // The record is what the answer brought.
          { request: Request.SET_INFLIGHT_FD, payload: answer, files: () => [vmm.record!] },
        ])
        : []),
      ...vmm.rings.flatMap((_, i) =>
        asking([
          setAddr(vmm, i),
          setBase(vmm, i),
          eventOf(vmm, Request.SET_VRING_CALL, i),
          eventOf(vmm, Request.SET_VRING_KICK, i),
        ])
      ),
      ...asking(each(vmm, (i) => enable(i, 1))),
      set(true, Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [vmm.newChannel()]),
    ];
  },
  stop: (vmm) => [
    ...asking(each(vmm, (i) => enable(i, 0))),
    ...each(vmm, (i) => getBase(vmm, i, true)),
  ],
  pause: (vmm) => [
    asking(each(vmm, (i) => enable(i, 0))),
    asking(each(vmm, (i) => enable(i, 1))),
  ],
  plug: (vmm, added) => asking([region(Request.ADD_MEM_REG, vmm, added)]),
  beginLog: (vmm) =>
    asking([setLog(vmm), setFeatures(vmm, LOG_ALL), ...each(vmm, (i) => setAddr(vmm, i, 1))]),
  nextLog: (vmm) => asking([setLog(vmm)]),
  endLog: (vmm) => asking([...each(vmm, (i) => setAddr(vmm, i)), setFeatures(vmm)]),
};

const crosvm: VmmHabits = {
  name: "crosvm",
  accepts: [COMMON_LOW, COMMON_HIGH],
  wants: MQ | REPLY_ACK | BACKEND_REQ | CONFIG | DEVICE_STATE,
  userOffset: 0x7a00_0000_0000n,
  regions: [[0, 1024 * KIB], [4 * 1024 * KIB, 256 * KIB]],
  asksAlways: false,
  transfersBy: "pipe",
  connect: (vmm) => [
    setOwner,
    getFeatures(vmm),
    getProtocol(vmm),
    setProtocol(vmm),
    set(false, Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [vmm.newChannel()]),
    getQueues(vmm),
  ],
  read: (offset, bytes) => access(Request.GET_CONFIG, offset, bytes, 1, false),
  write: (offset, bytes) => access(Request.SET_CONFIG, offset, bytes, 0, false),
  activate: (vmm) => [
    // Only where they change.
    ...(vmm.agreed === undefined ? [setFeatures(vmm)] : []),
    setTable(vmm),
    ...vmm.rings.flatMap((_, i) => [
      setNum(i),
      setAddr(vmm, i),
      setBase(vmm, i),
      eventOf(vmm, Request.SET_VRING_CALL, i),
      eventOf(vmm, Request.SET_VRING_KICK, i),
      enable(i, 1),
    ]),
  ],
  stop: (vmm) => vmm.rings.flatMap((_, i) => [enable(i, 0), getBase(vmm, i)]),
};

const openVmm: VmmHabits = {
  name: "OpenVMM",
  accepts: [COMMON_LOW, COMMON_HIGH | RING_PACKED],
  wants: MQ | REPLY_ACK | CONFIG | RESET_DEVICE,
  userOffset: 2n ** 52n,
  regions: [[0, 1024 * KIB]],
  asksAlways: false,
  handsOverOnce: true,
  connect: (vmm) => [
    getFeatures(vmm),
    getProtocol(vmm),
    setProtocol(vmm),
    ...asking([setOwner]),
    getQueues(vmm),
  ],
  read: (offset, bytes) => access(Request.GET_CONFIG, offset, bytes, 0, false),
  write: (offset, bytes) => access(Request.SET_CONFIG, offset, bytes, 0, true),
  activate: (vmm) => [
    // Once for a connection.
    ...asking([...(vmm.hasTable ? [] : [setTable(vmm)]), setFeatures(vmm)]),
    ...vmm.rings.flatMap((_, i) =>
      asking([
        setNum(i),
        setAddr(vmm, i),
        setBase(vmm, i),
        eventOf(vmm, Request.SET_VRING_KICK, i),
        eventOf(vmm, Request.SET_VRING_CALL, i),
        enable(i, 1),
      ])
    ),
  ],
  stop: (vmm) => vmm.rings.flatMap((_, i) => [...asking([enable(i, 0)]), getBase(vmm, i)]),
  reset: (vmm) => [...openVmm.stop(vmm), set(true, Request.RESET_DEVICE, new Uint8Array(0))],
};

/** What uses rust-vmm's `vhost` crate as it is. */
const rustVmm: VmmHabits = {
  name: "rust-vmm vhost 0.17",
  accepts: [COMMON_LOW, COMMON_HIGH],
  wants: MQ | LOG_SHMFD | REPLY_ACK | CONFIG | CONFIGURE_MEM_SLOTS | RESET_DEVICE,
  userOffset: 2n ** 63n + 0x7f00_0000_0000n,
  regions: Array.from({ length: 32 }, (_, i) => [i * 1024 * KIB, i === 0 ? 1024 * KIB : 64 * KIB]),
  asksAlways: true,
  connect: (vmm) => [
    setOwner,
    getFeatures(vmm),
    getProtocol(vmm),
    // The flag is on already, and the acknowledgement of the very message that agrees on it is awaited.
    ...asking([setProtocol(vmm), getQueues(vmm)]),
  ],
  read: (offset, bytes) => access(Request.GET_CONFIG, offset, bytes, 1, true),
  write: (offset, bytes) => access(Request.SET_CONFIG, offset, bytes, 2, true),
  activate: (vmm) =>
    asking([
      setFeatures(vmm),
      setTable(vmm),
      ...vmm.rings.flatMap((_, i) => [
        setNum(i),
        setAddr(vmm, i),
        setBase(vmm, i),
        eventOf(vmm, Request.SET_VRING_CALL, i),
        eventOf(vmm, Request.SET_VRING_KICK, i),
        eventOf(vmm, Request.SET_VRING_ERR, i),
        enable(i, 1),
      ]),
    ]),
  stop: (vmm) => each(vmm, (i) => getBase(vmm, i, true)),
  plug: (vmm, added) => asking([region(Request.ADD_MEM_REG, vmm, added)]),
  unplug: (vmm, removed) => asking([region(Request.REM_MEM_REG, vmm, removed)]),
  beginLog: (vmm) =>
    asking([setLog(vmm), setFeatures(vmm, LOG_ALL), ...each(vmm, (i) => setAddr(vmm, i, 1))]),
  nextLog: (vmm) => asking([setLog(vmm)]),
  endLog: (vmm) => asking([...each(vmm, (i) => setAddr(vmm, i)), setFeatures(vmm)]),
};

/** QEMU's generic vhost-user device. */
const qemu: VmmHabits = {
  name: "QEMU 11.1",
  accepts: [COMMON_LOW, COMMON_HIGH],
  wants: MQ | LOG_SHMFD | REPLY_ACK | BACKEND_REQ | CONFIG | INFLIGHT_SHMFD | RESET_DEVICE |
    CONFIGURE_MEM_SLOTS | STATUS | DEVICE_STATE,
  userOffset: 0x7f00_0000_0000n,
  regions: [[0, 1024 * KIB], [2 ** 32, 1024 * KIB]],
  asksAlways: false,
  connect: (vmm) => [
    getFeatures(vmm),
    getProtocol(vmm),
    setProtocol(vmm),
    getQueues(vmm),
    { request: Request.GET_MAX_MEM_SLOTS, answer: longs(512) },
    set(true, Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [vmm.newChannel()]),
    setOwner,
    getFeatures(vmm),
    ...each(vmm, (i) => eventOf(vmm, Request.SET_VRING_CALL, i)),
    ...each(vmm, (i) => eventOf(vmm, Request.SET_VRING_ERR, i)),
  ],
  read: (offset, bytes) => access(Request.GET_CONFIG, offset, bytes, 0, false),
  write: (offset, bytes) => access(Request.SET_CONFIG, offset, bytes, 0, true),
  activate: (vmm) => [
    setFeatures(vmm),
    { request: Request.SET_STATUS, payload: words(0xf, 0) },
    { request: Request.GET_STATUS, answer: longs(0xf) },
    ...(vmm.hasTable ? [] : vmm.regions.map((each) => {
      vmm.hasTable = true;
      return { ...region(Request.ADD_MEM_REG, vmm, each), needsReply: true };
    })),
    ...vmm.rings.flatMap((_, i) => [
      setNum(i),
      setBase(vmm, i),
      setAddr(vmm, i),
      eventOf(vmm, Request.SET_VRING_KICK, i),
      eventOf(vmm, Request.SET_VRING_CALL, i),
    ]),
    ...asking(each(vmm, (i) => enable(i, 1))),
    ...each(vmm, (i) => eventOf(vmm, Request.SET_VRING_CALL, i)),
  ],
  stop: (vmm) => [
    ...asking(each(vmm, (i) => enable(i, 0))),
    ...each(vmm, (i) => getBase(vmm, i)),
    { request: Request.SET_STATUS, payload: words(0, 0) },
  ],
  plug: (vmm, added) => asking([region(Request.ADD_MEM_REG, vmm, added)]),
  unplug: (vmm, removed) => asking([{ ...region(Request.REM_MEM_REG, vmm, removed), files: [] }]),
};

/** All of them. */
export const VMMS: readonly VmmHabits[] = [cloudHypervisor, crosvm, openVmm, rustVmm, qemu];
