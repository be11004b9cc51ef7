/**
 * A process that serves for a holder (`serve --supervise`), which starts it. Not meant to be typed.
 *
 * It has the options of `serve`. Its sockets are the holder's; those of devices behind the IOMMU it makes itself, once it
 * is the active worker.
 */
import { ApiServer } from "../api/mod.ts";
import { HeldFile, packet, PacketKind, ProcessRecord, WorkerPage } from "../holder/mod.ts";
import {
  type Descriptor,
  dieWithParent,
  LineWriter,
  mapMemoryFile,
  PacketChannel,
  PollSet,
  SharedMemory,
  UnixListener,
} from "../host/mod.ts";
import { type IommuDevice, Journal } from "../iommu/mod.ts";
import { Log } from "../log.ts";
import { CONFIG_BYPASS_OFFSET } from "../iommu/config_space.ts";
import type { PollSource } from "../poll_source.ts";
import type { Sandbox } from "../sandbox/mod.ts";
import { HostDevices } from "../vfio/mod.ts";
import { HeldServer, HolderChannel, startFile, type WorkerStart } from "../worker/mod.ts";
import type { Command } from "./command.ts";
import { InheritedDescriptors } from "./descriptor_source.ts";
import { EndpointControl } from "./endpoint_control.ts";
import { UsageError } from "./errors.ts";
import { hostErrorText } from "./host_error.ts";
import { LateEndpoints } from "./late_endpoints.ts";
import { LiveState } from "./live_state.ts";
import { makeDevice, prepare } from "./open_device.ts";
import { processState } from "./process_state.ts";
import { parseServeOptions, SERVE_OPTIONS, type ServeChoices } from "./serve_options.ts";
import { confine, sandboxState, servePolicy } from "./serve_sandbox.ts";
import { shareTableMemory, traceEvents } from "./serving_parts.ts";

/** The channel to the holder, as the holder starts a worker. */
const CHANNEL_NUMBER = 3;
const STANDARD_ERROR = 2;
/** Milliseconds that the last log lines have to be written. */
const LAST_LINES_MS = 200;
/** Milliseconds between two looks at the journal of the active worker. */
const FOLLOW_MS = 100;
/** The exit code after a bug of ours: that of `EX_SOFTWARE`. */
const BUG = 70;

/** Serves for a holder. */
export const serveWorker: Command = {
  name: "serve-worker",
  summary: "the process that serves for serve --supervise",
  usage: ["[options]"],
  description: "The process that serves for serve --supervise, started by it.",
  options: SERVE_OPTIONS,
  async run({ values }) {
    const channel = PacketChannel.inherited(CHANNEL_NUMBER);
    if (channel === undefined) throw new Error("serve-worker is started by serve --supervise");
    // A signal of the terminal or of a service manager is the holder's, which tells what is to be done.
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      Deno.addSignalListener(signal, () => {});
    }
    dieWithParent();
    const choices = parseServeOptions(values);
    SharedMemory.allowsAnyFile = choices.allowsFileMemory;
    const lines = new LineWriter(STANDARD_ERROR);
    const log = new Log(choices.level, (line) => lines.write(line));
    const holder = new HolderChannel(channel, () => Deno.exit(0));
    try {
      await new Worker(choices, holder, log).run();
    } catch (error) {
      // What the options ask for cannot be: said as `serve` says it. Nothing is begun yet.
      const isExpected = error instanceof UsageError || hostErrorText(error) !== undefined;
      if (!holder.isActive && isExpected) throw error;
      // Whatever is begun is left as it is, for the worker that takes over.
      Deno.stderr.writeSync(new TextEncoder().encode(`viommu: error: ${bugText(error)}\n`));
      Deno.exit(BUG);
    }
    await lines.flush(LAST_LINES_MS);
    return 0;
  },
};

/** One worker. */
class Worker {
  readonly #choices: ServeChoices;
  readonly #channel: HolderChannel;
  readonly #log: Log;
  readonly #hostDevices: HostDevices;
  readonly #start: WorkerStart;
  readonly #startedAt = new Date();
  readonly #page: WorkerPage;
  readonly #device: IommuDevice;
  readonly #journal: Journal;
  readonly #snapshot: Uint8Array<ArrayBuffer> | undefined;

  constructor(choices: ServeChoices, channel: HolderChannel, log: Log) {
    this.#choices = choices;
    this.#channel = channel;
    this.#log = log;
    this.#hostDevices = new HostDevices(log);
    this.#start = channel.start();
    this.#page = WorkerPage.map(startFile(this.#start, HeldFile.PAGE));
    this.#page.hold();
    const tables = shareTableMemory(choices.device.maxTableMemory);
    this.#device = makeDevice({ ...choices.device, tableMemory: tables.buffer });
    const journalFile = startFile(this.#start, HeldFile.JOURNAL);
    this.#journal = Journal.open(mapWhole(journalFile).buffer);
    const snapshot = this.#start.files.get(HeldFile.SNAPSHOT);
    this.#snapshot = snapshot === undefined ? undefined : new Uint8Array(mapWhole(snapshot).buffer);
  }

  async run(): Promise<void> {
    const { device, rings, warmsUp } = this.#choices;
    if (!this.#start.settings.isAwaited && warmsUp) await prepare(device, rings, this.#log);
    const late = new LateEndpoints(this.#choices.endpoints, {
      ...{ iommu: this.#device, log: this.#log, access: this.#choices.access },
      ...{ descriptors: new InheritedDescriptors(), hostDevices: this.#hostDevices },
    });
    // What is wrong with them is told at the start; later workers have to wait for the sockets of those before.
    if (this.#start.generation === 1) late.openAll();
    this.#fail(this.#device.journal.replay(this.#journal, this.#snapshot));
    const sandbox = this.#confine();
    this.#channel.send(packet(PacketKind.READY, { first: this.#offer() }));
    await this.#follow();
    this.#fail(this.#device.journal.takeOver(this.#journal, this.#snapshot));
    await this.#serve(late, sandbox);
  }

  /** Gives up what is not needed from now on. Sockets of devices behind the IOMMU are yet to be made. */
  #confine(): Sandbox | undefined {
    const { sandbox, endpoints, api } = this.#choices;
    const [path] = endpoints.flatMap(({ listens }) => listens);
    const later = path === undefined
      ? api
      : { path: api?.path ?? path, access: "full" as const, socket: {} };
    return confine(sandbox, servePolicy({ ...this.#choices, api: later }, false), this.#log);
  }

  /** What front ends are offered: they know it, so every worker must offer the same. */
  #offer(): Uint8Array<ArrayBuffer> {
    const { featuresLow, featuresHigh, configSize } = this.#device;
    const config = new Uint8Array(configSize);
    this.#device.readConfig(config, 0);
    // What the guest may write is no offer.
    config[CONFIG_BYPASS_OFFSET] = 0;
    const { rings } = this.#choices;
    return new TextEncoder().encode(
      JSON.stringify({ featuresLow, featuresHigh, rings, config: [...config] }),
    );
  }

  /** Replays what the active worker does, until this one is to take its place. */
  async #follow(): Promise<void> {
    const { descriptor } = this.#channel;
    using poll = new PollSet(1);
    poll.add(descriptor);
    while (!this.#channel.isActive) {
      await poll.wait(FOLLOW_MS);
      this.#channel.pump();
      if (this.#channel.mustRelease) Deno.exit(0);
      this.#fail(this.#device.journal.replay(this.#journal));
    }
  }

  async #serve(late: LateEndpoints, sandbox: Sandbox | undefined): Promise<void> {
    const { endpoints } = late;
    const { api, access, frontEnd, pollUs, rings, sandbox: mode } = this.#choices;
    const log = this.#log;
    const device = this.#device;
    const record = ProcessRecord.map(startFile(this.#start, HeldFile.RECORD));
    const { generation } = this.#start;
    const startedAt = this.#startedAt;
    const otherSockets = [frontEnd.listen, api?.path].filter((path) => path !== undefined);
    const context = new LiveState({
      device,
      endpoints,
      changes: new EndpointControl({
        ...{ endpoints, iommu: device, log, access, otherSockets, hostDevices: this.#hostDevices },
        isConfined: sandbox !== undefined,
        isSupervised: true,
      }),
      access: api?.access,
      server: () => server,
      sandbox: () => sandboxState(mode, sandbox),
      process: () => processState(record, generation, startedAt),
    });
    const listener = this.#start.files.get(HeldFile.API);
    const sources: PollSource[] = listener === undefined
      ? []
      : [new ApiServer(UnixListener.adopt(listener), context, log)];
    if (sandbox?.refusals !== undefined) sources.push(sandbox.refusals.source(log));
    const server: HeldServer = new HeldServer({
      device,
      channel: this.#channel,
      page: this.#page,
      log,
      pollMicroseconds: pollUs,
      pollSources: [endpoints, late, ...sources],
      ringFeatures: rings,
    });
    device.hosts.onWarning = (line) => log.warnLimited("hosts", line);
    if (log.enabled("trace")) traceEvents(device, log);
    await server.run();
  }

  #fail(problem: string | undefined): void {
    if (problem !== undefined) throw new Error(problem);
  }
}

/** A file of the holder's in memory, whole. */
function mapWhole(file: Descriptor): SharedMemory {
  const status = SharedMemory.status(file);
  if (typeof status === "string") throw new Error(`Cannot map a file of the holder: ${status}`);
  return mapMemoryFile(file, 0, status.size);
}

/** An error that is no peer's, with the place where it was thrown. */
function bugText(error: unknown): string {
  return error instanceof Error ? error.stack ?? error.message : String(error);
}
