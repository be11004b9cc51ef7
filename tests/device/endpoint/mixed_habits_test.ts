/**
 * The devices behind the IOMMU under front ends that are a random mix of those that there are: whichever way each step is
 * done, and in whichever order they come, the device is served through the translations of its endpoint.
 *
 * `VIOMMU_TEST=full` tries more of them.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import { TransportFeature } from "../../../device/vhost_user/mod.ts";
import { until } from "../../until.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { Vmm, type VmmRegion } from "../vhost_user/vmm.ts";
import { VMMS } from "../vhost_user/vmm_habits.ts";
import { mixed, RUNS } from "../vhost_user/vmm_mix.ts";
import { EndpointWorld } from "./endpoint_world.ts";
import { lives, SteppedLife, type SteppedSession } from "./mixed_session.ts";
import { blk, BUFFER, LOAD, type ReplayedDevice, rng } from "./replayed_device.ts";

/** A session with a device behind the IOMMU. */
class EndpointSession implements SteppedSession {
  readonly vmm: Vmm;
  readonly #kind: ReplayedDevice;
  readonly #world: EndpointWorld;

  constructor(vmm: Vmm, kind: ReplayedDevice, world: EndpointWorld) {
    this.vmm = vmm;
    this.#kind = kind;
    this.#world = world;
  }

  get config(): Uint8Array {
    return this.#kind.facts.config;
  }

  async works(at: number = BUFFER): Promise<void> {
    await this.#kind.use(this.vmm, at);
  }

  async open(): Promise<void> {
    await until(() => !this.#world.service.connected, "the session before has ended");
    this.vmm.open(this.#world.path);
  }

  plugged({ guestAddress, size }: VmmRegion): void {
    this.#world.map(guestAddress, guestAddress + size - 1);
  }

  async underLoad(stop: () => Promise<void>, start: () => Promise<void>): Promise<void> {
    const { vmm } = this;
    this.#kind.load(vmm);
    await stop();
    await start();
    for (const ring of vmm.rings) {
      const tokens = new Set<number>();
      for (let i = 0; i < LOAD; i++) {
        assertEquals(await ring.reap(), true, `request ${i} is answered`);
        tokens.add(ring.driver.token);
      }
      assertEquals([tokens.size, ring.driver.inFlight], [LOAD, 0]);
    }
    this.#kind.check(vmm);
  }

  async logs(): Promise<void> {
    const { vmm } = this;
    await this.works();
    const isLogged = ((vmm.agreed?.[0] ?? 0) & TransportFeature.LOG_ALL) !== 0;
    assertEquals(vmm.dirtyPages(vmm.log!).includes(BUFFER / 4096), isLogged);
  }
}

for (const make of [rng, blk]) {
  Deno.test(`${make.name}: a front end that is a random mix of those that there are is served`, async () => {
    const before = openDescriptors();
    await fc.assert(
      fc.asyncProperty(lives, async ({ steps, isPacked, identity, first, seed }) => {
        using kind = make();
        await using world = new EndpointWorld(kind.device);
        world.attach();
        using vmm = new Vmm(mixed(VMMS[identity], isPacked), kind.facts);
        const life = new SteppedLife(new EndpointSession(vmm, kind, world));
        await life.begin(first, seed);
        for (const step of steps) await life.take(step);
        assertEquals([world.warnings, world.service.faults], [[], 0]);
      }),
      { numRuns: RUNS, endOnFailure: false },
    );
    await descriptorsClosed();
    assertEquals(openDescriptors(), before);
    assertEquals(mappingsOf("vmm-"), []);
  });
}
