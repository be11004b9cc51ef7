/** What `--endpoint-proxy` and `--endpoint-relay` have in common: an endpoint, two sockets, and how they are opened. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../device/command/command.ts";
import { parseEndpointDevices } from "../../../device/command/endpoint_options.ts";
import {
  openEndpointProxies,
  parseEndpointProxies,
} from "../../../device/command/proxy_options.ts";
import { openEndpointRelays, parseEndpointRelays } from "../../../device/command/relay_options.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { openDescriptors, temporaryPath } from "../host/host_state.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";

const TAKEN = [0x28];
const log = new Log("error");

/** Both options, by name. */
const KINDS = {
  "endpoint-proxy": {
    parse: (...texts: string[]) => parseEndpointProxies({ "endpoint-proxy": texts }, TAKEN),
    open: (iommu: IommuDevice, ...texts: string[]) =>
      openEndpointProxies(parseEndpointProxies({ "endpoint-proxy": texts }, TAKEN), iommu, log),
  },
  "endpoint-relay": {
    parse: (...texts: string[]) => parseEndpointRelays({ "endpoint-relay": texts }, TAKEN),
    open: (iommu: IommuDevice, ...texts: string[]) =>
      openEndpointRelays(parseEndpointRelays({ "endpoint-relay": texts }, TAKEN), iommu, log),
  },
};

Deno.test("an endpoint has one device", () => {
  const both = ["24,listen=/a,backend=/b", "00:03.0,listen=/c,backend=/d"];
  for (const [name, { parse }] of Object.entries(KINDS)) {
    const refusal = `Cannot take --${name} for endpoint`;
    const taken = assertThrows(() => parse("40,listen=/a,backend=/b"), UsageError);
    assertEquals(taken.message, `${refusal} 00:05.0: it has a device already`);
    const twice = assertThrows(() => parse(...both), UsageError);
    assertEquals(twice.message, `${refusal} 00:03.0: it has a device already`);
  }
  const devices = ["rng:24,socket=/a", "blk:00:03.0,socket=/b,file=/c"];
  const { message } = assertThrows(
    () => parseEndpointDevices({ "endpoint-device": devices }),
    UsageError,
  );
  assertStringIncludes(message, "--endpoint-device for endpoint 00:03.0: it has a device already");
});

for (const [name, { parse, open }] of Object.entries(KINDS)) {
  Deno.test(`--${name}: an endpoint and two sockets are enough; more can be said of the back end`, () => {
    const [least, all] = parse(
      "00:03.0,listen=/a,backend=/b",
      "0x20,backend-mode=listen,timeout-ms=100,listen=/a=b,backend=/b",
    );
    const { endpoint, listen, backEnd, backEndMode, timeout } = least;
    assertEquals([endpoint, listen, backEnd], [24, "/a", "/b"]);
    assertEquals([backEndMode, timeout], ["connect", 5000]);
    assertEquals([all.endpoint, all.listen, all.backEnd], [32, "/a=b", "/b"]);
    assertEquals([all.backEndMode, all.timeout], ["listen", 100]);
  });

  Deno.test(`--${name}: what is wrong with the back end is said in one line`, () => {
    const cases: readonly (readonly [string, string])[] = [
      ["x,listen=/a,backend=/b", "an endpoint such as 00:03.0"],
      ["24,backend=/b", "listen=… is missing"],
      ["24,listen=/a", "backend=… is missing"],
      ["24,listen=/a,backend=/a", "listen and backend are the same socket"],
      ["24,listen=/a,backend=/b,backend-mode=x", "backend-mode must be connect or listen"],
      ["24,listen=/a,backend=/b,timeout-ms=0", "timeout-ms must be a number from 1 to 60000"],
      ["24,listen=/a,backend=/b,timeout-ms=60001", "timeout-ms must be a number from 1 to 60000"],
    ];
    for (const [text, problem] of cases) {
      const { message } = assertThrows(() => parse(text), UsageError);
      assertStringIncludes(message, `Cannot take --${name} ${text}: `);
      assertStringIncludes(message, problem);
    }
  });

  Deno.test(`--${name}: all sockets are opened, or none is`, () => {
    const before = openDescriptors().length;
    const paths = [temporaryPath(), temporaryPath()];
    const good = `24,listen=${paths[0]},backend=${paths[1]},backend-mode=listen`;
    const iommu = new IommuDevice({
      ...DEFAULT_OPTIONS,
      endpoints: [{ first: 0, last: 31, format: "vtd-ss" }],
    });
    try {
      const served = UnixListener.listen(temporaryPath());
      try {
        const taken = served.path;
        const cases: readonly (readonly [text: string, problem: string])[] = [
          [`25,listen=${taken},backend=/b`, "another process serves it"],
          [
            `25,listen=${temporaryPath()},backend=${taken},backend-mode=listen`,
            "another process serves it",
          ],
          ["32,listen=/x,backend=/b", "00:04.0: no --endpoint includes it"],
        ];
        const count = openDescriptors().length;
        for (const [bad, problem] of cases) {
          const { message } = assertThrows(() => open(iommu, good, bad), UsageError);
          assertStringIncludes(message, problem);
          assertEquals(iommu.iotlbListeners.hasRemotes, false);
          assertEquals(openDescriptors().length, count);
        }
      } finally {
        served.close();
      }
      for (const each of open(iommu, good)) each.close();
    } finally {
      iommu.close();
    }
    assertEquals(openDescriptors().length, before);
  });
}
