/** Sockets that `serve` opens or is given. */
import {
  activatedListener,
  inheritedSocket,
  OsError,
  type SocketAccess,
  UnixListener,
  type UnixStream,
} from "../host/mod.ts";
import { CommandError, UsageError } from "./errors.ts";
import { explained } from "./host_error.ts";
import type { FrontEndChoice } from "./serve_options.ts";

/** The socket of the way to the front end that was chosen, or the path to connect to. */
export function openFrontEnd(
  { listen: path, connect, descriptor }: FrontEndChoice,
  access: SocketAccess,
): UnixListener | UnixStream | string {
  if (path !== undefined) return listen(path, access);
  if (connect !== undefined) return connect;
  return descriptor === undefined ? openActivated() : inherited(descriptor);
}

/** A socket that the process was started with. */
function inherited(descriptor: number): UnixListener | UnixStream {
  try {
    return inheritedSocket(descriptor);
  } catch (error) {
    if (error instanceof RangeError || error instanceof OsError) {
      throw new UsageError(`Cannot take --fd ${descriptor}: ${explained(error.message)}`);
    }
    throw error;
  }
}

/** Listens at a path, or says in one line why that cannot be. */
export function listen(path: string, access: SocketAccess): UnixListener {
  try {
    return UnixListener.listen(path, access);
  } catch (error) {
    if (error instanceof RangeError) throw new CommandError(explained(error.message));
    throw error;
  }
}

/** The listening socket of socket activation. */
function openActivated(): UnixListener {
  let listener: UnixListener | undefined;
  try {
    listener = activatedListener({
      count: variable("LISTEN_FDS"),
      process: variable("LISTEN_PID"),
    });
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message);
    throw error;
  }
  if (listener === undefined) {
    throw new UsageError(
      "Cannot serve without --socket-path PATH, --connect PATH or --fd N: give one of them",
    );
  }
  return listener;
}

/** A variable of the environment, where looking is allowed. */
function variable(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) : undefined;
}
