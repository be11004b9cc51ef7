/** `--endpoint-proxy`: its parts, its defaults, and the one line that says what is wrong. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../device/command/command.ts";
import {
  openEndpointProxies,
  parseEndpointProxies,
} from "../../../device/command/proxy_options.ts";
import { stateText } from "../../../device/command/inspect_text.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { openDescriptors, temporaryPath } from "../host/host_state.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { stateOf } from "../api/api_world.ts";

function parse(...texts: readonly string[]): ReturnType<typeof parseEndpointProxies> {
  return parseEndpointProxies({ "endpoint-proxy": [...texts] }, [0x28]);
}

Deno.test("an endpoint and two sockets are enough; every part can be given", () => {
  assertEquals(parse("00:03.0,listen=/a,backend=/b", "32,listen=/c,backend=/d"), [
    {
      endpoint: 24,
      listen: "/a",
      backEnd: "/b",
      backEndMode: "connect",
      writeOnly: "widen",
      timeout: 5000,
    },
    {
      endpoint: 32,
      listen: "/c",
      backEnd: "/d",
      backEndMode: "connect",
      writeOnly: "widen",
      timeout: 5000,
    },
  ]);
  const [all] = parse(
    "0x18,backend-mode=listen,write-only=keep,timeout-ms=100,listen=/a=b,backend=/b",
  );
  assertEquals(all, {
    endpoint: 24,
    listen: "/a=b",
    backEnd: "/b",
    backEndMode: "listen",
    writeOnly: "keep",
    timeout: 100,
  });
});

Deno.test("what is wrong is said in one line", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["x,listen=/a,backend=/b", "an endpoint such as 00:03.0"],
    ["24,backend=/b", "listen=… is missing"],
    ["24,listen=/a,backend=", "backend=… is missing"],
    ["24,listen=/a,backend=/a", "the same socket"],
    ["24,listen=/a,backend=/b,mode=x", 'Cannot take "mode=x"'],
    ["24,listen=/a,backend=/b,listen", 'Cannot take "listen"'],
    ["24,listen=/a,backend=/b,backend-mode=x", "connect or listen"],
    ["24,listen=/a,backend=/b,write-only=x", "widen or keep"],
    ["24,listen=/a,backend=/b,timeout-ms=0", "from 1 to 60000"],
    ["40,listen=/a,backend=/b", "00:05.0: it has a device already"],
  ];
  for (const [text, part] of cases) {
    const { message } = assertThrows(() => parse(text), UsageError);
    assertStringIncludes(message, part);
    assertEquals(message.includes("\n"), false);
  }
  assertThrows(() => parse("24,listen=/a,backend=/b", "24,listen=/c,backend=/d"), UsageError);
});

Deno.test("sockets are opened or none is; the state shows what each proxy has done", () => {
  const before = openDescriptors().length;
  const iommu = new IommuDevice({
    ...DEFAULT_OPTIONS,
    endpoints: [{ first: 0, last: 31, format: "vtd-ss" }],
  });
  const log = new Log("error");
  const [one, two, three] = [temporaryPath(), temporaryPath(), temporaryPath()];
  const served = UnixListener.listen(three);
  const good = `24,listen=${one},backend=${two},backend-mode=listen`;
  for (
    const [bad, part] of [
      [`40,listen=${three},backend=/b`, "has a device"],
      [`25,listen=${three},backend=/b`, "another process serves it"],
      [`32,listen=/x,backend=/b`, "no --endpoint includes it"],
    ]
  ) {
    const { message } = assertThrows(
      () => openEndpointProxies(parse(good, bad), iommu, log),
      UsageError,
    );
    assertStringIncludes(message, part);
    assertEquals(iommu.iotlbListeners.hasRemotes, false);
  }
  served.close();
  const proxies = openEndpointProxies(parse(good), iommu, log);
  const context = { device: iommu, proxies, version: "0", connected: false };
  const state = stateOf(context);
  assertEquals(state.endpoints.map(({ id, proxy }) => [id, proxy?.connected, proxy?.misses]), [
    [24, false, 0],
  ]);
  assertStringIncludes(
    stateText(state),
    "proxy 00:03.0: 0 misses, 0 updates, 0 invalidations, 0 acknowledged in 0 us " +
      "(median; longest 0), 0 waits, 0 faults; not connected",
  );
  for (const proxy of proxies) proxy.close();
  iommu.close();
  assertEquals(openDescriptors().length, before);
});
