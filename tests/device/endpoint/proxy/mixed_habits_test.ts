/**
 * A proxied endpoint under front ends that are a random mix of those that there are: whichever way each step is done, and in
 * whichever order they come, the back end has the translations that the guest has made.
 *
 * `VIOMMU_TEST=full` tries more of them.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { descriptorsClosed } from "../../../../device/host/mod.ts";
import { mappingsOf, openDescriptors } from "../../host/host_state.ts";
import { VMMS } from "../../vhost_user/vmm_habits.ts";
import { mixed, RUNS } from "../../vhost_user/vmm_mix.ts";
import { lives, SteppedLife, type SteppedSession } from "../mixed_session.ts";
import { CONFIG, ProxiedLife } from "./proxied_life.ts";
import { attach, ProxyWorld } from "./proxy_world.ts";

/** A session with a proxied endpoint. */
function sessionOf(proxied: ProxiedLife): SteppedSession {
  return {
    vmm: proxied.vmm,
    config: CONFIG,
    works: (at) => proxied.works(at === undefined ? undefined : at / 4096),
    open: () => proxied.open(),
    plugged: () => {},
    underLoad: (stop, start) =>
      proxied.worksUnderLoad(async () => {
        await stop();
        await start();
      }),
  };
}

Deno.test("proxied: a front end that is a random mix of those that there are is served", async () => {
  const mapped = mappingsOf("vmm-");
  const before = openDescriptors();
  await fc.assert(
    fc.asyncProperty(lives, async ({ steps, identity, first, seed }) => {
      await using world = await ProxyWorld.start();
      await world.request(attach());
      await using proxied = new ProxiedLife(mixed(VMMS[identity], false), world);
      const life = new SteppedLife(sessionOf(proxied));
      await life.begin(first, seed);
      for (const step of steps) await life.take(step);
      assertEquals(world.warnings.filter((line) => !line.includes("gets zeros")), []);
      assertEquals(world.counters.refused, 0);
    }),
    // Each message is passed by three parties in turn, which takes longer.
    { numRuns: Math.max(4, Math.floor(RUNS / 8)), endOnFailure: false },
  );
  await descriptorsClosed();
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf("vmm-"), mapped);
});
