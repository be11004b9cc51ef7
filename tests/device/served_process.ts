/**
 * `serve` as a process of its own, and a front end of this one that drives it.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { deadline, delay } from "@std/async";
import { statusName } from "../../device/iommu/driver_requests.ts";
import { FrontEnd, type FrontEndQueue } from "../../device/vhost_user/mod.ts";
import { HANG_MS } from "../until.ts";

/** The program. */
export const MAIN = new URL("../../main.ts", import.meta.url).href;

/** The arguments of Deno in front of the program's own. */
export const DENO = [
  "run",
  "--quiet",
  "--allow-ffi",
  "--allow-env=LISTEN_FDS,LISTEN_PID",
  "--allow-net",
  "--allow-read",
  "--allow-write",
  MAIN,
];

/** A running `serve` in a folder of its own. */
export interface Served {
  readonly folder: string;
  readonly socket: string;
  readonly api: string;
  readonly process: Deno.ChildProcess;
}

/** Whether an API socket answers; it is opened after the device's own. */
async function answers(api: string): Promise<boolean> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  try {
    const response = await fetch("http://127.0.0.1/v1/state", { client });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

/**
 * Starts `serve` and waits until it answers.
 *
 * @param before What runs it, such as strace with its arguments.
 * @throws {Error} If it ends instead, or hangs; it is not running then.
 */
export async function start(
  folder: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  before: readonly string[] = [],
): Promise<Served & { log: Promise<string> }> {
  const socket = `${folder}/viommu.sock`;
  const api = `${folder}/api.sock`;
  const [program, ...rest] = [
    ...before,
    Deno.execPath(),
    ...DENO,
    ...["serve", "--socket-path", socket, "--api-socket", api, ...args],
  ];
  const process = new Deno.Command(program, {
    args: rest,
    env: { NO_COLOR: "1", ...env },
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const log = new Response(process.stderr).text();
  let hasEnded = false;
  process.status.then(() => hasEnded = true);
  const patience = performance.now() + HANG_MS;
  while (!await answers(api)) {
    if (hasEnded || performance.now() > patience) {
      await kill(process);
      throw new Error(`Cannot start serve: ${await log}`);
    }
    await delay(20);
  }
  return { folder, socket, api, process, log };
}

/** Runs `serve` while the test runs, has it end by SIGTERM, and returns what it logged. */
export async function withServe(
  args: readonly string[],
  test: (served: Served) => Promise<void>,
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const folder = await Deno.makeTempDir();
  try {
    const served = await start(folder, args, env);
    try {
      await test(served);
      served.process.kill("SIGTERM");
      assertEquals(await exitCode(served.process), 0);
      assertEquals([await exists(served.socket), await exists(served.api)], [false, false]);
    } finally {
      await kill(served.process);
      await served.log;
    }
    return await served.log;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * Waits for the end of a process.
 *
 * @throws {DOMException} If it hangs.
 */
export async function exitCode(process: Deno.ChildProcess): Promise<number> {
  return (await deadline(process.status, HANG_MS)).code;
}

/** Ends a process that may have ended. */
export async function kill(process: Deno.ChildProcess): Promise<void> {
  try {
    process.kill("SIGKILL");
  } catch {
    // It has ended, as it should.
  }
  await process.status;
}

/** Whether a path is there. */
export async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

/** A front end with its request ring and its memory. */
export interface Session {
  readonly frontEnd: FrontEnd;
  readonly queue: FrontEndQueue;
  readonly bytes: Uint8Array;
}

/** Connects, shares memory and starts the request ring. The session ends with its block. */
export async function connect(socket: string): Promise<Session & Disposable> {
  return await connectOver(FrontEnd.connect(socket));
}

/** Shares memory and starts the request ring. The session ends with its block. */
export async function connectOver(frontEnd: FrontEnd): Promise<Session & Disposable> {
  try {
    await frontEnd.negotiate();
    const { mapping } = await frontEnd.addMemory(0, 1 << 20);
    const queue = await frontEnd.startQueue(0, { size: 16, address: 0x1000 });
    const bytes = new Uint8Array(mapping.buffer);
    return { frontEnd, queue, bytes, [Symbol.dispose]: () => frontEnd.close() };
  } catch (error) {
    frontEnd.close();
    throw error;
  }
}

/** Sends a request with a status for an answer. */
export async function send(
  { queue, bytes }: Session,
  readable: Uint8Array,
): Promise<string> {
  bytes.set(readable, 0x8000);
  queue.driver.begin();
  queue.driver.addReadable(0x8000, readable.length);
  queue.driver.addWritable(0x9000, 4);
  queue.driver.commit();
  queue.kick();
  assert(await queue.reap());
  return statusName(bytes.slice(0x9000, 0x9004), queue.driver.usedLength);
}
