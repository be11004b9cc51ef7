/** `serve --supervise`: holds the session while other processes serve it. */
import { HeldFile, Holder } from "../holder/mod.ts";
import {
  createMemoryFile,
  type Descriptor,
  ownCommand,
  UnixListener,
  type UnixStream,
} from "../host/mod.ts";
import type { Log } from "../log.ts";
import { listen, openFrontEnd } from "./front_end_socket.ts";
import type { StopSignals } from "./process_events.ts";
import { type QemuEndpoints, qemuEndpoints } from "./qemu_arguments.ts";
import type { ServeChoices } from "./serve_options.ts";
import { guestCommands } from "./serving_parts.ts";

/** Bytes of the journal: some 100 000 entries. A small one stays in the processor's caches. */
const JOURNAL_BYTES = 4 * 2 ** 20 + 4096;
/** The command that a worker runs, with the options of `serve`. */
const WORKER = "serve-worker";

/** What the holding process has. */
export interface HolderParts {
  /** Where log lines go. */
  readonly log: Log;
  /** Prints lines as they are, where log lines go. */
  readonly print: (lines: readonly string[]) => void;
  /** Requests to stop. */
  readonly stop: StopSignals;
}

/** Holds sessions until stopped. Returns the exit code. */
export async function supervise(
  { frontEnd, access, api, endpoints }: ServeChoices,
  { log, print, stop }: HolderParts,
): Promise<number> {
  using opened = new DisposableStack();
  const socket = openFrontEnd(frontEnd, access);
  if (typeof socket !== "string") opened.defer(() => socket.close());
  const files = new Map<number, Descriptor>();
  files.set(HeldFile.JOURNAL, opened.use(createMemoryFile("viommu-journal", JOURNAL_BYTES)));
  if (api !== undefined) {
    files.set(HeldFile.API, opened.use(listen(api.path, api.socket)).descriptor);
  }
  printCommands(socket, qemuEndpoints(endpoints), log, print);
  const command = { path: Deno.execPath(), args: workerCommand() };
  const holder = new Holder({ socket, command, files, log });
  const upgrade = () => holder.upgrade();
  Deno.addSignalListener("SIGHUP", upgrade);
  opened.defer(() => Deno.removeSignalListener("SIGHUP", upgrade));
  stop.onStop(() => holder.stop());
  return await holder.run();
}

/** The command that this process was started with, but for the command of the program: what comes last are its arguments. */
function workerCommand(): readonly string[] {
  const command = ownCommand();
  return [...command.slice(0, command.length - Deno.args.length), WORKER, ...Deno.args.slice(1)];
}

function printCommands(
  socket: UnixListener | UnixStream | string,
  qemu: QemuEndpoints,
  log: Log,
  print: (lines: readonly string[]) => void,
): void {
  if (!(socket instanceof UnixListener) || socket.path === undefined) {
    return print([...qemu.endpoints, ...qemu.hostDevices]);
  }
  log.info(`Listening on ${socket.path}; for QEMU 10.2 or later:`);
  print(guestCommands(socket.path, qemu));
}
