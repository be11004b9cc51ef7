/**
 * The device as a user runs it: `main.ts serve` as a child process, queried through its API socket.
 *
 * @module
 */
import { delay } from "@std/async";
import { LineProcess } from "./lab/mod.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;

/** The program with its permissions, without a command. */
function programCommand(program: string): readonly string[] {
  const permissions = ["--allow-ffi", "--allow-net", "--allow-read", "--allow-write"];
  return [Deno.execPath(), "run", "--frozen", ...permissions, program];
}

/** Milliseconds for the program to start, or to end. */
const START_LIMIT = 60_000;

/** The part of `GET /v1/state` that the tests look at. */
export interface State {
  readonly connected: boolean;
  readonly domains: readonly {
    readonly id: number;
    readonly bypass: boolean;
    readonly endpoints: readonly number[];
    readonly mappings: number;
    readonly pages: number;
    readonly tables: readonly { readonly format: string; readonly tablePages: number }[];
  }[];
  readonly endpoints: readonly { readonly id: number; readonly domain: number | null }[];
  readonly requests: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly faults: { readonly reported: number; readonly dropped: number };
  readonly process?: {
    readonly pid: number;
    readonly deaths: number;
    readonly pauses: { readonly medianMilliseconds: number; readonly longestMilliseconds: number };
  };
}

/** One element of `GET /v1/mappings`. */
export interface Mapping {
  readonly domain: number;
  readonly iova: string;
  readonly last: string;
  readonly phys: string;
  readonly flags: string;
}

/** The answer to `GET /v1/translate`. */
export type Translation =
  | {
    readonly phys: string;
    readonly guest?: string;
    readonly moved?: string | null;
    readonly access: string;
    readonly pageSize: number;
    readonly memory: string;
    readonly fault?: undefined;
  }
  | { readonly fault: { readonly reason: string; readonly code: string } };

/** A served device in a folder of its own. Dispose of it in every case. */
export class ServedDevice implements AsyncDisposable {
  readonly #process: LineProcess;
  readonly #client: Deno.HttpClient;
  readonly #folder: string;
  /** Whether another process may take the place of the one that answers. */
  readonly #isSupervised: boolean;

  private constructor(process: LineProcess, folder: string, isSupervised: boolean) {
    this.#process = process;
    this.#folder = folder;
    this.#isSupervised = isSupervised;
    this.#client = Deno.createHttpClient({
      proxy: { transport: "unix", path: `${folder}/api.sock` },
    });
  }

  /**
   * Starts `serve` with its sockets in `folder` and waits until it answers.
   *
   * @param program The program to run in place of `main.ts`.
   */
  static async start(
    folder: string,
    options: readonly string[] = [],
    program: string = MAIN,
  ): Promise<ServedDevice> {
    const sockets = ["--socket-path", `${folder}/vhost.sock`, "--api-socket", `${folder}/api.sock`];
    const process = new LineProcess({
      title: "serve",
      command: [...programCommand(program), "serve", ...sockets, ...options],
    });
    const served = new ServedDevice(process, folder, options.includes("--supervise"));
    try {
      await served.#answering();
      return served;
    } catch (error) {
      await served[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #answering(): Promise<void> {
    const end = Date.now() + START_LIMIT;
    while (true) {
      try {
        await this.state();
        return;
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        if (Date.now() > end || this.#process.ended) {
          throw this.#process.failure(`No answer on the API socket: ${error.message}`);
        }
      }
      await delay(100);
    }
  }

  /** Path of the socket for the VMM. */
  get socketPath(): string {
    return `${this.#folder}/vhost.sock`;
  }

  /** Its process id. */
  get pid(): number {
    return this.#process.pid;
  }

  /** An error that contains the program's log. */
  failure(message: string): Error {
    return this.#process.failure(message);
  }

  async #get(path: string, init: RequestInit = {}): Promise<unknown> {
    const response = await this.#fetch(path, init);
    const body: unknown = await response.json();
    if (!response.ok) {
      throw this.failure(`${path} answered ${response.status} ${JSON.stringify(body)}`);
    }
    return body;
  }

  /** Asks again where the process that was asked has died, and another one serves. */
  async #fetch(path: string, init: RequestInit): Promise<Response> {
    for (;;) {
      try {
        return await fetch(`http://127.0.0.1${path}`, { ...init, client: this.#client });
      } catch (error) {
        if (!this.#isSupervised || init.method !== undefined) throw error;
        if (this.#process.ended) throw this.failure("It has ended");
        await delay(1);
      }
    }
  }

  /** `GET /v1/state`. */
  async state(): Promise<State> {
    return await this.#get("/v1/state") as State;
  }

  /** The state as soon as `condition` is true of it. Throws if that takes too long. */
  async stateWhere(what: string, condition: (state: State) => boolean): Promise<State> {
    const end = Date.now() + START_LIMIT;
    while (true) {
      const state = await this.state();
      if (condition(state)) return state;
      if (Date.now() > end) throw this.failure(`Not ${what}: ${JSON.stringify(state)}`);
      await delay(50);
    }
  }

  /** `GET /v1/mappings` of one domain. */
  async mappings(domain: number): Promise<readonly Mapping[]> {
    return await this.#get(`/v1/mappings?domain=${domain}`) as readonly Mapping[];
  }

  /** `GET /v1/translate`; `iova` in bytes. */
  async translate(endpoint: number, iova: number, access: "r" | "w"): Promise<Translation> {
    const query = `endpoint=${endpoint}&iova=0x${iova.toString(16)}&access=${access}`;
    return await this.#get(`/v1/translate?${query}`) as Translation;
  }

  /** `POST /v1/endpoints`: an option of `serve` by its name without the dashes, and its value. */
  async addEndpoint(option: string, value: string): Promise<void> {
    await this.#get("/v1/endpoints", { method: "POST", body: JSON.stringify({ [option]: value }) });
  }

  /** `DELETE /v1/endpoints/ID`; whether all requests under way ended. */
  async removeEndpoint(endpoint: number): Promise<boolean> {
    const answer = await this.#get(`/v1/endpoints/${endpoint}`, { method: "DELETE" });
    return (answer as { readonly drained: boolean }).drained;
  }

  /** Asks it to end as a user would; its exit status. */
  async stop(): Promise<number> {
    this.#process.signal("SIGTERM");
    return (await this.#process.status(START_LIMIT)).code;
  }

  /** Ends it, whatever it does. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    await this.#process[Symbol.asyncDispose]();
  }
}

/** The command that serves with some options, for tests that start the process themselves. */
export function serveCommand(...options: readonly string[]): readonly string[] {
  return [...programCommand(MAIN), "serve", ...options];
}

/** Runs a command of the program to its end; throws unless it succeeds. */
export async function viommu(command: string, ...args: readonly string[]): Promise<void> {
  await using process = new LineProcess({
    title: command,
    command: [...programCommand(MAIN), command, ...args],
  });
  const { code } = await process.status(START_LIMIT);
  if (code !== 0) throw process.failure(`Ended with status ${code}`);
}

/** QEMU arguments that make a machine's slot 2 the device. */
export function deviceArguments(
  device: { readonly socketPath: string },
): readonly string[] {
  return [
    "-chardev",
    `socket,id=viommu,path=${device.socketPath}`,
    "-device",
    "vhost-user-test-device-pci,chardev=viommu,virtio-id=23,num_vqs=2,vq_size=128,config_size=40,addr=2",
  ];
}

/** QEMU arguments that attach a q35 machine's slot 2 to the device; writes the ACPI table that says so. */
export async function attachArguments(
  device: ServedDevice,
  folder: string,
): Promise<readonly string[]> {
  const table = `${folder}/viot.aml`;
  await viommu("viot", "--iommu", "00:02.0", "-o", table);
  return [...deviceArguments(device), "-acpitable", `file=${table}`];
}
