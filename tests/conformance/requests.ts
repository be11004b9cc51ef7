/**
 * Short forms of requests for the statements of the conformance suite.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  probeRequest,
  statusName,
  unmapRequest,
} from "../../device/iommu/driver_requests.ts";
import { type Answer, type DeviceUnderTest, POISON } from "./subject.ts";

/** Bytes of a tail. */
const TAIL = 4;

/** Attaches and returns the name of the status. */
export async function attach(
  dut: DeviceUnderTest,
  domain: number,
  endpoint: number,
  flags = 0,
): Promise<string> {
  return status(await dut.request(attachRequest(domain, endpoint, flags), TAIL));
}

/** Detaches and returns the name of the status. */
export async function detach(
  dut: DeviceUnderTest,
  domain: number,
  endpoint: number,
): Promise<string> {
  return status(await dut.request(detachRequest(domain, endpoint), TAIL));
}

/** Maps [virtStart, virtEnd], readable and writable by default, and returns the name of the status. */
export async function map(
  dut: DeviceUnderTest,
  domain: number,
  virtStart: bigint,
  virtEnd: bigint,
  physStart: bigint,
  flags = 3,
): Promise<string> {
  const fields = { domain, virtStart, virtEnd, physStart, flags };
  return status(await dut.request(mapRequest(fields), TAIL));
}

/** Unmaps [virtStart, virtEnd] and returns the name of the status. */
export async function unmap(
  dut: DeviceUnderTest,
  domain: number,
  virtStart: bigint,
  virtEnd: bigint,
): Promise<string> {
  return status(await dut.request(unmapRequest(domain, virtStart, virtEnd), TAIL));
}

/** Probes with a property area of the given size. */
export function probe(dut: DeviceUnderTest, endpoint: number, size: number): Promise<Answer> {
  return dut.request(probeRequest(endpoint), size + TAIL);
}

/** The size of the property area that the configuration space names. */
export async function probeSizeOf(dut: DeviceUnderTest): Promise<number> {
  return new DataView((await dut.readConfig()).buffer).getUint32(32, true);
}

/** The status of an answer, which must be as long as its writable part: Linux accepts no other. */
export function status(answer: Answer): string {
  assertEquals(answer.length, answer.bytes.length, "The used length is not the writable length");
  // O3: the reserved bytes of the tail are zero.
  assertEquals([...answer.bytes.subarray(answer.length - 3)], [0, 0, 0], "The tail is not zeroed");
  return statusName(answer.bytes, answer.length);
}

/** Fails unless the request came back unchanged: used length 0, nothing written. */
export function assertUnwritten(answer: Answer): void {
  assertEquals(answer.length, 0);
  assertEquals(
    answer.bytes.every((byte) => byte === POISON),
    true,
    "The device wrote all the same",
  );
}

/** Whether an access is translated, and where to. */
export async function reaches(
  dut: DeviceUnderTest,
  endpoint: number,
  iova: bigint,
  access: "r" | "w" = "r",
): Promise<bigint | undefined> {
  const result = await dut.access(endpoint, iova, access);
  return result === "fault" ? undefined : result.phys;
}
