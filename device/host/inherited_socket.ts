/**
 * Sockets that the process inherited: `--fd N` and systemd's socket activation.
 *
 * The number is checked before the descriptor is used: the runtime has descriptors of its own (socket pairs and
 * database files among them), and a number that was not inherited could be one of those.
 */
import { F_SETFD, FD_CLOEXEC, S_IFSOCK, SO_ACCEPTCONN, SO_PEERCRED } from "./constants.ts";
import { Descriptor } from "./descriptor.ts";
import { descriptorStatus } from "./file_status.ts";
import { libc } from "./libc.ts";
import { errnoName } from "./os_error.ts";
import { isUnixStreamNumber, socketName } from "./received_stream.ts";
import { socketOption } from "./socket_option.ts";
import { UnixListener } from "./unix_listener.ts";
import { UnixStream } from "./unix_stream.ts";

/** First descriptor that socket activation passes (`sd_listen_fds(3)`). */
const FIRST_ACTIVATED = 3;

/**
 * Takes over an inherited unix stream socket, connected or listening; which of the two the socket says itself.
 * Throws a RangeError whose one line says what is wrong with the number.
 */
export function inheritedSocket(number: number): UnixListener | UnixStream {
  const problem = `Cannot use descriptor ${number}`;
  if (!Number.isInteger(number) || number < 0 || number > 0x7fffffff) {
    throw new RangeError(`${problem}: it is no descriptor number`);
  }
  const status = descriptorStatus(number);
  if (typeof status === "number") throw new RangeError(`${problem}: ${errnoName(status)}`);
  if (status.type !== S_IFSOCK) throw new RangeError(`${problem}: it is not a socket`);
  if (!isUnixStreamNumber(number)) {
    throw new RangeError(`${problem}: it is not a unix stream socket`);
  }
  const listening = socketOption(number, SO_ACCEPTCONN) === 1;
  if (!listening) {
    if (socketName("getpeername", number) === undefined) {
      throw new RangeError(`${problem}: it is not connected`);
    }
    // The other end of the runtime's own pairs is this process; a VMM is another one.
    if (socketOption(number, SO_PEERCRED) === Deno.pid) {
      throw new RangeError(`${problem}: it belongs to the runtime, it was not inherited`);
    }
  }
  libc().fcntl(number, F_SETFD, FD_CLOEXEC);
  const descriptor = new Descriptor(number);
  return listening ? UnixListener.adopt(descriptor) : new UnixStream(descriptor);
}

/** The variables of socket activation, as the environment gives them. */
export interface ActivationEnvironment {
  /** `LISTEN_FDS`: how many descriptors were passed. */
  readonly count: string | undefined;
  /** `LISTEN_PID`: for which process. */
  readonly process: string | undefined;
}

/**
 * The one listening socket of socket activation, or `undefined` if there was none for this process. Throws a
 * RangeError if what was passed is not one listening unix stream socket.
 */
export function activatedListener(environment: ActivationEnvironment): UnixListener | undefined {
  if (environment.count === undefined || Number(environment.process) !== Deno.pid) return undefined;
  if (environment.count !== "1") {
    throw new RangeError(
      `Cannot use the sockets of LISTEN_FDS: one is needed, ${environment.count} were passed`,
    );
  }
  const socket = inheritedSocket(FIRST_ACTIVATED);
  if (socket instanceof UnixListener) return socket;
  socket.close();
  throw new RangeError(`Cannot use the socket of LISTEN_FDS: it does not listen`);
}
