/**
 * One history of hostile requests: every field at its edges, cut into pieces of any shape, between resets, bypass writes
 * and memory that is added and removed. Each answer is compared with that of a plain model of the specification.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/driver_requests.ts";
import { EndpointMemory } from "../../../device/endpoint/endpoint_memory.ts";
import type { DeviceOptions } from "../../../device/iommu/iommu_device.ts";
import { RESV_MEM_MSI, RESV_MEM_RESERVED } from "../../../device/iommu/reserved_region.ts";
import { READ, WRITE } from "../../../pagetable/mod.ts";
import type { MemoryRegion } from "../../../vring/mod.ts";
import type { Random } from "../../guest/random.ts";
import { HostileGuest, type Outcome, type Piece } from "./hostile_guest.ts";
import { type ModelLimits, RequestModel } from "./request_model.ts";

const LAST_ENDPOINT = 0xff;
const LIMITS: ModelLimits = {
  lastEndpoint: LAST_ENDPOINT,
  inputLast: 2n ** 48n - 1n,
  outputLast: 2n ** 52n - 1n,
  granule: 4096n,
  maxDomains: 4,
  maxMappings: 24,
  probeSize: 48,
  reserved: [
    { first: 0xfee00000n, last: 0xfeefffffn },
    { first: 0x8000n, last: 0x9fffn, endpoint: 16 },
  ],
};
const OPTIONS: DeviceOptions = {
  endpoints: [{ first: 0, last: LAST_ENDPOINT, format: "vtd-ss" }],
  reserved: [
    { firstPage: 0xfee00, lastPage: 0xfeeff, subtype: RESV_MEM_MSI },
    { firstPage: 8, lastPage: 9, subtype: RESV_MEM_RESERVED, firstEndpoint: 16, lastEndpoint: 16 },
  ],
  bypass: false,
  maxDomains: LIMITS.maxDomains,
  maxMappings: LIMITS.maxMappings,
  maxTableMemory: 2 << 20,
  tableBaseFrame: 2 ** 31,
};

const EDGES: readonly bigint[] = [
  0n,
  1n,
  0xfffn,
  0x1000n,
  0x1001n,
  0x1fffn,
  0x7fffn,
  0x8000n,
  0x9fffn,
  0xa000n,
  0x1fffffn,
  0x200000n,
  0x3fffffffn,
  0x40000000n,
  0xfedfffffn,
  0xfee00000n,
  0xfeefffffn,
  0xfef00000n,
  0xffffffffn,
  0x100000000n,
  ...[39n, 47n, 48n, 52n, 53n, 63n, 64n].flatMap((bits) =>
    [-4097n, -4096n, -4095n, -1n, 0n, 1n, 4095n, 4096n].map((off) => 2n ** bits + off)
  ).filter((value) => value < 2n ** 64n),
];
const DOMAINS = [0, 1, 1, 2, 2, 3, 4, 0x7fffffff, 0x80000000, 0xffffffff];
const ENDPOINTS = [8, 8, 16, 16, 24, 0, LAST_ENDPOINT, LAST_ENDPOINT + 1, 0x10008, 0xffffffff];
const TYPES = [1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 5];
const FLAGS = [1, 2, 3, 3, 3, 3, 7, 5, 0, 4, 8, 0x80000000, 0xffffffff];
/** Guest addresses at which there is never memory. */
const NOWHERE = [0x10000, 0xfffff000, 2 ** 40, 2 ** 52, 2 ** 53 - 4096, 2 ** 63];
/** Where memory comes and goes. */
const SPARE = 0x200000;

/** One guest's life. */
export class History {
  readonly #random: Random;
  readonly #guest: HostileGuest;
  readonly #model = new RequestModel(LIMITS);
  #spare: MemoryRegion | undefined;

  constructor(random: Random) {
    this.#random = random;
    this.#guest = new HostileGuest(OPTIONS, {
      packed: random.below(2) === 0,
      eventIndex: random.below(2) === 0,
      indirect: random.below(2) === 0,
    });
    this.#model.features = this.#guest.device.featuresLow;
  }

  run(inputs: number): void {
    this.#request(attachRequest(1, 8));
    this.#request(attachRequest(2, 16));
    for (let i = 2; i < inputs; i++) {
      this.#input();
      if (i % 25 === 24) this.#compare();
    }
    this.#compare();
    this.#serveWell();
    if (this.#spare !== undefined) this.#guest.removeMemory(this.#spare);
    this.#guest.close();
  }

  #input(): void {
    const random = this.#random;
    const { device } = this.#guest;
    switch (random.below(40)) {
      case 0:
        if (random.below(6) > 0) return;
        device.reset(random.pick(["device", "system"] as const));
        return this.#model.reset();
      case 1:
        return device.writeConfig(
          Uint8Array.from({ length: 1 + random.below(4) }, () => random.below(256)),
          random.below(37),
        );
      case 2:
        return this.#toggleMemory();
      case 3:
        return this.#access();
      case 4:
        return this.#guest.events(random.pick([0, 1, 16, 23, 24, 25, 64]));
      case 5:
        this.#model.features = device.featuresLow & random.pick([~0, ~0, ~0x20, ~0x40, 0]);
        return device.featuresAgreed(this.#model.features, 0);
      case 6:
        assertEquals(device.loadState(device.saveState()), undefined);
        return;
      case 7:
        if (random.below(6) > 0) return;
        return this.#breakRing();
      default:
        return this.#request(this.#bytes());
    }
  }

  #toggleMemory(): void {
    if (this.#spare === undefined) {
      this.#spare = this.#guest.addMemory(SPARE, new ArrayBuffer(0x8000));
    } else {
      this.#guest.removeMemory(this.#spare);
      this.#spare = undefined;
    }
  }

  #access(): void {
    const random = this.#random;
    const { device, memory } = this.#guest;
    const endpoint = new EndpointMemory(device, random.pick(ENDPOINTS), memory);
    const at = random.pick(EDGES);
    const length = 1 + random.below(9000);
    endpoint.resolve(Number(at & 0xfffn), length, random.below(2) === 0, Number(at >> 12n));
    endpoint.close();
  }

  /** Writes over the ring between the driver's last look and the device's: it serves or refuses, and stays sane. */
  #breakRing(): void {
    const random = this.#random;
    const bytes = new Uint8Array(1); // of no type, so that it does nothing wherever it is found
    const piece = { gap: 0, length: 1 };
    this.#guest.request(
      bytes,
      [piece],
      [],
      () => this.#guest.scribble(8, (limit) => random.below(limit)),
    );
    this.#guest.startQueues();
    // Other bytes of memory may have been taken for requests.
    this.#guest.device.reset("device");
    this.#model.reset();
  }

  /** A request: half of them make sense, half have every field anywhere. */
  #bytes(): Uint8Array {
    const random = this.#random;
    const type = random.below(20) === 0 ? random.pick([0, 6, 0x80, 0xff]) : random.pick(TYPES);
    const length = [20, 20, 20, 36, 28, 72][type] ?? 36;
    const wild = random.below(2) === 0;
    const bytes = new Uint8Array(length);
    const view = new DataView(bytes.buffer);
    bytes[0] = type;
    if (random.below(8) === 0) bytes.fill(random.below(256), 1, 4);
    const existing = [...this.#model.domains.keys()];
    const known = type !== 1 && existing.length > 0 && random.below(4) > 0;
    const domain = known ? random.pick(existing) : random.pick(wild ? DOMAINS : [1, 2, 3]);
    const endpoint = wild ? random.pick(ENDPOINTS) : random.pick([8, 16, 24]);
    view.setUint32(4, type === 5 ? endpoint : domain, true);
    if (type === 1 || type === 2) {
      view.setUint32(8, endpoint, true);
      view.setUint32(12, wild ? random.pick([0, 0, 1, 1, 2, 3, 0x80000000]) : 0, true);
      if (wild && random.below(4) === 0) bytes[16 + random.below(4)] = 1 + random.below(255);
    } else if (type === 3 || type === 4) {
      const [first, last] = wild ? this.#wildRange() : this.#tameRange();
      view.setBigUint64(8, first, true);
      view.setBigUint64(16, last, true);
      if (type === 3) {
        const phys = wild && random.below(2) === 0
          ? random.pick(EDGES)
          : BigInt(random.below(0x400)) * 0x1000n;
        view.setBigUint64(24, phys, true);
        view.setUint32(32, wild ? random.pick(FLAGS) : 1 + random.below(3), true);
      } else if (wild && random.below(8) === 0) bytes[24 + random.below(4)] = 1;
    }
    const change = random.below(12);
    if (change === 0) return bytes.slice(0, random.below(length));
    if (change === 1) return Uint8Array.from([...bytes, ...new Uint8Array(random.below(300))]);
    return bytes;
  }

  #tameRange(): [bigint, bigint] {
    const vast = this.#random.below(16) === 0;
    const first = vast
      ? (1 + this.#random.below(8)) * 2 ** 28
      : this.#random.below(this.#random.pick([32, 256, 4096]));
    if (vast) {
      return [BigInt(first) * 0x1000n, BigInt(first + 2 ** this.#random.below(29)) * 0x1000n - 1n];
    }
    const pages = 1 + this.#random.below(this.#random.pick([1, 4, 32, 512]));
    return [BigInt(first) * 0x1000n, BigInt(first + pages) * 0x1000n - 1n];
  }

  #wildRange(): [bigint, bigint] {
    const random = this.#random;
    const first = random.pick(EDGES);
    const last = random.below(3) === 0
      ? random.pick(EDGES)
      : first + BigInt(random.below(4) * 0x1000) + 0xfffn;
    return [first, last % 2n ** 64n];
  }

  /** Cuts bytes into pieces, some of them empty, some perhaps nowhere. */
  #cut(length: number): readonly Piece[] {
    const random = this.#random;
    const pieces: Piece[] = [];
    let left = length;
    while (left > 0 || random.below(6) === 0) {
      if (pieces.length === 7) break;
      const here = pieces.length === 6 || random.below(3) > 0 ? left : random.below(left + 1);
      left -= here;
      const nowhere = random.below(40) === 0 ? { address: random.pick(NOWHERE) } : {};
      pieces.push({ gap: random.below(40), length: here, ...nowhere });
    }
    return pieces;
  }

  #request(bytes: Uint8Array): void {
    const random = this.#random;
    const { probeSize } = LIMITS;
    const type = RequestModel.typeOf(bytes);
    const usual = type === 5 ? probeSize + 4 : 4;
    const rooms = [0, 1, 3, 4, 5, 64, probeSize + 3, probeSize + 4, probeSize + 5, 4096];
    const room = random.below(6) === 0 ? random.pick(rooms) : usual;
    const readable = this.#cut(bytes.length);
    // The indirect tables have eight places.
    const writable = this.#cut(room).slice(0, 8 - readable.length);
    if (readable.length + writable.length === 0) return;
    const outcome = this.#guest.request(bytes, readable, writable);
    this.#judge(bytes, readable, writable, outcome);
  }

  #judge(
    bytes: Uint8Array,
    readable: readonly Piece[],
    writable: readonly Piece[],
    outcome: Outcome,
  ): void {
    const model = this.#model;
    const whole = hasNowhere(readable, 72) ? new Uint8Array(0) : bytes;
    const type = RequestModel.typeOf(whole);
    const room = writable.reduce((sum, { length }) => sum + length, 0);
    const { length, counted, written } = outcome;
    const text = `${[...bytes]} counted as ${counted}, length ${length}`;
    if (type === 0) return assertEquals([length, counted], [0, "0 UNSUPP"], text);
    if (room < 4) return assertEquals([length, counted], [0, `${type} INVAL`], text);
    const answerLength = type === 5 ? Math.min(LIMITS.probeSize, room - 4) + 4 : 4;
    const writableDamaged = hasNowhere(writable, answerLength);
    const refusals = model.refusals(whole, room);
    const [countedTypes, status] = counted.split(" ");
    assertEquals(countedTypes, `${type}`, text);
    if (status === "OK") {
      assertEquals([...refusals], [], text);
      model.apply(whole);
    } else {
      // Table memory may run out for what is a valid request; then nothing changes.
      const outOfMemory = status === "NOMEM" && (type === 1 || type === 3);
      const unwritable = type === 5 && writableDamaged && status === "INVAL";
      assert(refusals.has(status) || outOfMemory || unwritable, `${text}: not ${[...refusals]}`);
    }
    if (writableDamaged) return assertEquals(length, 0, text);
    assertEquals(length, answerLength, text);
    if (hasNowhere(writable, room)) return;
    const codes = ["OK", "IOERR", "UNSUPP", "DEVERR", "INVAL", "RANGE", "NOENT", "FAULT", "NOMEM"];
    assertEquals([...written.subarray(length - 4, length)], [codes.indexOf(status), 0, 0, 0], text);
    assert(written.subarray(length).every((byte) => byte === 0xa5), text);
  }

  /** The device's domains and translations are those of the model. */
  #compare(): void {
    const { device } = this.#guest;
    const model = this.#model;
    assertEquals(
      device.iommu.domains.map(({ id }) => id),
      [...model.domains.keys()].sort(byNumber),
    );
    for (const [id, expected] of model.domains) {
      const domain = device.iommu.domain(id)!;
      assertEquals(domain.bypass, expected.bypass);
      assertEquals([...domain.endpoints].map((each) => each.id).sort(byNumber), [
        ...[...expected.endpoints].sort(byNumber),
      ]);
      const listed = [];
      const cursor = domain.space.mappings(0);
      while (cursor.next()) {
        const { first, last, index, protection } = cursor;
        listed.push([BigInt(first), BigInt(last), BigInt(index), protection]);
      }
      const mappings = expected.mappings.toSorted((a, b) => a.first < b.first ? -1 : 1);
      assertEquals(
        listed,
        mappings.map((
          { first, last, phys, flags },
        ) => [first >> 12n, last >> 12n, phys >> 12n, flags]),
      );
      for (const endpoint of expected.endpoints) {
        for (const { first, last } of mappings) {
          for (const at of [first - 4096n, first, last, last + 4096n]) this.#walk(endpoint, at);
        }
      }
    }
  }

  #walk(endpoint: number, at: bigint): void {
    if (at < 0n) return;
    const domain = this.#model.domainOf(endpoint)!;
    const mapping = domain.mappings.find(({ first, last }) => first <= at && at <= last);
    for (const access of [READ, WRITE]) {
      const walk = this.#guest.device.walk(endpoint, Number(at >> 12n), access);
      const phys = mapping === undefined ? 0n : mapping.phys + at - mapping.first;
      // VT-d refuses what leads to the interrupt range, whatever the tables say (VT-d §3.14).
      const wanted = mapping !== undefined && (mapping.flags & access) !== 0 &&
        (phys < 0xfee00000n || phys > 0xfeefffffn);
      const place = `endpoint ${endpoint}, 0x${at.toString(16)}, access ${access}`;
      assertEquals(walk.ok, wanted, `${place}: ${walk.faultName} ${walk.faultCode}`);
      if (walk.ok) assertEquals(BigInt(walk.frame), phys >> 12n);
    }
  }

  /** After all that, a driver that behaves gets full service. */
  #serveWell(): void {
    const guest = this.#guest;
    guest.device.reset("device");
    guest.device.featuresAgreed(guest.device.featuresLow, 0);
    guest.startQueues();
    function ask(bytes: Uint8Array): void {
      const { written, length } = guest.request(
        bytes,
        [{ gap: 0, length: bytes.length }],
        [{ gap: 0, length: 4 }],
      );
      assertEquals([length, ...written], [4, 0, 0, 0, 0]);
    }
    const fields = { domain: 9, virtStart: 0n, virtEnd: 0x7fffn, physStart: 0x5000n, flags: 3 };
    ask(attachRequest(9, 24));
    ask(mapRequest(fields));
    assertEquals(guest.device.walk(24, 7, WRITE).frame, 12);
    ask(unmapRequest(9, 0n, 2n ** 64n - 1n));
    assertEquals(guest.device.walk(24, 7, WRITE).ok, false);
    ask(mapRequest({ ...fields, virtEnd: 0x3fffffffn, physStart: 0x40000000n }));
    ask(detachRequest(9, 24));
  }
}

/** Whether one of the first `count` bytes is nowhere. */
function hasNowhere(pieces: readonly Piece[], count: number): boolean {
  let at = 0;
  for (const { length, address } of pieces) {
    if (address !== undefined && length > 0 && at < count) return true;
    at += length;
  }
  return false;
}

function byNumber(a: number, b: number): number {
  return a - b;
}
