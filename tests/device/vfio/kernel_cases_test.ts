/** The cases of `kernel_cases.ts`, against a kernel of our own: one that maps files, and an older one. */
import { assertEquals } from "@std/assert";
import { descriptorCount } from "../host/host_state.ts";
import { fakeWorld } from "./fake_world.ts";
import { KERNEL_CASES } from "./kernel_cases.ts";

for (const mapsFiles of [true, false]) {
  for (const { name, needsGroup = false, run } of KERNEL_CASES) {
    Deno.test(`${name}${mapsFiles ? "" : ", in a kernel that maps no files"}`, async () => {
      const before = descriptorCount();
      {
        using world = fakeWorld(needsGroup ? 2 : 1, needsGroup);
        world.kernel.mapsFiles = mapsFiles;
        await run(world);
        // What is left is the VMM's, and nothing is attached: a page table would be there, too.
        assertEquals(world.kernel.objects, [...world.fakes.map(() => "device"), "ioas"]);
      }
      assertEquals(descriptorCount(), before);
    });
  }
}
