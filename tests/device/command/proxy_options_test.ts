/** `--endpoint-proxy`: its own parts, and what a state shows of a proxy. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../device/command/errors.ts";
import { endpointProxy, parseEndpointProxy } from "../../../device/command/proxy_options.ts";
import { stateText } from "../../../device/command/inspect_text.ts";
import { ServedEndpoints } from "../../../device/endpoint/mod.ts";
import { InheritedDescriptors } from "../../../device/command/descriptor_source.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { HostDevices } from "../../../device/vfio/mod.ts";
import { temporaryPath } from "../host/host_state.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { stateOf } from "../api/api_world.ts";

Deno.test("write-only is widen unless it is given", () => {
  assertEquals(parseEndpointProxy("24,listen=/a,backend=/b").writeOnly, "widen");
  assertEquals(parseEndpointProxy("24,listen=/a,backend=/b,write-only=keep").writeOnly, "keep");
  for (
    const [part, problem] of [
      ["write-only=x", "write-only must be widen or keep"],
      ["memory=1M", 'there is no part "memory", only listen=…'],
    ]
  ) {
    const { message } = assertThrows(
      () => parseEndpointProxy(`24,listen=/a,backend=/b,${part}`),
      UsageError,
    );
    assertStringIncludes(message, problem);
  }
});

Deno.test("the state shows what each proxy has done", () => {
  const iommu = new IommuDevice(DEFAULT_OPTIONS);
  const log = new Log("error");
  const sockets = `listen=${temporaryPath()},backend=${temporaryPath()}`;
  const endpoints = new ServedEndpoints(log);
  try {
    endpoints.add(
      endpointProxy.parse(`24,${sockets}`).open({
        iommu,
        log,
        access: {},
        descriptors: new InheritedDescriptors(),
        hostDevices: new HostDevices(log),
      }),
    );
    const { proxies } = endpoints;
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
  } finally {
    endpoints.close();
    iommu.close();
  }
});
