/**
 * Descriptors of all kinds that a process can have, for peers that send any of them anywhere.
 *
 * @module
 */
import { cString, libc as hostLibc } from "../../../device/host/libc.ts";
import { createPipe, Descriptor, UnixStream } from "../../../device/host/mod.ts";
import { temporaryPath } from "../host/host_state.ts";

const c = Deno.dlopen("libc.so.6", {
  epoll_create1: { parameters: ["i32"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  inotify_init1: { parameters: ["i32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  mkfifo: { parameters: ["buffer", "u32"], result: "i32" },
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  signalfd: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  syscall: { parameters: ["i64", "u64", "buffer"], result: "i32" },
  timerfd_create: { parameters: ["i32", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
}).symbols;

const O_RDONLY = 0;
const O_RDWR = 2;
const O_NONBLOCK = 0x800;
const O_PATH = 0x200000;
const EFD_SEMAPHORE = 1;
const F_ADD_SEALS = 1033;
const F_SEAL_WRITE = 8;
const MFD_ALLOW_SEALING = 2;
const MFD_HUGETLB = 4;
/** The same on all architectures. */
const IO_URING_SETUP = 425n;
const MEMFD_SECRET = 447n;
const MIB = 1 << 20;

/** One of each kind that this host has. What is opened on the way may be closed a little later. */
export class DescriptorKinds {
  /** The descriptors, with their names. */
  readonly all: readonly (readonly [string, Descriptor])[];
  readonly #fifo = temporaryPath("fifo");
  readonly #pair = UnixStream.pair();

  /** Opens them all. */
  constructor() {
    const numbers: [string, number][] = [
      ["an empty memfd", memory(0, 0)],
      ["a memfd of 2^63 - 1 bytes", memory(0, 2n ** 63n - 1n)],
      ["a memfd that can shrink", memory(0, MIB)],
      ["a memfd sealed against writes", sealed()],
      ["a memfd of huge pages", memory(MFD_HUGETLB, 2 * MIB)],
      ["secret memory", c.syscall(MEMFD_SECRET, 0n, null)],
      ["a blocking eventfd", c.eventfd(0, 0)],
      ["a full eventfd", fullEvent(0)],
      ["a full semaphore", fullEvent(EFD_SEMAPHORE)],
      ["a stream socket without a peer", c.socket(1, 1, 0)],
      ["a datagram socket", c.socket(1, 2, 0)],
      ["a seqpacket socket", c.socket(1, 5, 0)],
      ["a TCP socket", c.socket(2, 1, 0)],
      ["a UDP socket", c.socket(2, 2, 0)],
      ["a netlink socket", c.socket(16, 3, 0)],
      ["a listening socket", listening()],
      ["an epoll", c.epoll_create1(0)],
      ["a timer", c.timerfd_create(1, 0)],
      ["a signalfd", c.signalfd(-1, new Uint8Array(128), 0)],
      ["an inotify", c.inotify_init1(0)],
      ["an io_uring", c.syscall(IO_URING_SETUP, 2n, new Uint8Array(120))],
      ["the process's memory", open("/proc/self/mem", O_RDWR)],
      ["/dev/null", open("/dev/null", O_RDWR)],
      ["/dev/zero", open("/dev/zero", O_RDWR)],
      ["a folder", open("/", O_RDONLY)],
      ["a path", open("/dev/null", O_PATH)],
      ["a file of /proc", open("/proc/self/stat", O_RDONLY)],
      ["a FIFO", fifo(this.#fifo)],
    ];
    this.all = [
      ...numbers.filter(([, number]) => number >= 0 && isSent(number)).map(([name, number]) =>
        [name, new Descriptor(number)] as const
      ),
      ["one end of a pair", this.#pair[0].descriptor],
      ...createPipe().map((each, i) =>
        [i === 0 ? "a pipe's reader" : "a pipe's writer", each] as const
      ),
    ];
  }

  /** Closes them all. */
  close(): void {
    for (const [, each] of this.all) each.close();
    this.#pair[1].close();
    Deno.removeSync(this.#fifo);
  }
}

/** Whether the kernel passes a descriptor on; one that it does not is closed. */
function isSent(number: number): boolean {
  const [one, other] = UnixStream.pair();
  try {
    one.send(new Uint8Array(1), 0, 1, [number]);
    return true;
  } catch {
    new Descriptor(number).close();
    return false;
  } finally {
    one.close();
    other.close();
  }
}

function open(path: string, flags: number): number {
  return c.open(cString(path), flags, 0);
}

function memory(flags: number, size: number | bigint): number {
  const number = c.memfd_create(cString("kind"), flags);
  if (number >= 0) c.ftruncate(number, BigInt(size));
  return number;
}

function sealed(): number {
  const number = memory(MFD_ALLOW_SEALING, MIB);
  c.fcntl(number, F_ADD_SEALS, F_SEAL_WRITE);
  return number;
}

function fullEvent(flags: number): number {
  const number = c.eventfd(0, flags);
  c.write(number, new BigUint64Array([2n ** 64n - 2n]), 8n);
  return number;
}

function listening(): number {
  const number = c.socket(1, 1, 0);
  hostLibc().bind(number, new Uint8Array([1, 0]), 2);
  c.listen(number, 1);
  return number;
}

function fifo(path: string): number {
  c.mkfifo(cString(path), 0o600);
  return open(path, O_RDWR | O_NONBLOCK);
}
