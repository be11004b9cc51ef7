/**
 * Tests our device with the conformance suite: in this process, and served on a socket with every layout of rings that a
 * VMM can negotiate (`VIOMMU_TEST=full`; one of them otherwise).
 */
import { isLong } from "../long_mode.ts";
import { FrontEndDevice, type RingLayout } from "./front_end_device.ts";
import { InProcessDevice } from "./in_process_device.ts";
import type { OpenDevice } from "./subject.ts";
import { STATEMENTS } from "./statements.ts";

/** The layout that Linux negotiates with QEMU. */
const USUAL: RingLayout = { packed: false, eventIndex: true, indirect: true, inOrder: false };

/** Every combination. */
function* layouts(): Generator<RingLayout> {
  for (let bits = 0; bits < 16; bits++) {
    yield {
      packed: (bits & 8) !== 0,
      eventIndex: (bits & 4) !== 0,
      indirect: (bits & 2) !== 0,
      inOrder: (bits & 1) !== 0,
    };
  }
}

function layoutName(layout: RingLayout): string {
  const { packed, eventIndex, indirect, inOrder } = layout;
  const parts = [packed ? "packed ring" : "split ring"];
  if (eventIndex) parts.push("event index");
  if (indirect) parts.push("indirect");
  if (inOrder) parts.push("in order");
  return parts.join(", ");
}

/** Registers a test of a device for every statement. */
function putToSuite(name: string, open: OpenDevice): void {
  for (const statement of STATEMENTS) {
    Deno.test(`${statement.id}: ${statement.text} (${name})`, async () => {
      const dut = await open(statement.configuration ?? {}, statement.withoutNegotiating);
      try {
        await statement.run(dut);
      } finally {
        await dut.close();
      }
    });
  }
}

putToSuite(
  "in process",
  (configuration, withoutNegotiating = 0) =>
    Promise.resolve(new InProcessDevice(configuration, withoutNegotiating)),
);

for (const layout of isLong ? layouts() : [USUAL]) {
  putToSuite(
    `on a socket, ${layoutName(layout)}`,
    (configuration, withoutNegotiating = 0) =>
      FrontEndDevice.open(configuration, withoutNegotiating, layout),
  );
}
