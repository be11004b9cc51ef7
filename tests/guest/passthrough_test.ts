/** What needs a real `/dev/iommu` and a device behind a real IOMMU, in an L1 guest that has both. */
import { type Lab, labTests } from "./lab/mod.ts";
import { edu, prepareL1, runInL1 } from "./l1_machine.ts";
import { temporaryFolder } from "./temporary_folder.ts";

/** A program in L1. */
function program(name: string): URL {
  return new URL(`l1/${name}.ts`, import.meta.url);
}

async function hostDma(lab: Lab, context: Deno.TestContext): Promise<void> {
  await using folder = await temporaryFolder();
  const devices = edu("addr=4");
  await runInL1(lab, folder.path, { program: program("host_dma"), devices }, context);
}

await labTests(prepareL1, {
  "The lab's L1 guest has an iommufd that translates a device's DMA": hostDma,
});
