/**
 * Runs the suite with our device and QEMU's and writes the verdicts into `docs/conformance.md`:
 * `deno run -A tests/conformance/table.ts`.
 *
 * @module
 */
import { prepareJudge } from "../oracle/judge.ts";
import { FrontEndDevice } from "./front_end_device.ts";
import { QemuDevice } from "./qemu_device.ts";
import { DOCUMENT, verdictsOf, withTable } from "./verdicts.ts";

const qemu = await prepareJudge("x86_64");
const ours = await verdictsOf((configuration, withoutNegotiating = 0) =>
  FrontEndDevice.open(configuration, withoutNegotiating, {
    packed: false,
    eventIndex: true,
    indirect: true,
    inOrder: false,
  })
);
const theirs = await verdictsOf((configuration, withoutNegotiating = 0) =>
  QemuDevice.open(qemu, configuration, withoutNegotiating)
);
const text = `The suite in \`tests/conformance\` drives a device through real queues: ours on a ` +
  `vhost-user socket, QEMU's built-in \`virtio-iommu-pci\` (version ${
    qemu.version.split(" ")[0]
  }) ` +
  `in a machine under qtest, with DMA of \`edu\` devices. A letter behind a number is one more case ` +
  `of the statement; M-…, U-example and L2b are its prose; D3b and E4 are what Linux can use but no ` +
  `MUST or SHOULD. A dash stands where a device cannot be configured as the case needs it. ` +
  `\`deno run -A tests/conformance/table.ts\` writes the table.`;
const document = await Deno.readTextFile(DOCUMENT);
await Deno.writeTextFile(
  DOCUMENT,
  withTable(document, text, [
    { title: "viommu", verdicts: ours },
    { title: "QEMU", verdicts: theirs },
  ]),
);
