/**
 * `demo`: serves the device in this process, drives it from a second one, and shows what happens.
 *
 * @module
 */
import { dumpEndpoint, dumpText, NO_PASID, READ, WRITE } from "../../pagetable/mod.ts";
import { addressText } from "../address.ts";
import {
  attachRequest,
  mapRequest,
  probeRequest,
  readProperties,
  statusName,
  unmapRequest,
  writableSize,
} from "../iommu/driver_requests.ts";
import { UnixListener } from "../host/mod.ts";
import { IommuDevice } from "../iommu/iommu_device.ts";
import { Log } from "../log.ts";
import { DeviceServer } from "../serving/device_server.ts";
import { T_PROBE } from "../iommu/wire.ts";
import type { Command } from "./command.ts";
import { CommandError } from "./errors.ts";
import type { DemoAnswer, DemoOrder } from "./demo_guest.ts";
import { parseDeviceOptions } from "./device_options.ts";

/** The endpoint that the demo attaches: 00:03.0. */
const ENDPOINT = 24;
/** The domain it is attached to. */
const DOMAIN = 1;
/** MAP and UNMAP pairs that are timed, if the machine is not too busy for it. */
const PAIRS = 3200;

/** Shows the device at work. */
export const demo: Command = {
  name: "demo",
  summary: "serve the device and drive it from a second process, and show what happens",
  usage: [""],
  description: `Serves a device on a socket in a temporary place, starts a second process that
    plays VMM and guest over that socket with shared memory, and shows each request,
    its answer, and the page tables that came out. Needs nothing but Deno.`,
  options: [],
  async run() {
    const path = `/tmp/viommu-demo-${Deno.pid}.sock`;
    const device = new IommuDevice({ ...parseDeviceOptions({}), bypass: false });
    const server = new DeviceServer(device, new Log("warn"), 1000);
    const listener = UnixListener.listen(path);
    function stop(): void {
      server.stop();
    }
    Deno.addSignalListener("SIGINT", stop);
    Deno.addSignalListener("SIGTERM", stop);
    const serving = server.run(listener);
    const guest = new Guest(path);
    try {
      await Promise.race([show(device, guest), serving]);
    } finally {
      await guest.close();
      server.stop();
      await serving;
      Deno.removeSignalListener("SIGINT", stop);
      Deno.removeSignalListener("SIGTERM", stop);
    }
    device.close();
    console.log("Everything is given back: no table page, no pin, no descriptor is left.");
    return 0;
  },
};

/** The second process. */
class Guest {
  readonly #process: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: ReadableStreamDefaultReader<string>;
  #rest = "";

  constructor(path: string) {
    const main = new URL("../../main.ts", import.meta.url);
    this.#process = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--allow-ffi", main.href, "demo-guest", path],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#process.stdin.getWriter();
    this.#output = this.#process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Waits until it has connected. */
  async ready(): Promise<void> {
    await this.#line();
  }

  /** Has it do something. */
  async order(order: DemoOrder): Promise<DemoAnswer> {
    await this.#input.write(new TextEncoder().encode(`${JSON.stringify(order)}\n`));
    return JSON.parse(await this.#line());
  }

  /** Ends it. */
  async close(): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.#output.cancel();
    await this.#process.status;
  }

  async #line(): Promise<string> {
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#output.read();
      if (done) throw new CommandError("Cannot go on with the demo: the second process ended");
      this.#rest += value;
    }
    const end = this.#rest.indexOf("\n");
    const line = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end + 1);
    return line;
  }
}

/** Runs the script of the demo. */
async function show(device: IommuDevice, guest: Guest): Promise<void> {
  await guest.ready();
  console.log(
    "A second process connected over vhost-user, shared 16 MiB of memory and started two rings.\n" +
      "It plays the driver of a guest; every line is one request in the ring and the answer to it.\n",
  );
  await probe(guest);
  await send(guest, `ATTACH domain ${DOMAIN}, endpoint 00:03.0`, attachRequest(DOMAIN, ENDPOINT));
  for (const [note, fields] of MAPS) {
    const text = `MAP    ${addressText(page(fields.virtStart))}-0x${
      fields.virtEnd.toString(16)
    } -> 0x${fields.physStart.toString(16)} ${flagsText(fields.flags)}`;
    await send(guest, text, mapRequest({ domain: DOMAIN, ...fields }), note);
  }
  console.log("\nThe tables, as hardware finds them from 00:03.0 on, equal runs folded:");
  console.log(tree(device));
  console.log(
    "What a device at 00:03.0 reaches, through the tables as VT-d hardware walks them:",
  );
  for (const [iova, access] of ACCESSES) translate(device, iova, access);
  console.log("");
  const { virtStart, virtEnd } = MAPS[0][1];
  await send(guest, "UNMAP  0x1000-0x1fff", unmapRequest(DOMAIN, virtStart, virtEnd));
  translate(device, 0x1123n, READ);
  await refusals(guest);
  await timing(device, guest);
}

/** What the demo maps, with what there is to say about it. */
const MAPS = [
  ["one page", { virtStart: 0x1000n, virtEnd: 0x1fffn, physStart: 0x5000n, flags: 3 }],
  ["one page, to be read only", {
    virtStart: 0x2000n,
    virtEnd: 0x2fffn,
    physStart: 0x6000n,
    flags: 1,
  }],
  ["an aligned 2 MiB block: one entry", {
    virtStart: 0x200000n,
    virtEnd: 0x3fffffn,
    physStart: 0x800000n,
    flags: 3,
  }],
  ["unaligned: 4 KiB entries around a 2 MiB one", {
    virtStart: 0x7fe000n,
    virtEnd: 0xa01fffn,
    physStart: 0x3fe000n,
    flags: 3,
  }],
] as const;

/** What the demo translates. */
const ACCESSES = [
  [0x1123n, READ],
  [0x2123n, READ],
  [0x2123n, WRITE],
  [0x212345n, WRITE],
  [0x7fe010n, READ],
  [0x823456n, READ],
  [0x400000n, READ],
] as const;

/** PROBE, and what it said. */
async function probe(guest: Guest): Promise<void> {
  const size = 24;
  const answer = await request(guest, probeRequest(ENDPOINT), writableSize(T_PROBE, size));
  const regions = readProperties(answer.bytes, size).map((region) =>
    `reserved ${region.subtype === 1 ? "for interrupts " : ""}0x${region.start.toString(16)}-0x${
      region.end.toString(16)
    }`
  );
  print("PROBE  endpoint 00:03.0", statusName(answer.bytes, answer.length), regions.join(", "));
}

/** Requests that must be refused. */
async function refusals(guest: Guest): Promise<void> {
  console.log("\nWhat the specification has refused:");
  const map = {
    domain: DOMAIN,
    virtStart: 0x1000n,
    virtEnd: 0x1fffn,
    physStart: 0x5000n,
    flags: 3,
  };
  const cases: readonly (readonly [string, Uint8Array, string])[] = [
    ["MAP    over a mapping", mapRequest({ ...map, virtStart: 0x2000n, virtEnd: 0x2fffn }), ""],
    ["MAP    off the page", mapRequest({ ...map, physStart: 0x5001n }), ""],
    ["MAP    an unknown flag", mapRequest({ ...map, flags: 8 }), ""],
    ["MAP    a domain that is not there", mapRequest({ ...map, domain: 99 }), ""],
    [
      "MAP    where interrupts go",
      mapRequest({ ...map, virtStart: 0xfee00000n, virtEnd: 0xfee00fffn }),
      "",
    ],
    [
      "UNMAP  half of the block",
      unmapRequest(DOMAIN, 0x200000n, 0x2fffffn),
      "and nothing is removed",
    ],
    ["UNMAP  a hole", unmapRequest(DOMAIN, 0x40000000n, 0x4fffffffn), "which is fine"],
  ];
  for (const [text, bytes, note] of cases) await send(guest, text, bytes, note);
}

/** The time that requests take. */
async function timing(device: IommuDevice, guest: Guest): Promise<void> {
  console.log("\nThe time of MAPs and UNMAPs of one page, from the other process and back:");
  for (const batch of [1, 64]) {
    const answer = await guest.order({ pairs: PAIRS, domain: DOMAIN, batch });
    if (!("pairs" in answer)) throw new Error("Cannot use the answer: it is that of another order");
    const each = (answer.microseconds / answer.pairs / 2).toFixed(2);
    console.log(`  ${String(batch).padStart(3)} at a time: ${each} us a request`);
  }
  const counts = device.requests.counts.reduce((sum, count) => sum + count, 0);
  const pages = device.hardware.memory.used;
  console.log(`  ${counts} requests served in all; ${pages} pages of table memory in use\n`);
}

/** Sends a request whose answer is a status, and prints both. */
async function send(guest: Guest, text: string, bytes: Uint8Array, note = ""): Promise<void> {
  const answer = await request(guest, bytes, writableSize(bytes[0], 0));
  print(text, statusName(answer.bytes, answer.length), note);
}

/** Sends a request. */
async function request(
  guest: Guest,
  bytes: Uint8Array,
  writable: number,
): Promise<{ readonly length: number; readonly bytes: Uint8Array }> {
  const answer = await guest.order({ request: [...bytes], writable });
  if (!("bytes" in answer)) throw new Error("Cannot use the answer: it is that of another order");
  return { length: answer.length, bytes: Uint8Array.from(answer.bytes) };
}

/** Prints a request with its answer. */
function print(text: string, status: string, note: string): void {
  console.log(`  ${text.padEnd(46)} ${status}${note === "" ? "" : `  (${note})`}`);
}

/** Prints what an access comes to. */
function translate(device: IommuDevice, iova: bigint, access: number): void {
  const walk = device.walk(ENDPOINT, page(iova), access);
  const offset = Number(iova & 0xfffn);
  const text = `  ${access === READ ? "read " : "write"} 0x${iova.toString(16)}`;
  console.log(
    walk.ok
      ? `${text.padEnd(20)} -> ${
        addressText(walk.frame, offset)
      }, in a leaf of ${walk.leafPages} pages`
      : `${text.padEnd(20)} -> fault ${walk.faultName}, VT-d reason 0x${
        walk.faultCode.toString(16)
      }`,
  );
}

/** The tables behind the demo's endpoint as text. */
function tree(device: IommuDevice): string {
  const endpoint = device.endpoints.seen(ENDPOINT);
  if (endpoint === undefined) return "";
  const found = dumpEndpoint(
    { walk: (_id, at, access, result) => device.hardware.walk(endpoint, at, access, result) },
    ENDPOINT,
    NO_PASID,
  );
  return found === null ? "" : dumpText([found]).replaceAll(/^/gm, "  ");
}

/** Page of a byte address. */
function page(address: bigint): number {
  return Number(address >> 12n);
}

/** Flags of MAP as text. */
function flagsText(flags: number): string {
  return ((flags & 1) !== 0 ? "r" : "") + ((flags & 2) !== 0 ? "w" : "");
}
