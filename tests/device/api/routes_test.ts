import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { type ApiContext, ApiError } from "../../../device/api/mod.ts";
import { translate } from "../../../device/api/translate.ts";
import { stateText } from "../../../device/command/inspect_text.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { mappingsOf, stateOf } from "./api_world.ts";

/** The answer where an endpoint reaches nothing, whatever is asked. */
const BLOCKED = { fault: { reason: "blocked", code: "0x0" }, format: "vtd-ss", path: [] };

/** A guest with endpoint 8 in domain 2, a page and a 2 MiB block mapped, and one refused request. */
function busyGuest(): { guest: InProcessGuest; context: ApiContext } {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(2, 8), 4);
  const page = { domain: 2, virtStart: 0x5000n, virtEnd: 0x5fffn, physStart: 0x9000n, flags: 1 };
  guest.request(mapRequest(page), 4);
  guest.request(mapRequest(page), 4);
  guest.request(
    mapRequest({
      domain: 2,
      virtStart: 0x200000n,
      virtEnd: 0x3fffffn,
      physStart: 0x40000000n,
      flags: 7,
    }),
    4,
  );
  return { guest, context: { device: guest.device, version: "1.2.3", connected: true } };
}

Deno.test("state() shows domains, tables, endpoints and counts", () => {
  const { guest, context } = busyGuest();
  const state = stateOf(context);
  const table = state.domains[0].tables[0];
  assertEquals(state, {
    version: "1.2.3",
    connected: true,
    features: ["INPUT_RANGE", "DOMAIN_RANGE", "MAP_UNMAP", "PROBE", "MMIO", "BYPASS_CONFIG"],
    bypass: false,
    domains: [{
      id: 2,
      bypass: false,
      endpoints: [8],
      mappings: 2,
      pages: 513,
      tables: [{ format: "vtd-ss", levels: 4, root: table.root, tablePages: 4 }],
    }],
    endpoints: [{ id: 8, domain: 2, format: "vtd-ss", faults: 0 }],
    requests: { ATTACH: { OK: 1 }, MAP: { OK: 2, INVAL: 1 } },
    faults: { reported: 0, dropped: 0 },
  });
  guest.request(unmapRequest(2, 0n, 2n ** 64n - 1n), 4);
  assertEquals(stateOf(context).domains[0].tables[0].tablePages, 1);
  guest.close();
});

Deno.test("state(), translate() and inspect show what is blocked, and why", () => {
  const guest = new InProcessGuest();
  const { device } = guest;
  const context: ApiContext = { device, version: "1.2.3", connected: true };
  const query = new URLSearchParams({ endpoint: "8", iova: "0x1000" });
  assertEquals(stateOf(context).blocked, undefined);
  guest.request(attachRequest(2, 8), 4);
  device.disconnected();
  assertEquals(stateOf(context).blocked, 1);
  assertEquals(stateOf(context).endpoints, [
    { id: 8, domain: null, blocked: true, format: "vtd-ss", faults: 0 },
  ]);
  assertStringIncludes(
    stateText(stateOf(context)),
    "\nblocked   00:01.0: attached when the connection ended\n",
  );
  assertEquals(translate(context, query), BLOCKED);
  device.queueBegins(0, "used");
  guest.request(attachRequest(2, 16), 4);
  assertEquals(stateOf(context).blocked, "all");
  assertEquals(stateOf(context).endpoints, [{ id: 16, domain: 2, format: "vtd-ss", faults: 0 }]);
  assertStringIncludes(
    stateText(stateOf(context)),
    "\nblocked   all endpoints that the guest does",
  );
  assertEquals(translate(context, query), BLOCKED);
  device.reset("device");
  assertEquals(stateOf(context).blocked, undefined);
  guest.close();
});

Deno.test("state() and inspect show whose sessions failed, and nothing where none did", () => {
  const { guest, context } = busyGuest();
  assertEquals("failures" in stateOf(context), false);
  assertEquals("failures" in stateOf({ ...context, failures: {} }), false);
  assertEquals(stateText(stateOf(context)).includes("failures"), false);
  const state = stateOf({ ...context, failures: { "iommu": 1, "proxy 00:03.0": 2 } });
  assertEquals(state.failures, { "iommu": 1, "proxy 00:03.0": 2 });
  assertStringIncludes(
    stateText(state),
    "\nfailures  iommu 1, proxy 00:03.0 2: sessions ended, the log says why\n",
  );
  guest.close();
});

Deno.test("state() and inspect show which process serves for a holder, and how the last one ended", () => {
  const { guest, context } = busyGuest();
  assertEquals(/process|deaths/.test(stateText(stateOf(context))), false);
  const process = {
    ...{ pid: 12, holder: 10, generation: 3, startedAt: "2026-01-02T03:04:05.000Z", spare: true },
    ...{ deaths: 2, lastDeath: { at: "2026-01-02T03:04:04.000Z", signal: 9 } },
    pauses: { count: 2, medianMilliseconds: 8.25, longestMilliseconds: 14.5 },
  };
  assertEquals(stateOf({ ...context, process }).process, process);
  assertStringIncludes(
    stateText(stateOf({ ...context, process })),
    "\nprocess   12, number 3, since 2026-01-02T03:04:05.000Z, a spare is ready\n" +
      "deaths    2, the last 2026-01-02T03:04:04.000Z (signal 9); 2 pauses, " +
      "median 8.25 ms, longest 14.5 ms\n",
  );
  const fresh = { ...process, spare: false, deaths: 0, lastDeath: null };
  assertStringIncludes(
    stateText(stateOf({ ...context, process: fresh })),
    "no spare is ready\ndeaths    0;",
  );
  guest.close();
});

Deno.test("mappings() lists mappings by address, of one domain or all", () => {
  const { guest, context } = busyGuest();
  guest.request(attachRequest(3, 16), 4);
  const list = mappingsOf(context);
  assertEquals(list, [
    { domain: 2, iova: "0x5000", last: "0x5fff", phys: "0x9000", flags: "r" },
    { domain: 2, iova: "0x200000", last: "0x3fffff", phys: "0x40000000", flags: "rwm" },
  ]);
  assertEquals(mappingsOf(context, "domain=0x3"), []);
  assertThrows(() => mappingsOf(context, "domain=4"), ApiError, "no domain 4");
  guest.close();
});

Deno.test("translate() walks from the device tables to the leaf", () => {
  const { guest, context } = busyGuest();
  const answer = translate(context, new URLSearchParams("endpoint=8&iova=0x212345&access=w"));
  assert("phys" in answer);
  assertEquals(answer.phys, "0x40012345");
  assertEquals([answer.access, answer.pageSize, answer.format], ["rw", 2 ** 21, "vtd-ss"]);
  // Root entry, context entry, then levels 4 to 2 of the tables.
  assertEquals(answer.path.length, 5);
  assertEquals(answer.path.slice(2).map((entry) => entry.level), [4, 3, 2]);
  guest.close();
});

Deno.test("translate() shows what is mapped with the MMIO flag as device memory", () => {
  const endpoints = [{ first: 0, last: 0xffff, format: "smmuv3-s1" }];
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, endpoints });
  const context = { device: guest.device, version: "0", connected: false };
  guest.request(attachRequest(2, 8), 4);
  for (const flags of [3, 7]) {
    const virtStart = BigInt(flags) * 0x1000n;
    const virtEnd = virtStart + 0xfffn;
    guest.request(mapRequest({ domain: 2, virtStart, virtEnd, physStart: 0x9000n, flags }), 4);
  }
  for (const [iova, memory] of [["0x3000", "normal"], ["0x7000", "device"]]) {
    const answer = translate(context, new URLSearchParams(`endpoint=8&iova=${iova}&access=w`));
    assert("phys" in answer, JSON.stringify(answer));
    assertEquals(answer.memory, memory);
  }
  guest.close();
});

Deno.test("translate() answers a refused access with the hardware's fault", () => {
  const { guest, context } = busyGuest();
  function ask(query: string): unknown {
    return translate(context, new URLSearchParams(query));
  }
  const missing = { reason: "not-present", code: "0x6" }; // VT-d fault reason 6: read, not present
  const absent = translate(context, new URLSearchParams("endpoint=8&iova=0x6000"));
  assert("fault" in absent);
  assertEquals(absent.fault, missing);
  // Down to the entry that is not there.
  assertEquals(absent.path.map(({ table }) => table).join(" "), "root context L4 L3 L2 L1");
  assertEquals([absent.path[5].entry, absent.path[5].fields], ["0x0", { R: 0 }]);
  assertEquals(ask("endpoint=00:01.0&iova=20480&access=r"), {
    ...ask("endpoint=8&iova=0x5000") as object,
  });
  const answer = ask("endpoint=8&iova=0x5000&access=w") as { fault: { code: string } };
  assertEquals(answer.fault.code, "0x5"); // VT-d fault reason 5: write without permission
  assertEquals(ask("endpoint=16&iova=0"), BLOCKED);
  guest.close();
});

Deno.test("translate() of an endpoint in bypass leads to the same address", () => {
  const guest = new InProcessGuest();
  const context = { device: guest.device, version: "0", connected: false };
  assertEquals(translate(context, new URLSearchParams("endpoint=8&iova=0x1234")), {
    phys: "0x1234",
    access: "rw",
    pageSize: 4096,
    memory: "normal",
    format: "bypass",
    path: [],
  });
  guest.close();
});

Deno.test("translate() says which parameter is wrong", () => {
  const guest = new InProcessGuest();
  const context = { device: guest.device, version: "0", connected: false };
  const cases = [
    ["", "Parameter endpoint is missing"],
    ["endpoint=x&iova=0", "Cannot take endpoint=x"],
    ["endpoint=8", "Parameter iova is missing"],
    ["endpoint=8&iova=12z", "Cannot take iova=12z"],
    ["endpoint=8&iova=0&access=x", "Cannot take access=x"],
    ["endpoint=0x10000&iova=0", "There is no endpoint 65536"],
  ];
  for (const [query, message] of cases) {
    assertThrows(() => translate(context, new URLSearchParams(query)), ApiError, message);
  }
  guest.close();
});
