/**
 * A VMM with a scripted back end behind the proxy, and the guest that uses it: what the guest has mapped is known, and every
 * step of a replay ends with a look at whether the back end has the same translations.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { until } from "../../../until.ts";
import { type DeviceFacts, Vmm } from "../../vhost_user/vmm.ts";
import type { VmmHabits } from "../../vhost_user/vmm_habits.ts";
import { map, type ProxyWorld, unmap } from "./proxy_world.ts";
import { SCRIPTED_FEATURES, ScriptedBackEnd } from "./scripted_back_end.ts";

/** Both permissions. */
export const READ_WRITE = 3;
/** The config space. */
export const CONFIG = Uint8Array.from({ length: 20 }, (_, i) => i + 1);
/** MAPs in one batch. */
const LOAD = 12;
/** All that the IOMMU offers but INBAND_NOTIFICATIONS. */
export const PROTOCOL = 0x9_b22b;

/** A VMM with a back end behind the proxy, and the guest that uses it. */
export class ProxiedLife implements AsyncDisposable {
  readonly vmm: Vmm;
  readonly world: ProxyWorld;
  backEnd: ScriptedBackEnd | undefined;
  /** Frames by page, as the guest mapped them. */
  readonly #mapped = new Map<number, number>();
  #page = 0x100;

  constructor(habits: VmmHabits, world: ProxyWorld) {
    this.world = world;
    const facts: DeviceFacts = {
      features: SCRIPTED_FEATURES,
      protocol: PROTOCOL,
      queues: 2,
      config: CONFIG,
      ringShift: 0x1000_0000n,
    };
    this.vmm = new Vmm(habits, facts);
    this.vmm.newDriver();
  }

  /** Connects, to a back end that comes then. The session before has to have ended, or to end. */
  async open(): Promise<void> {
    const { vmm, world } = this;
    await until(() => !world.proxies[0].connected, "the proxy has seen the connection end");
    vmm.open(world.paths[0]);
    await this.#endBackEnd();
    this.backEnd = await ScriptedBackEnd.accept(world.listeners[0]!);
    this.backEnd.offers = PROTOCOL;
    this.backEnd.config = CONFIG;
  }

  async connect(again = false): Promise<void> {
    const { vmm } = this;
    const { habits } = vmm;
    await this.open();
    await vmm.play(...(again ? habits.reconnect ?? habits.connect : habits.connect)(vmm));
    await vmm.play(habits.read(0, CONFIG), ...habits.activate(vmm));
  }

  /** The guest maps and unmaps, and the back end has the same translations. */
  async works(frame = this.#page % 64): Promise<void> {
    const { world } = this;
    const page = this.#page++;
    assertEquals(await world.request(map(page, frame)), [0]);
    this.#mapped.set(page, frame);
    if (this.#mapped.size > 3) {
      const [oldest] = this.#mapped.keys();
      assertEquals(await world.request(unmap(oldest)), [0]);
      this.#mapped.delete(oldest);
    }
    await this.check();
  }

  /** The guest maps and unmaps many pages in one batch, and something else happens meanwhile. */
  async worksUnderLoad(meanwhile: () => Promise<void>): Promise<void> {
    const requests: Uint8Array[] = [];
    for (let i = 0; i < LOAD; i++) {
      const page = this.#page++;
      requests.push(map(page, page % 64));
      this.#mapped.set(page, page % 64);
      if (this.#mapped.size <= 3) continue;
      const [oldest] = this.#mapped.keys();
      requests.push(unmap(oldest));
      this.#mapped.delete(oldest);
    }
    const statuses = await this.world.batch(requests, meanwhile);
    assertEquals(statuses, requests.map(() => 0));
    await this.check();
  }

  /** What the guest has mapped is what the back end has, in the end; what it has not is gone at once. */
  async check(): Promise<void> {
    const backEnd = this.backEnd!;
    for (let page = this.#page - 8; page < this.#page + 8; page++) {
      if (this.#mapped.has(page)) continue;
      assertEquals(backEnd.userAddressOf(page * 4096, READ_WRITE), undefined);
    }
    const { regions, habits: { userOffset, name } } = this.vmm;
    for (const [page, frame] of this.#mapped) {
      // Memory may have gone from under a mapping: there is no user address to give then.
      const isThere = regions.some(({ guestAddress, size }) =>
        frame * 4096 >= guestAddress && frame * 4096 < guestAddress + size
      );
      if (!isThere) continue;
      const expected = BigInt(frame * 4096 + 5) + userOffset;
      await until(
        () => backEnd.userAddressOf(page * 4096 + 5, READ_WRITE) === expected,
        `${name}: the back end has page ${page}`,
      );
    }
  }

  async #endBackEnd(): Promise<void> {
    this.backEnd?.[Symbol.dispose]();
    await this.backEnd?.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.vmm[Symbol.dispose]();
    await this.#endBackEnd();
  }
}
