/**
 * A running Open vSwitch with one bridge, one vhost-user port, and a host address on the bridge.
 *
 * The switch runs in a network namespace of its own, so the host's network has neither the bridge nor its address.
 *
 * @module
 */
import { until } from "../until.ts";
import { exists } from "./lab/cache.ts";
import { LineProcess, type OpenVswitch } from "./lab/mod.ts";
import { run } from "./lab/process.ts";

/** A name that no bridge of the host has. */
const BRIDGE = "viommu-br0";

/** Ends a program when the process that started it ends, also where that was killed: the switch polls for ever. */
const END_WITH_PARENT = ["setpriv", "--pdeathsig", "KILL"];

/** The database and the switch. Dispose of it in every case. */
export class RunningSwitch implements AsyncDisposable {
  readonly #programs: OpenVswitch;
  readonly #folder: string;
  readonly #address: string;
  readonly #server: LineProcess;
  #daemon: LineProcess | undefined;

  private constructor(programs: OpenVswitch, folder: string, address: string) {
    this.#programs = programs;
    this.#folder = folder;
    this.#address = address;
    this.#server = new LineProcess({
      title: "ovsdb-server",
      command: [
        ...[...END_WITH_PARENT, ...programs.server],
        ...[`${folder}/conf.db`, `--remote=p${this.#database}`],
      ],
      env: this.#env,
    });
  }

  /**
   * Starts a switch whose files are in a folder.
   *
   * @param socket The socket that the port connects to, as soon as it is there.
   * @param address The address of the bridge, with the length of its prefix.
   */
  static async start(
    programs: OpenVswitch,
    folder: string,
    socket: string,
    address: string,
  ): Promise<RunningSwitch> {
    await run([...programs.tool, "create", `${folder}/conf.db`, programs.schema]);
    const started = new RunningSwitch(programs, folder, address);
    try {
      await started.#configure(socket);
      await started.startDaemon();
      return started;
    } catch (error) {
      await started[Symbol.asyncDispose]();
      throw error;
    }
  }

  get #env(): Readonly<Record<string, string>> {
    const folder = this.#folder;
    const own = { OVS_RUNDIR: folder, OVS_LOGDIR: folder, OVS_DBDIR: folder };
    return { ...own, OVS_SYSCONFDIR: folder, RUNTIME_DIRECTORY: folder };
  }

  get #database(): string {
    return `unix:${this.#folder}/db.sock`;
  }

  async #configure(socket: string): Promise<void> {
    const server = this.#server;
    const listens = () => exists(`${this.#folder}/db.sock`);
    await until(async () => server.ended || await listens(), "the database's server listens");
    if (server.ended) throw server.failure("Ended instead of listening");
    const last = `0x${(2 ** (navigator.hardwareConcurrency - 1)).toString(16)}`;
    // Open vSwitch adds `--in-memory` unless it is given `--legacy-mem`, and DPDK refuses that without huge pages.
    const memory = "--no-huge --legacy-mem --no-shconf -m 256";
    const options: Readonly<Record<string, string>> = {
      "dpdk-init": "true",
      "dpdk-lcore-mask": last,
      "dpdk-extra": `${this.#programs.drivers} ${memory} --no-pci --no-telemetry`,
      "vhost-iommu-support": "true",
      // A pool that ports share has 262,144 packets, which needs 1.6 GB.
      "per-port-memory": "true",
      "pmd-cpu-mask": last,
      // Microseconds to sleep between polls, so that the guest gets the processor.
      "pmd-sleep-max": "200",
    };
    const settings = Object.entries(options).map(([name, value]) =>
      `other_config:${name}="${value}"`
    );
    const port = ["type=dpdkvhostuserclient", `options:vhost-server-path="${socket}"`];
    await this.#control(
      ...["--no-wait", "init", "--", "set", "Open_vSwitch", ".", ...settings],
      ...["--", "add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"],
      ...["--", "add-port", BRIDGE, "vhost0", "--", "set", "Interface", "vhost0", ...port],
    );
  }

  async #control(...args: readonly string[]): Promise<void> {
    const { control } = this.#programs;
    await run([...control, `--db=${this.#database}`, "--timeout=120", ...args], { env: this.#env });
  }

  /** Starts the switch itself, which is configured as the database says. */
  async startDaemon(): Promise<void> {
    const { busybox, daemon } = this.#programs;
    const namespace = [...END_WITH_PARENT, busybox, "unshare", "-rn"];
    const process = new LineProcess({
      title: "ovs-vswitchd",
      command: ["nice", "-n", "5", ...namespace, ...daemon, this.#database],
      env: this.#env,
    });
    this.#daemon = process;
    // The file cannot be read when the process has just ended.
    const devices = () => Deno.readTextFile(`/proc/${process.pid}/net/dev`).catch(() => "");
    const hasBridge = async () => (await devices()).includes(`${BRIDGE}:`);
    await until(async () => process.ended || await hasBridge(), "the bridge is there");
    if (process.ended) throw process.failure("Ended instead of switching");
    const ip = [busybox, "nsenter", "-t", `${process.pid}`, "-U", "-n", busybox, "ip"];
    await run([...ip, "addr", "add", this.#address, "dev", BRIDGE]);
    await run([...ip, "link", "set", BRIDGE, "up"]);
  }

  /** Ends the switch itself; the database stays. */
  async stopDaemon(): Promise<void> {
    await this.#daemon?.[Symbol.asyncDispose]();
    this.#daemon = undefined;
  }

  /** Ends both. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopDaemon();
    await this.#server[Symbol.asyncDispose]();
  }
}
