/**
 * A session with a device behind the IOMMU, for a front end that is a random mix (`mixed_session.ts`).
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import { TransportFeature } from "../../../device/vhost_user/mod.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { Vmm, type VmmRegion } from "../vhost_user/vmm.ts";
import { VMMS } from "../vhost_user/vmm_habits.ts";
import { mixed } from "../vhost_user/vmm_mix.ts";
import { loadAnswered } from "./device_lives.ts";
import { lives, SteppedLife, type SteppedSession } from "./mixed_session.ts";
import { BUFFER } from "./replayed_device.ts";
import type { ReplayedService } from "./replayed_service.ts";

/** The session. */
class ServiceSession implements SteppedSession {
  readonly vmm: Vmm;
  readonly #service: ReplayedService;

  constructor(vmm: Vmm, service: ReplayedService) {
    this.vmm = vmm;
    this.#service = service;
  }

  get config(): Uint8Array {
    return this.#service.driver.facts.config;
  }

  async works(at: number = BUFFER): Promise<void> {
    await this.#service.driver.use(this.vmm, at);
  }

  async open(): Promise<void> {
    await this.#service.open(this.vmm);
  }

  plugged({ guestAddress, size }: VmmRegion): void {
    this.#service.map(guestAddress, guestAddress + size - 1);
  }

  async underLoad(stop: () => Promise<void>, start: () => Promise<void>): Promise<void> {
    const { driver } = this.#service;
    driver.load(this.vmm);
    await stop();
    await start();
    await loadAnswered(this.vmm);
    driver.check(this.vmm);
  }

  async logs(): Promise<void> {
    const { vmm } = this;
    await this.works();
    const isLogged = ((vmm.agreed?.[0] ?? 0) & TransportFeature.LOG_ALL) !== 0;
    assertEquals(vmm.dirtyPages(vmm.log!).includes(BUFFER / 4096), isLogged);
  }
}

/** Tries random front ends on a device, each on one of its own. */
export async function tryMixes(serve: () => ReplayedService, runs: number): Promise<void> {
  const mapped = mappingsOf("vmm-");
  const before = openDescriptors();
  await fc.assert(
    fc.asyncProperty(lives, async ({ steps, isPacked, identity, first, seed }) => {
      await using service = serve();
      using vmm = new Vmm(mixed(VMMS[identity], isPacked), service.driver.facts);
      const life = new SteppedLife(new ServiceSession(vmm, service));
      await life.begin(first, seed);
      for (const step of steps) await life.take(step);
      assertEquals(service.complaints, []);
    }),
    { numRuns: runs, endOnFailure: false },
  );
  await descriptorsClosed();
  assertEquals(openDescriptors(), before);
  assertEquals(mappingsOf("vmm-"), mapped);
}
