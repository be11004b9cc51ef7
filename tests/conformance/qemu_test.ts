/**
 * QEMU's built-in device passes and fails the statements as in the table in `docs/conformance.md`.
 *
 * It need not pass: the test fails if a verdict changes, with another QEMU or another suite.
 */
import { assertEquals } from "@std/assert";
import { labTests, type Qemu } from "../guest/lab/mod.ts";
import { prepareJudge } from "../oracle/judge.ts";
import { QemuDevice } from "./qemu_device.ts";
import { STATEMENTS } from "./statements.ts";
import { DOCUMENT, readColumn, verdictsOf } from "./verdicts.ts";

async function compareWithTable(qemu: Qemu): Promise<void> {
  const verdicts = await verdictsOf((configuration, withoutNegotiating = 0) =>
    QemuDevice.open(qemu, configuration, withoutNegotiating)
  );
  assertEquals(verdicts, readColumn(await Deno.readTextFile(DOCUMENT), "QEMU"));
}

await labTests(() => prepareJudge("x86_64"), {
  "QEMU's virtio-iommu-pci passes and fails what docs/conformance.md says": compareWithTable,
});

Deno.test("docs/conformance.md names every statement of the suite, and ours passes them all", async () => {
  const column = readColumn(await Deno.readTextFile(DOCUMENT), "viommu");
  assertEquals([...column.keys()], STATEMENTS.map(({ id }) => id));
  assertEquals([...column.values()].filter((verdict) => verdict !== "yes"), []);
});
