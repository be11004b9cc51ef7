/**
 * Starts this program once more as a child process that inherits chosen descriptors (`posix_spawn(3)`), which the
 * runtime's own way to start a process does not offer. It needs no permission but `--allow-ffi`, and so the child gets no
 * more than its parent has.
 */
import {
  ECHILD,
  EINTR,
  O_CLOEXEC,
  O_RDONLY,
  POSIX_SPAWN_SETPGROUP,
  PR_SET_PDEATHSIG,
  SIGKILL,
  WNOHANG,
} from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { addressOf, cString, errno, libc } from "./libc.ts";
import { OsError } from "./os_error.ts";

/** Bytes of `posix_spawn_file_actions_t` (80 in glibc) and of `posix_spawnattr_t` (336), with room. */
const ACTIONS_BYTES = 256;
const ATTRIBUTES_BYTES = 1024;
/** Bytes that are read of a file in `/proc` at once. */
const PIECE = 4096;

/** How a process has ended. */
export interface ProcessEnd {
  /** The exit code, if it has exited. */
  readonly code?: number;
  /** The number of the signal that has ended it. */
  readonly signal?: number;
}

/** A child process. */
export class ChildProcess {
  /** Its number. */
  readonly pid: number;
  #end: ProcessEnd | undefined;

  private constructor(pid: number) {
    this.pid = pid;
  }

  /**
   * Starts a process in a process group of its own: a Ctrl-C is for the parent alone. Its environment is that which this
   * process was started with. Throws an OsError if the host refuses.
   *
   * @param path The program.
   * @param command Its arguments, the program's name first.
   * @param descriptors Descriptors of this process, each with the number that it has in the child.
   */
  static start(
    path: string,
    command: readonly string[],
    descriptors: ReadonlyMap<number, number>,
  ): ChildProcess {
    const actions = new Uint8Array(ACTIONS_BYTES);
    const attributes = new Uint8Array(ATTRIBUTES_BYTES);
    const problem = "Cannot start a process";
    check(problem, "posix_spawn_file_actions_init", libc().spawnActionsInit(actions));
    check(problem, "posix_spawnattr_init", libc().spawnAttributesInit(attributes));
    try {
      check(
        problem,
        "posix_spawnattr_setflags",
        libc().spawnSetFlags(attributes, POSIX_SPAWN_SETPGROUP),
      );
      for (const [number, inChild] of descriptors) {
        check(
          problem,
          "posix_spawn_file_actions_adddup2",
          libc().spawnAddDuplicate(actions, number, inChild),
        );
      }
      const args = pointers(command.map(cString));
      const environment = pointers(zeroTerminated("environ").map(cString));
      const pid = new Int32Array(1);
      check(
        `${problem} of ${path}`,
        "posix_spawn",
        libc().spawn(pid, cString(path), actions, attributes, args.array, environment.array),
      );
      return new ChildProcess(pid[0]);
    } finally {
      libc().spawnActionsDestroy(actions);
      libc().spawnAttributesDestroy(attributes);
    }
  }

  /** Sends a signal, unless it is known to have ended. */
  kill(signal: number = SIGKILL): void {
    if (this.#end === undefined) libc().kill(this.pid, signal);
  }

  /** How it has ended; nothing while it has not. Asks for it, so that the host can forget it. */
  get end(): ProcessEnd | undefined {
    if (this.#end !== undefined) return this.#end;
    const status = new Int32Array(1);
    const found = libc().waitpid(this.pid, status, WNOHANG);
    if (found === this.pid) {
      const signal = status[0] & 0x7f;
      this.#end = signal === 0 ? { code: (status[0] >> 8) & 0xff } : { signal };
    } else if (found < 0 && errno() === ECHILD) {
      this.#end = {};
    }
    return this.#end;
  }
}

/** The command that this process was started with, the program's name first. Throws an OsError if `/proc` does not say. */
export function ownCommand(): string[] {
  return zeroTerminated("cmdline");
}

/** Asks the host to kill this process as soon as the thread that has started it ends. */
export function dieWithParent(): void {
  libc().prctl(PR_SET_PDEATHSIG, BigInt(SIGKILL), 0n, 0n, 0n);
}

/** The texts of a file of this process in `/proc`, each of which ends with a zero. */
function zeroTerminated(name: string): string[] {
  const number = libc().open(cString(`/proc/self/${name}`), O_RDONLY | O_CLOEXEC, 0);
  if (number < 0) throw new OsError(`Cannot read /proc/self/${name}`, "open");
  using file = new Descriptor(number);
  const pieces: number[] = [];
  const piece = new Uint8Array(PIECE);
  for (;;) {
    const count = libc().read(file.number, piece, BigInt(piece.length));
    if (count < 0 && errno() === EINTR) continue;
    if (count < 0) throw new OsError(`Cannot read /proc/self/${name}`, "read");
    if (count === 0) break;
    for (let i = 0; i < count; i++) pieces.push(piece[i]);
  }
  const text = new TextDecoder().decode(Uint8Array.from(pieces));
  return text === "" ? [] : text.replace(/\0$/, "").split("\0");
}

/** An array of pointers as C has it, ended by a null; the texts must live as long. */
function pointers(
  texts: readonly Uint8Array<ArrayBuffer>[],
): { readonly array: BigUint64Array<ArrayBuffer>; readonly texts: readonly Uint8Array[] } {
  const array = new BigUint64Array(texts.length + 1);
  texts.forEach((text, i) => array[i] = addressOf(text.buffer) + BigInt(text.byteOffset));
  return { array, texts };
}

/** Throws an OsError for a function that returns an error number. */
function check(problem: string, call: string, error: number): void {
  if (error !== 0) throw new OsError(problem, call, error);
}
