import { dumpEndpoint, dumpText, NO_PASID, READ, WRITE } from "../../pagetable/mod.ts";
import { addressText, PAGE_SIZE, sizeText } from "../address.ts";
import {
  attachRequest,
  mapRequest,
  probeRequest,
  readProperties,
  statusName,
  unmapRequest,
  writableSize,
} from "../iommu/driver_requests.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { T_PROBE } from "../iommu/wire.ts";
import type { DemoTimes } from "./demo_guest.ts";
import type { DemoProcess } from "./demo_process.ts";
import type { Streams } from "./streams.ts";

/** The endpoint that the demo attaches: 00:03.0. */
const ENDPOINT = 24;
/** The domain it is attached to. */
const DOMAIN = 1;
/** Pairs of MAP and UNMAP before any is timed, then of those that are, if the machine is not too busy for so many. */
const WARM_UP_PAIRS = 20_000;
const PAIRS = 5000;
/** Requests a notification, for the two measurements. */
const BATCHES = [1, 64];
/** The entries of VT-d's device tables, in the order of a walk. */
const DEVICE_ENTRIES = ["root entry", "context entry"];

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

/** What the demo does and prints: requests and their answers, tables, translations, refusals, times. */
export class DemoScript {
  readonly #device: IommuDevice;
  readonly #guest: DemoProcess;
  readonly #streams: Streams;

  /** A script that has not begun. */
  constructor(device: IommuDevice, guest: DemoProcess, streams: Streams) {
    this.#device = device;
    this.#guest = guest;
    this.#streams = streams;
  }

  /** Runs it to its end. */
  async run(): Promise<void> {
    await this.#guest.ready();
    await this.#say(
      "A second process connected over vhost-user, shared 16 MiB of memory and started two rings.\n" +
        "It plays the driver of a guest; every line is one request in the ring and the answer to it.\n",
    );
    await this.#probe();
    await this.#send(`ATTACH domain ${DOMAIN}, endpoint 00:03.0`, attachRequest(DOMAIN, ENDPOINT));
    for (const [note, fields] of MAPS) {
      const text = `MAP    ${addressText(page(fields.virtStart))}-0x${
        fields.virtEnd.toString(16)
      } -> 0x${fields.physStart.toString(16)} ${flagsText(fields.flags)}`;
      await this.#send(text, mapRequest({ domain: DOMAIN, ...fields }), note);
    }
    await this.#say("\nThe tables, as hardware finds them from 00:03.0 on, equal runs folded:");
    await this.#say(`${this.#tree()}\n`);
    await this.#say(
      "What a device at 00:03.0 reaches, through the tables as VT-d hardware walks them:",
    );
    for (const [iova, access] of ACCESSES) await this.#translate(iova, access);
    await this.#say("");
    const { virtStart, virtEnd } = MAPS[0][1];
    await this.#send("UNMAP  0x1000-0x1fff", unmapRequest(DOMAIN, virtStart, virtEnd));
    await this.#translate(0x1123n, READ);
    await this.#refusals();
    await this.#timing();
  }

  /** PROBE, and what it said. */
  async #probe(): Promise<void> {
    const size = 24;
    const answer = await this.#request(probeRequest(ENDPOINT), writableSize(T_PROBE, size));
    const regions = readProperties(answer.bytes, size).map((region) =>
      `reserved ${region.subtype === 1 ? "for interrupts " : ""}0x${region.start.toString(16)}-0x${
        region.end.toString(16)
      }`
    );
    await this.#print(
      "PROBE  endpoint 00:03.0",
      statusName(answer.bytes, answer.length),
      regions.join(", "),
    );
  }

  /** Requests that must be refused. */
  async #refusals(): Promise<void> {
    await this.#say("\nWhat the device refuses, as the specification demands:");
    const map = {
      domain: DOMAIN,
      virtStart: 0x1000n,
      virtEnd: 0x1fffn,
      physStart: 0x5000n,
      flags: 3,
    };
    const cases: readonly (readonly [string, Uint8Array])[] = [
      ["MAP    over a mapping", mapRequest({ ...map, virtStart: 0x2000n, virtEnd: 0x2fffn })],
      ["MAP    off the page", mapRequest({ ...map, physStart: 0x5001n })],
      ["MAP    an unknown flag", mapRequest({ ...map, flags: 8 })],
      ["MAP    a domain that is not there", mapRequest({ ...map, domain: 99 })],
      [
        "MAP    where interrupts go",
        mapRequest({ ...map, virtStart: 0xfee00000n, virtEnd: 0xfee00fffn }),
      ],
      ["UNMAP  half of the block", unmapRequest(DOMAIN, 0x200000n, 0x2fffffn)],
    ];
    const { events } = this.#device;
    for (const [text, bytes] of cases) {
      const before = events.last;
      const answer = await this.#request(bytes, 4);
      const [event] = events.since(before);
      const why = event?.kind === "refused" ? `${event.statement}: ${event.reason}` : "";
      await this.#print(text, statusName(answer.bytes, answer.length), why);
    }
    await this.#say("  The numbers are those of docs/conformance.md.\n");
    await this.#send(
      "UNMAP  a hole",
      unmapRequest(DOMAIN, 0x40000000n, 0x4fffffffn),
      "nothing to remove",
    );
  }

  /** The time that requests take. */
  async #timing(): Promise<void> {
    await this.#say(
      "\nThe time of a MAP or UNMAP of one page, from the other process and back, in microseconds:",
    );
    // Both processes run the code of a request until it is compiled.
    await this.#time(BATCHES[1], WARM_UP_PAIRS);
    await this.#time(BATCHES[0], PAIRS);
    for (const batch of BATCHES) {
      const { least, median, p99, requests } = await this.#time(batch, PAIRS);
      const name = `${String(batch).padStart(3)} at a time:`;
      const figures = [["least", least], ["median", median], ["p99", p99]] as const;
      const text = figures.map(([figure, value]) => `${figure} ${value.toFixed(2)}`).join(", ");
      await this.#say(`  ${name} ${text}  (${requests} requests)`);
    }
    const counts = this.#device.requests.counts.reduce((sum, count) => sum + count, 0);
    const pages = this.#device.hardware.memory.used;
    await this.#say(
      `  ${counts} requests were served in all; ${pages} pages of table memory are in use\n`,
    );
  }

  /** Times pairs. */
  async #time(batch: number, pairs: number): Promise<DemoTimes> {
    const answer = await this.#guest.order({ pairs, domain: DOMAIN, batch });
    if (!("least" in answer)) throw new Error("Cannot use the answer: it is that of another order");
    return answer;
  }

  /** Sends a request whose answer is a status, and prints both. */
  async #send(text: string, bytes: Uint8Array, note = ""): Promise<void> {
    const answer = await this.#request(bytes, writableSize(bytes[0], 0));
    await this.#print(text, statusName(answer.bytes, answer.length), note);
  }

  /** Sends a request. */
  async #request(
    bytes: Uint8Array,
    writable: number,
  ): Promise<{ readonly length: number; readonly bytes: Uint8Array }> {
    const answer = await this.#guest.order({ request: [...bytes], writable });
    if (!("bytes" in answer)) throw new Error("Cannot use the answer: it is that of another order");
    return { length: answer.length, bytes: Uint8Array.from(answer.bytes) };
  }

  /** Prints a request with its answer. */
  async #print(text: string, status: string, note: string): Promise<void> {
    await this.#say(`  ${text.padEnd(46)} ${status}${note === "" ? "" : `  (${note})`}`);
  }

  /** Prints what an access comes to. */
  async #translate(iova: bigint, access: number): Promise<void> {
    const walk = this.#device.walk(ENDPOINT, page(iova), access);
    const text = `  ${access === READ ? "read " : "write"} 0x${iova.toString(16)}`.padEnd(20);
    const to = addressText(walk.frame, Number(iova & 0xfffn));
    await this.#say(
      walk.ok
        ? `${text} -> ${to}, in a page of ${sizeText(walk.leafPages * PAGE_SIZE)}`
        : `${text} -> fault ${walk.faultName}, VT-d reason 0x${walk.faultCode.toString(16)}`,
    );
  }

  /** The tables behind the demo's endpoint as text. */
  #tree(): string {
    const endpoint = this.#device.endpoints.seen(ENDPOINT);
    if (endpoint === undefined) return "";
    const { hardware } = this.#device;
    const found = dumpEndpoint(
      { walk: (_id, at, access, result) => hardware.walk(endpoint, at, access, result) },
      ENDPOINT,
      NO_PASID,
    );
    if (found === null) return "";
    let next = 0;
    return dumpText([found]).trimEnd()
      .replaceAll("device entry", (name) => DEVICE_ENTRIES[next++] ?? name)
      .replaceAll(/^/gm, "  ");
  }

  async #say(text: string): Promise<void> {
    await this.#streams.write(`${text}\n`);
  }
}

/** Page of a byte address. */
function page(address: bigint): number {
  return Number(address >> 12n);
}

/** Flags of MAP as text. */
function flagsText(flags: number): string {
  return ((flags & 1) !== 0 ? "r" : "") + ((flags & 2) !== 0 ? "w" : "");
}
