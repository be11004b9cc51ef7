/** `--endpoint-device`: the parts of each type, and what QEMU is told. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../device/command/errors.ts";
import { endpointDevice, parseEndpointDevice } from "../../../device/command/endpoint_options.ts";

Deno.test("a device is a type, an endpoint and a socket; each type has parts of its own", () => {
  assertEquals(
    [
      "rng:00:03.0,socket=/a",
      "rng:0x20,seed=0xffffffff,socket=/b",
      "blk:40,socket=/c,file=/d=e",
      "blk:48,readonly,queues=64,serial=a disk,file=/d,socket=/c",
    ].map(parseEndpointDevice),
    [
      { type: "rng", endpoint: 24, socket: "/a", queues: 1, seed: undefined },
      { type: "rng", endpoint: 32, socket: "/b", queues: 1, seed: 0xffffffff },
      ...[
        { endpoint: 40, file: "/d=e", readOnly: false, serial: "viommu", queues: 1 },
        { endpoint: 48, file: "/d", readOnly: true, serial: "a disk", queues: 64 },
      ].map((each) => ({ type: "blk" as const, socket: "/c", ...each })),
    ],
  );
});

Deno.test("QEMU is told the queues of a device, and the slot of its endpoint", () => {
  const rng = endpointDevice.parse("rng:00:03.0,socket=/a");
  const blk = endpointDevice.parse("blk:00:04.2,socket=/b,file=/c,queues=2");
  const device = "-device vhost-user-test-device-pci,chardev=";
  assertEquals(rng.qemuArguments, [
    "-chardev socket,id=ep24,path=/a",
    `${device}ep24,virtio-id=4,config_size=0,num_vqs=1,vq_size=64,iommu_platform=on,addr=3`,
  ]);
  assertEquals(blk.qemuArguments, [
    "-chardev socket,id=ep34,path=/b",
    `${device}ep34,virtio-id=2,config_size=60,num_vqs=2,vq_size=128,iommu_platform=on,addr=4.2`,
  ]);
});

Deno.test("what is wrong with a device is said in one line", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["gpu:24,socket=/a", "it must begin with rng:ENDPOINT or blk:ENDPOINT"],
    ["24,socket=/a", "it must begin with rng:ENDPOINT or blk:ENDPOINT"],
    ["rng:x,socket=/a", "it must begin with rng:ENDPOINT or blk:ENDPOINT"],
    ["rng:24", "socket=… is missing"],
    ["rng:24,socket=/a,file=/b", 'there is no part "file", only socket=…, seed=…'],
    ["rng:24,socket=/a,seed=-1", "seed must be a number from 0 to 4294967295"],
    ["blk:24,socket=/a", "file=… is missing: it must be the path of an image"],
    ["blk:24,socket=/a,file=/b,readonly=on", "readonly takes no value"],
    ["blk:24,socket=/a,file=/b,queues=65", "queues must be a number from 1 to 64"],
    ["blk:24,socket=/a,file=/b,queues=0", "queues must be a number from 1 to 64"],
  ];
  for (const [text, problem] of cases) {
    const { message } = assertThrows(() => parseEndpointDevice(text), UsageError);
    assertStringIncludes(message, `Cannot take --endpoint-device ${text}: ${problem}`);
  }
});
