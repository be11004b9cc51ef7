/** `viommu endpoint`: what it asks, what it prints, and the one line that says what is wrong. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { descriptorsClosed, UnixListener } from "../../../device/host/mod.ts";
import { until } from "../../until.ts";
import { EchoBackEnd } from "../endpoint/relay/echo_back_end.ts";
import { IOVA } from "../endpoint/relay/relay_world.ts";
import { descriptorCount } from "../host/host_state.ts";
import { HotplugWorld } from "../hotplug_world.ts";
import { FakeHost } from "../vfio/fake_host.ts";
import { type Outcome, viommu } from "./in_process.ts";

/** Runs `endpoint`. */
async function run(...args: readonly string[]): Promise<Outcome> {
  return await viommu(["endpoint", ...args]);
}

Deno.test("endpoint adds, lists and removes, and says what QEMU's monitor has to be told", async () => {
  await using world = new HotplugWorld();
  const api = ["--api-socket", world.path("api")];
  assertEquals(await run("list", ...api), {
    code: 0,
    out: "nothing is served behind the IOMMU\n",
    err: "",
  });
  const blk = `blk:01:00.0,socket=${world.path("blk")},file=${world.image("disk")},queues=2`;
  assertEquals(await run("add", ...api, "--endpoint-device", blk), {
    code: 0,
    out: [
      `blk 01:00.0 is served on ${
        world.path("blk")
      }; for QEMU's monitor, PORT being the port above bus 01:`,
      `  chardev-add socket,id=ep256,path=${world.path("blk")}`,
      "  device_add vhost-user-test-device-pci,chardev=ep256,virtio-id=2,config_size=60,num_vqs=2,vq_size=128," +
      "iommu_platform=on,id=dev256,bus=PORT,addr=0",
      "",
    ].join("\n"),
    err: "",
  });
  const sockets = `listen=${world.path("fe")},backend=${world.path("be")}`;
  assertEquals(
    (await run("add", ...api, "--endpoint-relay", `00:05.0,${sockets}`)).out,
    `relay 00:05.0 is served on ${world.path("fe")}\n`,
  );
  assertEquals(
    (await run("list", ...api)).out,
    `relay  00:05.0  ${world.path("fe")}, back end ${world.path("be")}, not connected\n` +
      `blk    01:00.0  ${world.path("blk")}, not connected\n`,
  );
  assertEquals(JSON.parse((await run("list", ...api, "--json")).out).length, 2);
  assertEquals((await run("remove", ...api, "01:00.0")).out, "01:00.0 is removed\n");
  assertEquals(JSON.parse((await run("remove", ...api, "40", "--json")).out), {
    endpoint: 40,
    drained: true,
  });
  assertEquals(world.endpoints.all, []);
});

Deno.test("endpoint remove says that a drain was cut", async () => {
  await using world = new HotplugWorld();
  using listener = UnixListener.listen(world.path("be"));
  world.control.add(
    "--endpoint-relay",
    `40,listen=${world.path("fe")},backend=${world.path("be")}`,
  );
  world.attach(40);
  const backEnd = await EchoBackEnd.accept(listener, { holds: true });
  world.owns(backEnd);
  const { queue } = await world.plug("fe");
  queue.driver.begin();
  queue.driver.addWritable(IOVA + 0x30_0000, 10);
  queue.driver.commit();
  queue.kick();
  await until(() => backEnd.held.length === 1, "the back end has it");
  const api = ["--api-socket", world.path("api")];
  assertEquals(await run("remove", ...api, "00:05.0", "--timeout-ms", "10"), {
    code: 0,
    out: "00:05.0 is removed before all that it had taken was done\n",
    err: "",
  });
});

Deno.test("what serve refuses is one line and exit code 1", async () => {
  await using world = new HotplugWorld("read");
  const api = ["--api-socket", world.path("api")];
  const device = ["--endpoint-device", `rng:24,socket=${world.path("x")}`];
  for (const args of [["add", ...api, ...device], ["remove", ...api, "24"]]) {
    const { code, out, err } = await run(...args);
    assertEquals([code, out], [1, ""]);
    assertEquals(
      err,
      "viommu: Cannot change what is behind the IOMMU: this socket allows reading the device's state only " +
        "(serve --api-access full allows it)\n",
    );
  }
  const { code, err } = await run("list", "--api-socket", "/nowhere/api.sock");
  assertEquals(code, 1);
  assertStringIncludes(err, "there is no such socket");
});

Deno.test("what is wrong with the arguments is said in one line, before anything is asked", async () => {
  const api = ["--api-socket", "/nowhere/api.sock"];
  const device = ["--endpoint-device", "rng:24,socket=/x"];
  const cases: readonly (readonly [readonly string[], string])[] = [
    [["list"], "without --api-socket PATH"],
    [api, "it must be list, add or remove"],
    [["plug", ...api], "Cannot do plug"],
    [["list", ...api, "x"], '"x"'],
    [["list", ...api, ...device], 'it belongs to "endpoint add"'],
    [["add", ...api, ...device, "--timeout-ms", "1"], 'it belongs to "endpoint remove"'],
    [["add", ...api], "Cannot add 0 endpoints"],
    [["add", ...api, ...device, "--endpoint-proxy", "24"], "Cannot add 2 endpoints"],
    [["add", ...api, ...device, ...device], "Cannot add 2 endpoints"],
    [["add", ...api, "--endpoint-device", "rng:24"], "socket=… is missing"],
    [["add", ...api, "--endpoint-relay", "24,listen=/a,backend=/b,type=gpu"], "other, blk, net"],
    [["add", ...api, "--endpoint-proxy", "24,listen=/a"], "backend=… is missing"],
    [["remove", ...api], "ENDPOINT is missing"],
    [["remove", ...api, "24", "25"], '"25"'],
    [["remove", ...api, "1:2:3"], "an endpoint such as 24"],
    [["remove", ...api, "24", "--timeout-ms", "60001"], "milliseconds from 0 to 60000"],
  ];
  for (const [args, part] of cases) {
    const { code, out, err } = await run(...args);
    assertEquals([code, out], [2, ""], args.join(" "));
    assertMatch(err, /^viommu: [^\n]+ \(see viommu endpoint --help\)\n$/);
    assertStringIncludes(err, part);
  }
});

Deno.test("endpoint add --vfio sends the open files, list shows the device, and remove closes every copy", async () => {
  using host = new FakeHost([7], ["0000:01:00.5"]);
  host.bind();
  await using world = new HotplugWorld("full", host.places);
  const api = ["--api-socket", world.path("api")];
  const before = descriptorCount();
  using iommufd = host.iommufd();
  using file = host.file(0);
  assertEquals(
    await run("add", ...api, "--vfio", `32,fd=${file.number},iommufd=${iommufd.number}`),
    {
      code: 0,
      out:
        "vfio 00:04.0 is added: 0000:01:00.0 of the host, group 7 with 0000:01:00.5, bound by the VMM, blocked\n",
      err: "",
    },
  );
  world.attach(0x20);
  assertEquals(
    (await run("list", ...api)).out,
    "vfio   00:04.0  0000:01:00.0 of the host, group 7 with 0000:01:00.5, bound by the VMM, in its domain\n",
  );
  const { out } = await viommu(["inspect", "state", ...api]);
  assertStringIncludes(
    out,
    "vfio 00:04.0: 0000:01:00.0 of the host, group 7 with 0000:01:00.5, bound by the VMM, in its domain",
  );
  const text = await (await fetchMetrics(world)).text();
  const labels = '{endpoint="00:04.0",device="0000:01:00.0"}';
  assertStringIncludes(text, `viommu_host_device_bound${labels} 1\n`);
  assertStringIncludes(text, `viommu_host_device_blocked${labels} 0\n`);
  assertEquals((await run("remove", ...api, "32")).out, "00:04.0 is removed\n");
  assertEquals(host.devices[0].device.isAttached, false);
  iommufd.close();
  file.close();
  await descriptorsClosed();
  await until(() => world.connections === 0, "the connections are closed");
  assertEquals(descriptorCount(), before);
});

Deno.test("endpoint add --vfio says in one line what cannot be", async () => {
  using host = new FakeHost();
  await using world = new HotplugWorld("full", host.places);
  const api = ["--api-socket", world.path("api")];
  using iommufd = host.iommufd();
  using file = host.file(0);
  const [one, other] = [iommufd.number, file.number];
  const cases: readonly (readonly [option: string, line: string])[] = [
    ["32,fd=900,iommufd=901", "Cannot use descriptor 900: EBADF; it was not inherited"],
    [
      `32,fd=${one},iommufd=${other}`,
      "Cannot use descriptor 1 for endpoint 00:04.0: it cannot be /dev/iommu: it is /dev/zero, ",
    ],
    [`0x1234,fd=${other},iommufd=${one}`, "Cannot serve a device at"],
  ];
  for (const [option, line] of cases) {
    const { code, out, err } = await run("add", ...api, "--vfio", option);
    assertEquals([code, out], [1, ""]);
    assertMatch(err, /^viommu: [^\n]+\n$/);
    assertStringIncludes(err, `viommu: ${line}`);
  }
  assertEquals(world.endpoints.all, []);
});

Deno.test("endpoint add --vfio …,from=vmm waits for a VMM", async () => {
  await using world = new HotplugWorld();
  const api = ["--api-socket", world.path("api")];
  const { out } = await run("add", ...api, "--vfio", "32,from=vmm,device=vfio0");
  assertEquals(out, "vfio 00:04.0 is added: no device of the host yet\n");
  assertEquals((await run("list", ...api)).out, "vfio   00:04.0  no device of the host yet\n");
  assertEquals((await run("remove", ...api, "32")).out, "00:04.0 is removed\n");
});

/** The metrics. */
async function fetchMetrics(world: HotplugWorld): Promise<Response> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: world.path("api") } });
  const response = await fetch("http://127.0.0.1/metrics", { client });
  return new Response(await response.text());
}

Deno.test("endpoint --help fits a terminal and has everything that can be added", async () => {
  const { code, out } = await run("--help");
  assertEquals(code, 0);
  assert(out.split("\n").every((line) => line.length <= 80), "a line is too long");
  for (const name of ["--endpoint-device", "--endpoint-relay", "--endpoint-proxy", "--vfio"]) {
    assertStringIncludes(out, `  ${name} `);
  }
});
