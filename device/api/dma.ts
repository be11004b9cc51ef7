/** `POST /v1/dma`: an access of an endpoint to guest memory. */
import { WRITE } from "../../pagetable/mod.ts";
import { readMemory, writeMemory } from "../../vring/mod.ts";
import { type Address, PAGE_SIZE, parseAddress, parseEndpoint, parseNumber } from "../address.ts";
import { EndpointMemory } from "../endpoint/endpoint_memory.ts";
import type { IommuDevice } from "../iommu/iommu_device.ts";
import { type ApiContext, ApiError } from "./context.ts";
import { parameter, parseAccess } from "./parameters.ts";
import { Work } from "./work.ts";
import { faultOf, type FaultState } from "./translate.ts";

/** The body of `POST /v1/dma`, not checked yet. */
export interface DmaBody {
  /** Endpoint id or PCI address. */
  readonly endpoint?: unknown;
  /** First byte. */
  readonly iova?: unknown;
  /** Bytes to read. */
  readonly length?: unknown;
  /** `r` or `w`. */
  readonly access?: unknown;
  /** Bytes to write, in hexadecimal or decoded already. */
  readonly data?: unknown;
}

/** What came of `POST /v1/dma`. */
export type DmaResult =
  | { /** What was read. */ readonly data: Uint8Array }
  | { /** Why nothing moved. */ readonly fault: FaultState }
  | Readonly<Record<string, never>>;

/** Bytes that one `POST /v1/dma` moves at most. */
const DMA_MAX = 1 << 20;

/** Bytes that become hexadecimal at a time. */
const HEX_PIECE = 32768;

/** `POST /v1/dma` as JSON, in pieces. */
export function* dmaPieces(
  context: ApiContext,
  body: DmaBody,
  work: Work,
): Generator<string, void> {
  const result = dma(context, body, work);
  if (!("data" in result)) {
    yield `${JSON.stringify(result)}\n`;
    return;
  }
  yield '{"data":"';
  for (let at = 0; at < result.data.length; at += HEX_PIECE) {
    work.add(HEX_PIECE >>> 10);
    yield result.data.subarray(at, at + HEX_PIECE).toHex();
  }
  yield '"}\n';
}

/**
 * `POST /v1/dma`: an access of an endpoint, all of it or nothing. A fault also goes to the guest.
 *
 * @throws {ApiError} If clients may not do that, or the parameters are wrong.
 */
export function dma(context: ApiContext, body: DmaBody, work: Work = new Work()): DmaResult {
  if (context.access !== "full") {
    throw new ApiError(
      403,
      "Cannot access guest memory: this socket allows reading the device's state only " +
        "(serve --api-access full allows it)",
    );
  }
  const access = parameter("access", textOf(body.access ?? "r"), parseAccess, "r or w");
  checkMembers(body, access);
  const endpoint = parameter(
    "endpoint",
    textOf(body.endpoint),
    parseEndpoint,
    "an endpoint such as 24, 0x18 or 00:03.0",
  );
  const iova = parameter("iova", textOf(body.iova), parseAddress, "a byte address such as 0x1000");
  if (context.device.endpoints.formatOf(endpoint) === undefined) {
    throw new ApiError(404, `There is no endpoint ${endpoint}`);
  }
  const form = `bytes in hexadecimal, at most ${DMA_MAX}`;
  const bytes = access === WRITE ? parseData(body.data, form) : new Uint8Array(
    parameter("length", textOf(body.length), parseDmaLength, `a number from 1 to ${DMA_MAX}`),
  );
  work.add(1 + Math.floor(bytes.length / PAGE_SIZE));
  const fault = endpointAccess(context.device, endpoint, iova, access, bytes);
  if (fault !== undefined) return { fault };
  return access === WRITE ? {} : { data: bytes };
}

/** Refuses a body with a member that the access does not use: what was meant by it would not be done. */
function checkMembers(body: DmaBody, access: number): void {
  const members = ["endpoint", "iova", "access", access === WRITE ? "data" : "length"];
  const unknown = Object.keys(body).find((name) => !members.includes(name));
  if (unknown === undefined) return;
  const what = access === WRITE ? "a write" : "a read";
  throw new ApiError(
    400,
    `Cannot take ${JSON.stringify(unknown)}: ${what} has ${members.join(", ")}`,
  );
}

/** Reads or writes guest memory as an endpoint does. Returns the fault, after which nothing has moved. */
function endpointAccess(
  device: IommuDevice,
  endpoint: number,
  iova: Address,
  access: number,
  bytes: Uint8Array,
): FaultState | undefined {
  const write = access === WRITE;
  const memory = new EndpointMemory(device, endpoint, device.memory);
  try {
    const { page, offset } = iova;
    let done = 0;
    while (done < bytes.length) {
      const piece = memory.resolve(offset + done, bytes.length - done, write, page);
      if (piece === 0) {
        const at = page + Math.floor((offset + done) / PAGE_SIZE);
        const walk = device.walk(endpoint, at, access);
        return walk.ok ? { reason: "no-memory", code: "0x0" } : faultOf(walk);
      }
      done += piece;
    }
    if (write) writeMemory(memory, offset, bytes, 0, bytes.length, page);
    else readMemory(memory, offset, bytes, 0, bytes.length, page);
    return undefined;
  } finally {
    memory.close();
  }
}

/**
 * A JSON text or number as text; null for anything else. A number beyond 2^53 may have been another in the body, and an
 * address is never rounded: it becomes a text that nothing takes.
 */
function textOf(value: unknown): string | null {
  if (typeof value === "number") {
    return Number.isInteger(value) && !Number.isSafeInteger(value)
      ? "a number beyond 2^53"
      : String(value);
  }
  return typeof value === "string" ? value : null;
}

/** A length of a DMA access. */
function parseDmaLength(text: string): number | undefined {
  const length = parseNumber(text, DMA_MAX);
  return length === 0 ? undefined : length;
}

/** The bytes to write: in hexadecimal, unless the body had so many that they are decoded already. */
function parseData(data: unknown, form: string): Uint8Array {
  if (!(data instanceof Uint8Array)) return parameter("data", textOf(data), parseBytes, form);
  if (data.length <= DMA_MAX) return data;
  throw new ApiError(400, `Cannot take data of ${data.length} bytes: it must be ${form}`);
}

/** Bytes in hexadecimal, of which there must be some. */
function parseBytes(text: string): Uint8Array | undefined {
  try {
    return text === "" ? undefined : Uint8Array.fromHex(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
