/** `--endpoint-relay`: its parts, its defaults, and the one line that says what is wrong. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../device/command/command.ts";
import {
  openEndpointRelays,
  parseEndpointRelays,
  relayQemuArguments,
} from "../../../device/command/relay_options.ts";
import { stateText } from "../../../device/command/inspect_text.ts";
import { watchLines } from "../../../device/command/watch_text.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { openDescriptors, temporaryPath } from "../host/host_state.ts";
import { stateOf } from "../api/api_world.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";

function parse(...texts: readonly string[]): ReturnType<typeof parseEndpointRelays> {
  return parseEndpointRelays({ "endpoint-relay": [...texts] }, [0x28]);
}

Deno.test("an endpoint and two sockets are enough for a relay; every part can be given", () => {
  const [least] = parse("00:03.0,listen=/a,backend=/b");
  assertEquals({ ...least, type: least.type.name }, {
    endpoint: 24,
    listen: "/a",
    backEnd: "/b",
    backEndMode: "connect",
    memory: 64 << 20,
    timeout: 5000,
    type: "other",
  });
  const [all] = parse(
    "0x18,backend-mode=listen,memory=3M,timeout-ms=100,listen=/a=b,backend=/b,type=vsock",
  );
  assertEquals({ ...all, type: all.type.name }, {
    endpoint: 24,
    listen: "/a=b",
    backEnd: "/b",
    backEndMode: "listen",
    memory: 3 << 20,
    timeout: 100,
    type: "vsock",
  });
});

Deno.test("QEMU is told of a relayed device what its type says", () => {
  const [fs, other] = parse(
    "00:06.0,listen=/a,backend=/b,type=fs",
    "00:03.0,listen=/a,backend=/b",
  );
  assertEquals(relayQemuArguments(fs), [
    "-chardev socket,id=ep48,path=/a",
    "-device vhost-user-test-device-pci,chardev=ep48,virtio-id=26,num_vqs=2,vq_size=128," +
    "config_size=40,iommu_platform=on,addr=6",
  ]);
  assertEquals(relayQemuArguments(other), []);
});

Deno.test("what is wrong with a relay is said in one line", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["x,listen=/a,backend=/b", "an endpoint such as 00:03.0"],
    ["24,backend=/b", "listen=… is missing"],
    ["24,listen=/a,backend=", "backend=… is missing"],
    ["24,listen=/a,backend=/a", "the same socket"],
    ["24,listen=/a,backend=/b,write-only=keep", 'Cannot take "write-only=keep"'],
    ["24,listen=/a,backend=/b,backend-mode=x", "connect or listen"],
    ["24,listen=/a,backend=/b,memory=1000", "from 1M to 1G"],
    ["24,listen=/a,backend=/b,memory=2G", "from 1M to 1G"],
    ["24,listen=/a,backend=/b,timeout-ms=0", "from 1 to 60000"],
    ["24,listen=/a,backend=/b,type=gpu", "other, blk, net, vsock, fs"],
    ["40,listen=/a,backend=/b", "00:05.0: it has a device already"],
  ];
  for (const [text, part] of cases) {
    const { message } = assertThrows(() => parse(text), UsageError);
    assertStringIncludes(message, part);
    assertEquals(message.includes("\n"), false);
  }
  assertThrows(() => parse("24,listen=/a,backend=/b", "24,listen=/c,backend=/d"), UsageError);
});

Deno.test("relays are opened or none is; the state shows what each has done", () => {
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
      [`25,listen=${three},backend=/b`, "another process serves it"],
      [`25,listen=${temporaryPath()},backend=${three},backend-mode=listen`, "another process"],
      [`32,listen=/x,backend=/b`, "no --endpoint includes it"],
    ]
  ) {
    const { message } = assertThrows(
      () => openEndpointRelays(parse(good, bad), iommu, log),
      UsageError,
    );
    assertStringIncludes(message, part);
  }
  served.close();
  const relays = openEndpointRelays(parse(good), iommu, log);
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
  for (const relay of relays) relay.close();
  iommu.close();
  assertEquals(openDescriptors().length, before);
});
