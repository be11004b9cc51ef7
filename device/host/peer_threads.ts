import { O_CLOEXEC, O_RDONLY, SEEK_SET, SO_PEERCRED } from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { cString, libc } from "./libc.ts";
import type { ProcessorSet } from "./processors.ts";
import { socketOption } from "./socket_option.ts";

/** `struct linux_dirent64`: length u16 at 16, name from 19 on. */
const LENGTH_AT = 16;
const NAME_AT = 19;
/** Most threads that are looked at: nothing is served meanwhile, and a guest with more has enough processors. */
const MOST_THREADS = 16;
/** Spaces in `/proc/PID/task/TID/stat` between the state, which follows the name, and the processor. */
const SPACES_TO_PROCESSOR = 36;
const SPACE = 0x20;
const PARENTHESIS = 0x29;
const ZERO = 0x30;
const RUNNING = 0x52;

/** What follows a thread's number in the path of its status. */
const STAT = cString("/stat");

const listing = new Uint8Array(8192);
const listingData = new DataView(listing.buffer);
const status = new Uint8Array(1024);

/** The threads of another process, and the processors that they run on, from `/proc`. */
export class PeerThreads {
  /** `/proc/PID/task`. */
  readonly #folder: Descriptor;

  private constructor(folder: Descriptor) {
    this.#folder = folder;
  }

  /**
   * The threads of the process that made the other end of a socket.
   *
   * @returns `undefined` if that is this one, or one that cannot be seen from here.
   */
  static of({ descriptor }: { readonly descriptor: Descriptor }): PeerThreads | undefined {
    const pid = socketOption(descriptor.number, SO_PEERCRED);
    // 0 is a process in a namespace that cannot be seen from this one.
    return pid <= 0 || pid === Deno.pid ? undefined : PeerThreads.ofProcess(pid);
  }

  /** The threads of a process, or `undefined` if there is none. */
  static ofProcess(pid: number): PeerThreads | undefined {
    const folder = libc().open(cString(`/proc/${pid}/task`), O_RDONLY | O_CLOEXEC, 0);
    return folder < 0 ? undefined : new PeerThreads(new Descriptor(folder));
  }

  /** Adds the processors on which threads run, or wait for it, to a set. None once the process has ended. */
  addProcessors(set: ProcessorSet): void {
    const folder = this.#folder.number;
    libc().lseek(folder, 0n, SEEK_SET);
    const length = libc().getdents64(folder, listing, BigInt(listing.length));
    let threads = 0;
    for (let at = 0; at < length && threads < MOST_THREADS;) {
      if (listing[at + NAME_AT] > ZERO) {
        threads++;
        const processor = this.#processorOf(at + NAME_AT);
        if (processor >= 0) set.add(processor);
      }
      at += listingData.getUint16(at + LENGTH_AT, true);
    }
  }

  /** Where the thread whose name begins in the listing there runs or wants to run; -1 if it sleeps. */
  #processorOf(name: number): number {
    let end = name;
    while (listing[end] !== 0) end++;
    const path = new Uint8Array(end - name + STAT.length);
    path.set(listing.subarray(name, end));
    path.set(STAT, end - name);
    const file = libc().openat(this.#folder.number, path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return -1;
    const length = libc().read(file, status, BigInt(status.length));
    libc().close(file);
    return processorIn(status, length);
  }

  /** Closes the descriptor of the process. */
  close(): void {
    this.#folder.close();
  }
}

/** Reads the processor out of a `stat` file; -1 if the thread does not run. */
function processorIn(stat: Uint8Array, length: number): number {
  // The name is in parentheses and may have some itself.
  let at = length - 1;
  while (at >= 0 && stat[at] !== PARENTHESIS) at--;
  at += 2;
  if (at < 2 || stat[at] !== RUNNING) return -1;
  for (let spaces = 0; spaces < SPACES_TO_PROCESSOR; at++) {
    if (at >= length) return -1;
    if (stat[at] === SPACE) spaces++;
  }
  let processor = 0;
  for (; at < length && stat[at] >= ZERO; at++) processor = processor * 10 + stat[at] - ZERO;
  return processor;
}
