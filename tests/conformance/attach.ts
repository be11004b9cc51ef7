/**
 * ATTACH and DETACH: A1 to A8, D1 to D4, and the life of domains, L1 and L3.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, detachRequest } from "../../device/iommu/driver_requests.ts";
import { attach, detach, map, reaches, status, unmap } from "./requests.ts";
import type { Statement } from "./statement.ts";

/** Virtio 1.4, 5.13.6.3 and 5.13.6.4. */
export const ATTACH: readonly Statement[] = [
  {
    id: "A1",
    text: "ATTACH with a reserved field that is not zero is refused with INVAL",
    async run(dut) {
      for (let at = 16; at < 20; at++) {
        const bytes = attachRequest(1, 8);
        bytes[at] = 1;
        assertEquals(status(await dut.request(bytes, 4)), "INVAL");
      }
      assertEquals(await map(dut, 1, 0n, 0xfffn, 0n), "NOENT");
    },
  },
  {
    id: "A2",
    text: "ATTACH with an unknown flag is refused with INVAL",
    async run(dut) {
      for (const flags of [2, 0x80, 0x80000000, 3]) {
        assertEquals(await attach(dut, 1, 8, flags), "INVAL");
      }
    },
  },
  {
    id: "A2b",
    text: "the BYPASS flag is unknown without BYPASS_CONFIG",
    withoutNegotiating: 1 << 6,
    async run(dut) {
      assertEquals(await attach(dut, 1, 8, 1), "INVAL");
      assertEquals(await attach(dut, 1, 8), "OK");
    },
  },
  {
    id: "A3",
    text: "ATTACH of an endpoint that does not exist is answered with NOENT",
    configuration: { lastEndpoint: 0xff },
    async run(dut) {
      assertEquals(await attach(dut, 1, 0x100), "NOENT");
      assertEquals(await attach(dut, 1, 0xffffffff), "NOENT");
      assertEquals(await attach(dut, 1, 0xff), "OK");
    },
  },
  {
    id: "A4",
    text: "a second endpoint joins a domain and shares its mappings",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await attach(dut, 1, 16), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await reaches(dut, 8, 0x1000n), 0x5000n);
      assertEquals(await reaches(dut, 16, 0x1000n), 0x5000n);
    },
  },
  {
    id: "A5",
    text: "a BYPASS flag that disagrees with the domain is refused with INVAL and changes nothing",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await attach(dut, 2, 16, 1), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await attach(dut, 2, 8), "INVAL");
      assertEquals(await attach(dut, 1, 16, 1), "INVAL");
      assertEquals(await reaches(dut, 8, 0x1000n), 0x5000n);
      assertEquals(await reaches(dut, 16, 0x1000n), 0x1000n);
    },
  },
  {
    id: "A6",
    text: "ATTACH of an endpoint that is attached elsewhere moves it",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await attach(dut, 1, 16), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await attach(dut, 2, 8), "OK");
      assertEquals(await map(dut, 2, 0x1000n, 0x1fffn, 0x7000n), "OK");
      assertEquals(await reaches(dut, 8, 0x1000n), 0x7000n);
      assertEquals(await reaches(dut, 16, 0x1000n), 0x5000n);
    },
  },
  {
    id: "A6c",
    text: "ATTACH of an endpoint to the domain where it is changes nothing",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await reaches(dut, 8, 0x1000n), 0x5000n);
    },
  },
  {
    id: "A6b",
    text: "moving a domain's last endpoint ends the domain",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await attach(dut, 2, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "NOENT");
      assertEquals(await reaches(dut, 8, 0x1000n), undefined);
    },
  },
  {
    id: "A7",
    text:
      "an endpoint whose reserved region is mapped in the domain is refused with UNSUPP, and stays",
    configuration: { bypass: false, reserved: [{ range: "0x8000-0x8fff", endpoint: 16 }] },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x8000n, 0x8fffn, 0x5000n), "OK");
      assertEquals(await attach(dut, 2, 16), "OK");
      assertEquals(await map(dut, 2, 0x1000n, 0x1fffn, 0x7000n), "OK");
      assertEquals(await attach(dut, 1, 16), "UNSUPP");
      assertEquals(await reaches(dut, 16, 0x1000n), 0x7000n);
      assertEquals(await unmap(dut, 1, 0x8000n, 0x8fffn), "OK");
      assertEquals(await attach(dut, 1, 16), "OK");
      assertEquals(await map(dut, 1, 0x8000n, 0x8fffn, 0x5000n), "INVAL");
    },
  },
  {
    id: "A8",
    text: "an ATTACH that is not refused attaches, whatever the domain's number",
    async run(dut) {
      for (const domain of [0, 1, 0x7fffffff, 0x80000000, 0xffffffff]) {
        assertEquals(await attach(dut, domain, 8), "OK");
        assertEquals(await map(dut, domain, 0x1000n, 0x1fffn, 0x5000n), "OK");
        assertEquals(await reaches(dut, 8, 0x1000n), 0x5000n);
      }
    },
  },
  {
    id: "A-caps",
    text:
      "more domains than the device takes are refused with NOMEM, and served again after a DETACH",
    configuration: { maxDomains: 2 },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await attach(dut, 2, 16), "OK");
      assertEquals(await attach(dut, 3, 24), "NOMEM");
      assertEquals(await attach(dut, 2, 24), "OK", "a domain that is there takes any number");
      assertEquals(await map(dut, 3, 0x1000n, 0x1fffn, 0x5000n), "NOENT");
      assertEquals(await detach(dut, 1, 8), "OK");
      assertEquals(await attach(dut, 3, 8), "OK");
    },
  },
  {
    id: "A8b",
    text: "an endpoint in a bypass domain goes through untranslated, whatever the bypass byte says",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8, 1), "OK");
      assertEquals(await reaches(dut, 8, 0x1234n, "w"), 0x1234n);
    },
  },
  {
    id: "A8c",
    text: "an endpoint in a domain reaches its mappings only, although bypass is on",
    configuration: { bypass: true },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await reaches(dut, 8, 0x1000n), undefined);
    },
  },
  {
    id: "D1",
    text: "DETACH ignores the reserved field",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      const bytes = detachRequest(1, 8);
      bytes.fill(0xff, 12, 20);
      assertEquals(status(await dut.request(bytes, 4)), "OK");
    },
  },
  {
    id: "D2",
    text: "DETACH of an endpoint that does not exist is answered with NOENT",
    configuration: { lastEndpoint: 0xff },
    async run(dut) {
      assertEquals(await detach(dut, 1, 0x100), "NOENT");
    },
  },
  {
    id: "D3",
    text: "DETACH of an endpoint that is attached to nothing may be refused, and affects nothing",
    async run(dut) {
      assert(["OK", "INVAL", "NOENT"].includes(await detach(dut, 1, 8)));
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await detach(dut, 1, 8), "OK");
    },
  },
  {
    id: "D3b",
    text: "DETACH that names another domain detaches all the same, as Linux needs",
    async run(dut) {
      assertEquals(await attach(dut, 7, 8, 1), "OK");
      assertEquals(await detach(dut, 0, 8), "OK");
      assertEquals(await map(dut, 7, 0x1000n, 0x1fffn, 0x5000n), "NOENT");
    },
  },
  {
    id: "D4",
    text: "after DETACH the endpoint reaches no mapping, and the others of the domain still do",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await attach(dut, 1, 16), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await detach(dut, 1, 8), "OK");
      assertEquals(await reaches(dut, 8, 0x1000n), undefined);
      assertEquals(await reaches(dut, 16, 0x1000n), 0x5000n);
    },
  },
  {
    id: "L1",
    text: "a domain ends with its last DETACH, and its number begins anew at once",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await detach(dut, 1, 8), "OK");
      assertEquals(await unmap(dut, 1, 0x1000n, 0x1fffn), "NOENT");
      assertEquals(await attach(dut, 1, 8, 1), "OK");
      assertEquals(await detach(dut, 1, 8), "OK");
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x7000n), "OK");
      assertEquals(await reaches(dut, 8, 0x1000n), 0x7000n);
    },
  },
  {
    id: "L1b",
    text: "the number of a domain that has ended begins anew for another endpoint",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      assertEquals(await detach(dut, 1, 8), "OK");
      assertEquals(await attach(dut, 1, 16), "OK");
      assertEquals(await reaches(dut, 16, 0x1000n), undefined);
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x7000n), "OK");
      assertEquals(await reaches(dut, 16, 0x1000n), 0x7000n);
      assertEquals(await reaches(dut, 8, 0x1000n), undefined);
    },
  },
  {
    id: "L3",
    text: "mappings apply to endpoints that are attached after they were made",
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x200000n, 0x3fffffn, 0x40000000n), "OK");
      assertEquals(await attach(dut, 1, 16), "OK");
      assertEquals(await reaches(dut, 16, 0x212345n), 0x40012345n);
    },
  },
];
