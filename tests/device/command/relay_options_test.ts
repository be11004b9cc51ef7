/** `--endpoint-relay`: its own parts, what QEMU is told, and what a state shows of a relay. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../device/command/errors.ts";
import { endpointRelay, parseEndpointRelay } from "../../../device/command/relay_options.ts";
import { stateText } from "../../../device/command/inspect_text.ts";
import { watchLines } from "../../../device/command/watch_text.ts";
import { ServedEndpoints } from "../../../device/endpoint/mod.ts";
import { InheritedDescriptors } from "../../../device/command/descriptor_source.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { HostDevices } from "../../../device/vfio/mod.ts";
import { temporaryPath } from "../host/host_state.ts";
import { stateOf } from "../api/api_world.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";

Deno.test("memory and type of a relay have standard values", () => {
  const least = parseEndpointRelay("00:03.0,listen=/a,backend=/b");
  const all = parseEndpointRelay("32,listen=/a,backend=/b,memory=3M,type=vsock");
  assertEquals([least.memory, least.type.name], [64 << 20, "other"]);
  assertEquals([all.memory, all.type.name], [3 << 20, "vsock"]);
});

Deno.test("what is wrong with memory or type of a relay is said in one line", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["memory=1000", "memory must be a size from 1M to 1G"],
    ["memory=2G", "memory must be a size from 1M to 1G"],
    ["type=gpu", "type must be one of other, blk, net, vsock, fs"],
    ["write-only=keep", 'there is no part "write-only", only listen=…'],
  ];
  for (const [part, problem] of cases) {
    const { message } = assertThrows(
      () => parseEndpointRelay(`24,listen=/a,backend=/b,${part}`),
      UsageError,
    );
    assertStringIncludes(message, problem);
  }
});

Deno.test("QEMU is told of a relayed device what its type says", () => {
  const fs = endpointRelay.parse("00:06.0,listen=/a,backend=/b,type=fs");
  const other = endpointRelay.parse("00:03.0,listen=/a,backend=/b");
  assertEquals(fs.qemuArguments, [
    "-chardev socket,id=ep48,path=/a",
    "-device vhost-user-test-device-pci,chardev=ep48,virtio-id=26,num_vqs=2,vq_size=128," +
    "config_size=40,iommu_platform=on,addr=6",
  ]);
  assertEquals(other.qemuArguments, []);
});

Deno.test("the state shows what each relay has done", () => {
  const iommu = new IommuDevice(DEFAULT_OPTIONS);
  const log = new Log("error");
  const sockets = `listen=${temporaryPath()},backend=${temporaryPath()}`;
  const endpoints = new ServedEndpoints(log);
  try {
    endpoints.add(
      endpointRelay.parse(`24,${sockets}`).open({
        iommu,
        log,
        access: {},
        descriptors: new InheritedDescriptors(),
        hostDevices: new HostDevices(log),
      }),
    );
    const { relays } = endpoints;
    const context = { device: iommu, relays, version: "0", connected: false };
    const state = stateOf(context);
    assertEquals(
      state.endpoints.map(({ id, device, relay }) => [id, device?.type, relay?.connected]),
      [[24, "relay", false]],
    );
    assertStringIncludes(
      stateText(state),
      "relay 00:03.0: 0 chains, 0 bytes to the back end, 0 to the guest, 0 in flight, " +
        "pool 0 of 64M (most 0, 0 stalls), 0 reconnects, " +
        "0 us in the back end (median; p99 0, longest 0); no back end is connected",
    );
    const sample = { state, time: 0 };
    assertStringIncludes(watchLines(sample, { state, time: 1000 })[0], "(relay)");
  } finally {
    endpoints.close();
    iommu.close();
  }
});
