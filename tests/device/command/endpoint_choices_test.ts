/** What `--endpoint-proxy` and `--endpoint-relay` have in common: an endpoint, two sockets, and how they are opened. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CommandError, UsageError } from "../../../device/command/errors.ts";
import { openEndpoints, parseEndpointChoices } from "../../../device/command/endpoint_control.ts";
import { endpointProxy, parseEndpointProxy } from "../../../device/command/proxy_options.ts";
import { endpointRelay, parseEndpointRelay } from "../../../device/command/relay_options.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import { InheritedDescriptors } from "../../../device/command/descriptor_source.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { HostDevices } from "../../../device/vfio/mod.ts";
import { openDescriptors, temporaryPath } from "../host/host_state.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";

const KINDS = [
  { option: endpointProxy, values: parseEndpointProxy },
  { option: endpointRelay, values: parseEndpointRelay },
];

Deno.test("an endpoint has one device, whatever options name it", () => {
  const texts: readonly (readonly [name: string, text: string])[] = [
    ["endpoint-device", "rng:24,socket=/a"],
    ["endpoint-device", "blk:00:03.0,socket=/a,file=/b"],
    ["endpoint-proxy", "24,listen=/a,backend=/b"],
    ["endpoint-relay", "0x18,listen=/a,backend=/b"],
  ];
  for (const [i, [name, text]] of texts.entries()) {
    for (const [other, first] of texts.slice(0, i + 1)) {
      const values = name === other
        ? { [name]: [first, text] }
        : { [other]: [first], [name]: [text] };
      const { message } = assertThrows(() => parseEndpointChoices(values), UsageError);
      assertEquals(
        message,
        `Cannot take --${name} for endpoint 00:03.0: it has a device already`,
      );
    }
  }
});

for (const { option, values } of KINDS) {
  const { definition: { name }, parse } = option;

  Deno.test(`--${name}: an endpoint and two sockets are enough; more can be said of the back end`, () => {
    const least = values("00:03.0,listen=/a,backend=/b");
    assertEquals([least.endpoint, least.listen, least.backEnd], [24, "/a", "/b"]);
    assertEquals([least.backEndMode, least.timeout], ["connect", 5000]);
    assertEquals(parse("24,listen=/a,backend=/b").listens, ["/a"]);
    const text = "0x20,backend-mode=listen,timeout-ms=100,listen=/a=b,backend=/b";
    const all = values(text);
    assertEquals([all.endpoint, all.listen, all.backEnd], [32, "/a=b", "/b"]);
    assertEquals([all.backEndMode, all.timeout], ["listen", 100]);
    assertEquals(parse(text).listens, ["/a=b", "/b"]);
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
    const log = new Log("error");
    const iommu = new IommuDevice({
      ...DEFAULT_OPTIONS,
      endpoints: [{ first: 0, last: 31, format: "vtd-ss" }],
    });
    try {
      const served = UnixListener.listen(temporaryPath());
      const [one, two, free, taken] = [
        temporaryPath(),
        temporaryPath(),
        temporaryPath(),
        served.path,
      ];
      const parts = {
        iommu,
        log,
        access: {},
        descriptors: new InheritedDescriptors(),
        hostDevices: new HostDevices(log),
      };
      const good = parse(`24,listen=${one},backend=${two},backend-mode=listen`);
      try {
        const cases: readonly (readonly [
          text: string,
          kind: typeof UsageError | typeof CommandError,
          problem: string,
        ])[] = [
          [`25,listen=${taken},backend=/b`, CommandError, "another process serves it"],
          [
            `25,listen=${free},backend=${taken},backend-mode=listen`,
            CommandError,
            "another process serves it",
          ],
          [`32,listen=${free},backend=/b`, UsageError, "00:04.0: no --endpoint includes it"],
        ];
        const count = openDescriptors().length;
        for (const [text, kind, problem] of cases) {
          const open = () => openEndpoints([good, parse(text)], parts);
          const { message } = assertThrows<Error>(open, kind);
          assertStringIncludes(message, problem);
          assertEquals(iommu.iotlbListeners.hasRemotes, false);
          assertEquals(openDescriptors().length, count);
        }
      } finally {
        served.close();
      }
      const endpoints = openEndpoints([good], parts);
      assertEquals(endpoints.all.map(({ endpoint, listen }) => [endpoint, listen]), [[24, one]]);
      endpoints.close();
    } finally {
      iommu.close();
    }
    assertEquals(openDescriptors().length, before);
  });
}
