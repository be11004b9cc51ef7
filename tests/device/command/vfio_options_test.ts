/** `--vfio`: what it takes, what it opens, and the one line that says what is wrong. */
import { assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { ApiError } from "../../../device/api/mod.ts";
import { InheritedDescriptors } from "../../../device/command/descriptor_source.ts";
import { UsageError } from "../../../device/command/errors.ts";
import { EndpointControl, openEndpoints } from "../../../device/command/endpoint_control.ts";
import { parseVfio, vfio } from "../../../device/command/vfio_options.ts";
import { ServedEndpoints } from "../../../device/endpoint/mod.ts";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { HostDevices } from "../../../device/vfio/mod.ts";
import { descriptorCount } from "../host/host_state.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { DENO } from "../served_process.ts";
import { FakeHost } from "../vfio/fake_host.ts";
import { viommu } from "./in_process.ts";
import { namesIn, withFolder } from "./test_folder.ts";

Deno.test("--vfio takes two open files, or those of the VMM", () => {
  assertEquals(parseVfio("00:04.0,fd=11,iommufd=10"), {
    endpoint: 0x20,
    source: { device: 11, iommufd: 10 },
  });
  assertEquals(parseVfio("32,from=vmm"), { endpoint: 32, source: { wanted: undefined } });
  for (
    const [text, wanted] of [
      ["vfio12", "vfio12"],
      ["0000:0A:00.3", "0000:0a:00.3"],
      ["01:00.0", "0000:01:00.0"],
      ["10000:e1:00.0", "10000:e1:00.0"],
    ]
  ) {
    assertEquals(parseVfio(`32,device=${text},from=vmm`).source, { wanted });
  }
});

Deno.test("--vfio says in one line what is wrong with it", () => {
  const cases: readonly (readonly [text: string, problem: string])[] = [
    ["", "it must begin with an endpoint such as 00:03.0"],
    ["24", "it must have fd=N and iommufd=N, the two open files, or from=vmm"],
    ["24,fd=11", "it must have fd=N and iommufd=N"],
    ["24,iommufd=11", "it must have fd=N and iommufd=N"],
    ["24,fd=11,iommufd=11", "fd and iommufd are the same descriptor"],
    ["24,fd=x,iommufd=11", "fd must be a number from 0 to 2147483647"],
    ["24,from=qemu", "from must be vmm"],
    [
      "24,from=vmm,fd=11",
      "from=vmm takes the files that the VMM has open; leave out fd and iommufd",
    ],
    ["24,device=vfio0,fd=1,iommufd=2", "it goes with from=vmm"],
    ["24,from=vmm,device=eth0", "device must be a device of the host, such as vfio0 or"],
    ["24,from=vmm,device=1:2:3.4", "device must be a device of the host"],
    ["24,group=7", 'there is no part "group", only fd=…, iommufd=…, from=…, device=…'],
  ];
  for (const [text, problem] of cases) {
    const { message } = assertThrows(() => vfio.parse(text), UsageError);
    assertStringIncludes(message, `Cannot take --vfio ${text}: `);
    assertStringIncludes(message, problem);
  }
});

Deno.test("two devices of one /dev/iommu may name the same number, and every copy is closed at the end", async () => {
  using host = new FakeHost([7, 8]);
  const before = descriptorCount();
  const iommu = new IommuDevice(DEFAULT_OPTIONS);
  const log = new Log("warn", (line) => {
    throw new Error(line);
  });
  const numbers = [host.iommufd(), host.file(0), host.file(1)].map((each) => each.take());
  const [iommufd, first, second] = numbers;
  const endpoints = openEndpoints(
    [
      vfio.parse(`32,fd=${first},iommufd=${iommufd}`),
      vfio.parse(`40,fd=${second},iommufd=${iommufd}`),
    ],
    {
      iommu,
      log,
      access: {},
      descriptors: new InheritedDescriptors(),
      hostDevices: new HostDevices(log, host.places),
    },
  );
  assertEquals(
    endpoints.hostDevices.map(({ hostDevice }) => hostDevice?.address),
    host.devices.map(({ address }) => address),
  );
  assertEquals([...iommu.hosts.devices].length, 2);
  endpoints.close();
  assertEquals([...iommu.hosts.devices], []);
  iommu.close();
  await descriptorsClosed();
  assertEquals(descriptorCount(), before);
});

Deno.test("what QEMU has to be told of a device: its open files, or its address on the host", () => {
  assertEquals(vfio.parse("00:04.1,fd=11,iommufd=10").qemuArguments, [
    "-object iommufd,id=iommufd10,fd=10",
    "-device vfio-pci,id=vfio4.1,fd=11,iommufd=iommufd10,addr=4.1",
  ]);
  assertEquals(vfio.parse("00:04.0,from=vmm,device=01:00.0").qemuArguments, [
    "-object iommufd,id=iommufd0",
    "-device vfio-pci,id=vfio4,host=0000:01:00.0,iommufd=iommufd0,addr=4",
  ]);
  assertStringIncludes(vfio.parse("32,from=vmm").qemuArguments[1], "host=PCI");
});

Deno.test("qemu-args names a shared /dev/iommu once, and needs no IOMMU of QEMU's for devices of the host alone", async () => {
  const args = ["qemu-args", "--socket-path", "/s", "--arch", "x86_64"];
  const devices = ["--vfio", "32,fd=11,iommufd=10", "--vfio", "40,fd=12,iommufd=10"];
  const { out } = await viommu([...args, ...devices]);
  assertEquals(out.split("-object iommufd").length, 2);
  assertEquals(out.split("-device vfio-pci").length, 3);
  assertEquals(/intel-iommu|input-range/.test(out), false);
  const mixed = ["--endpoint-device", "rng:24,socket=/r"];
  const both = (await viommu([...args, ...devices, ...mixed])).out;
  assertStringIncludes(both, "-device intel-iommu,caching-mode=on");
  const arm = ["qemu-args", "--socket-path", "/s", "--arch", "aarch64"];
  assertStringIncludes((await viommu([...arm, ...devices])).out, "-device vfio-pci,id=vfio4,fd=11");
  const without = (await viommu([...arm, ...devices, ...mixed])).out;
  assertStringIncludes(without, "# QEMU's smmuv3 does not take vfio-pci");
  assertEquals(without.includes("-device vfio-pci"), false);
});

Deno.test("files of the VMM cannot be taken in a sandbox, which is said before anything is opened", async () => {
  const args = ["serve", "--socket-path", "/nowhere/s", "--vfio", "32,from=vmm"];
  const { code, err } = await viommu(args);
  assertEquals([code, err], [
    2,
    "viommu: Cannot take --vfio with from=vmm: the sandbox keeps serve from other processes; start it with --sandbox off, " +
    "or give the open files (fd=, iommufd=) (see viommu serve --help)\n",
  ]);
  const log = new Log("warn", () => {});
  const iommu = new IommuDevice(DEFAULT_OPTIONS);
  const endpoints = new ServedEndpoints(log);
  const control = new EndpointControl({
    ...{ endpoints, iommu, log, access: {}, otherSockets: [], isConfined: true },
    hostDevices: new HostDevices(log),
  });
  assertThrows(
    () => control.add("--vfio", "32,from=vmm"),
    ApiError,
    "Cannot take --vfio 32,from=vmm: the sandbox keeps serve from other processes",
  );
  iommu.close();
});

Deno.test("with --supervise no device of the host is taken, also later", async () => {
  const { code, err } = await viommu(
    ["serve", "--socket-path", "/nowhere/s", "--supervise", "--vfio", "32,fd=10,iommufd=11"],
  );
  assertEquals([code, err], [
    2,
    "viommu: Cannot take --vfio with --supervise: leave out one of them (see viommu serve --help)\n",
  ]);
  const log = new Log("warn", () => {});
  const iommu = new IommuDevice(DEFAULT_OPTIONS);
  const endpoints = new ServedEndpoints(log);
  const control = new EndpointControl({
    ...{ endpoints, iommu, log, access: {}, otherSockets: [], isSupervised: true },
    hostDevices: new HostDevices(log),
  });
  assertThrows(
    () => control.add("--vfio", "32,fd=0,iommufd=1"),
    ApiError,
    "Cannot take --vfio 32,fd=0,iommufd=1: serve runs with --supervise",
  );
  iommu.close();
});

/** Runs `serve` with open files until it ends by itself; what it says and its exit code. */
async function serve(option: string, files: string): Promise<readonly [code: number, err: string]> {
  let result: readonly [number, string] = [-1, ""];
  await withFolder(async (folder) => {
    const words = [Deno.execPath(), ...DENO, "serve", "--socket-path", `${folder}/s`];
    const { code, stderr } = await new Deno.Command("bash", {
      args: ["-c", `"$@" --vfio ${option} ${files}`, "bash", ...words],
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    assertEquals(await namesIn(folder), [], "a socket is left");
    result = [code, new TextDecoder().decode(stderr)];
  });
  return result;
}

Deno.test("serve ends with one line if an open file is none of a device", async () => {
  const cases: readonly (readonly [option: string, files: string, line: string])[] = [
    [
      "00:04.0,fd=20,iommufd=900",
      "20</dev/null",
      "Cannot use descriptor 900: EBADF; it was not inherited (deno task and npx do not pass descriptors on)",
    ],
    [
      "00:04.0,fd=20,iommufd=21",
      "20</dev/null 21</etc/passwd",
      "Cannot use descriptor 21 for endpoint 00:04.0: it cannot be /dev/iommu: it is /etc/passwd, no device",
    ],
    [
      "00:04.0,fd=20,iommufd=21",
      "20</dev/null 21</dev/zero",
      "Cannot use descriptor 21 for endpoint 00:04.0: it cannot be /dev/iommu: it is /dev/zero, device ",
    ],
    // A descriptor of the runtime's own, most likely, or none: either is no device.
    ["00:04.0,fd=20,iommufd=5", "20</dev/null", "Cannot use descriptor 5"],
  ];
  for (const [option, files, line] of cases) {
    const [code, err] = await serve(option, files);
    assertEquals(code, 1, err);
    assertMatch(err, /^viommu: [^\n]+\n$/);
    assertStringIncludes(err, `viommu: ${line}`);
  }
});
