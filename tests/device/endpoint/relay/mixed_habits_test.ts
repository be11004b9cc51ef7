/**
 * A relayed back end under front ends that are a random mix of those that there are: whichever way each step is done, and in
 * whichever order they come, the requests of the guest pass to the back end and back, and back ends may die at any time.
 *
 * `VIOMMU_TEST=full` tries more of them.
 */
import type { Vmm } from "../../vhost_user/vmm.ts";
import { RUNS } from "../../vhost_user/vmm_mix.ts";
import { tryMixes } from "../service_session.ts";
import { EchoDriver, ReplayedRelay } from "./replayed_relay.ts";

/** Uses of the device between two deaths of back ends. */
const LIFE = 3;

/** A driver under which back ends die: between its requests, and while it has many in flight. */
class UnluckyDriver extends EchoDriver {
  relay: ReplayedRelay | undefined;
  #uses = 0;
  #loads = 0;
  #replacing: Promise<void> | undefined;

  override async use(vmm: Vmm, buffer: number): Promise<void> {
    await this.#replacing;
    this.#replacing = undefined;
    if (++this.#uses % LIFE === 0) await this.relay!.replace();
    await super.use(vmm, buffer);
  }

  override load(vmm: Vmm): void {
    super.load(vmm);
    if (++this.#loads % 2 !== 0) this.#replacing = this.relay!.replace();
  }
}

Deno.test("relay: a front end that is a random mix of those that there are is served", () =>
  tryMixes(() => new ReplayedRelay(), RUNS));

Deno.test("relay: a front end that is a random mix is served while back ends die and others come", () =>
  tryMixes(() => {
    const driver = new UnluckyDriver();
    return driver.relay = new ReplayedRelay(driver);
  }, RUNS));
