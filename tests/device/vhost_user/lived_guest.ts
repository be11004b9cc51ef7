/**
 * A guest with an endpoint of each kind: attached to a domain, in a bypass domain, given back, never attached.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { attachRequest, detachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { READ } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { IommuMachine } from "./iommu_machine.ts";

/** Status of a request that succeeded. */
export const OK = 0;
/** Status of a request that is invalid. */
export const INVAL = 4;
/** Status of a request that names what does not exist. */
export const NOENT = 6;
/** An endpoint with a page. */
export const TRANSLATED = 24;
/** One in a bypass domain. */
export const BYPASSING = 32;
/** One that was given back. */
export const GIVEN_BACK = 40;
/** One that was never attached. */
export const NEVER = 48;
/** All of them. */
export const ALL = [TRANSLATED, BYPASSING, GIVEN_BACK, NEVER];
/** Beginning of the warning of a guest that goes on. */
export const GOES_ON = "The guest goes on with mappings that this process does not have";

/** A MAP of a page. */
export function map(domain: number, page: number): Uint8Array<ArrayBuffer> {
  const virtStart = BigInt(page) * 4096n;
  return mapRequest({
    domain,
    virtStart,
    virtEnd: virtStart + 4095n,
    physStart: 0x3000n,
    flags: 3,
  });
}

/** What page 5 of each endpoint leads to, -1 for a fault. */
export function page5(
  { device }: IommuMachine,
  endpoints: readonly number[] = ALL,
): readonly number[] {
  return endpoints.map((endpoint) => {
    const walk = device.walk(endpoint, 5, READ);
    return walk.ok ? walk.frame : -1;
  });
}

/** A guest with an endpoint of each kind. */
export function busy(isPacked = false, bypass = true): IommuMachine {
  const machine = IommuMachine.start({ ...DEFAULT_OPTIONS, bypass }, isPacked);
  for (
    const request of [
      attachRequest(1, TRANSLATED),
      map(1, 5),
      attachRequest(2, BYPASSING, 1),
      attachRequest(1, GIVEN_BACK),
      detachRequest(1, GIVEN_BACK),
    ]
  ) assertEquals(machine.request(request), OK);
  assertEquals(page5(machine), [3, 5, bypass ? 5 : -1, bypass ? 5 : -1]);
  return machine;
}

/** A session with memory, before its first ring. */
export function reconnect(machine: IommuMachine): void {
  machine.disconnect();
  machine.connect();
  machine.addMemory();
}
