/** `--endpoint` and `--resv`: what they say, and how they are refused. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UsageError } from "../../../device/command/errors.ts";
import { parseDeviceOptions } from "../../../device/command/device_options.ts";
import { RESV_MEM_MSI, RESV_MEM_RESERVED } from "../../../device/iommu/reserved_region.ts";

Deno.test("--endpoint names one endpoint or a range, and their format", () => {
  const texts = ["00:03.0", "0-0xffff", "8-00:02.0,format=smmuv3-s2"];
  assertEquals(parseDeviceOptions({ endpoint: texts }).endpoints, [
    { first: 24, last: 24, format: "vtd-ss" },
    { first: 0, last: 0xffff, format: "vtd-ss" },
    { first: 8, last: 16, format: "smmuv3-s2" },
  ]);
});

Deno.test("--resv names addresses, and the endpoints and the type of the region", () => {
  const resv = ["0x8000000-0x80fffff", "0-0xfff,type=msi,endpoint=8-9", "0-4095,endpoint=00:01.0"];
  assertEquals(parseDeviceOptions({ "msi-region": "none", resv }).reserved, [
    { firstPage: 0x8000, lastPage: 0x80ff, subtype: RESV_MEM_RESERVED },
    { firstPage: 0, lastPage: 0, subtype: RESV_MEM_MSI, firstEndpoint: 8, lastEndpoint: 9 },
    { firstPage: 0, lastPage: 0, subtype: RESV_MEM_RESERVED, firstEndpoint: 8, lastEndpoint: 8 },
  ]);
});

Deno.test("what is wrong with --endpoint or --resv is said in one line", () => {
  const cases: readonly (readonly ["endpoint" | "resv", string, string])[] = [
    ["endpoint", "9-8", "it must begin with an endpoint or a range of them"],
    ["endpoint", "8,format=x86", "format must be one of vtd-ss, "],
    ["endpoint", "8,fromat=vtd-ss", 'there is no part "fromat", did you mean format=…?'],
    ["endpoint", "8,format=vtd-ss,format=vtd-ss", "format=… is given twice"],
    ["resv", "0-4096", "it must begin with two page-aligned addresses"],
    ["resv", "0-4095,endpoint=x", "endpoint must be an endpoint or a range of them"],
    ["resv", "0-4095,type=ram", "type must be reserved or msi"],
  ];
  for (const [name, text, problem] of cases) {
    const { message } = assertThrows(() => parseDeviceOptions({ [name]: [text] }), UsageError);
    assertStringIncludes(message, `Cannot take --${name} ${text}: ${problem}`);
  }
});
