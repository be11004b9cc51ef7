/**
 * Front ends that are a mix of those that there are (`vmm_habits.ts`): each step the way that any of them does it.
 *
 * @module
 */
import fc from "fast-check";
import { ProtocolFeature, Request, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { longs, words } from "../../bytes.ts";
import { isLong } from "../../long_mode.ts";
import { type Message, RING_SIZE, type Vmm } from "./vmm.ts";
import { type VmmHabits, VMMS } from "./vmm_habits.ts";

/** How many mixes a test tries; `VIOMMU_TEST=full` tries more. */
export const RUNS = isLong ? 150 : 8;

/** Ways: which VMM's, by their place in {@linkcode VMMS}; for a start also one of its own, in the order of a seed. */
export type Way = number;

/** Any way to do a step that all of them do. */
export const way: fc.Arbitrary<Way> = fc.nat(VMMS.length - 1);
/** Any way to start the rings. */
export const startWay: fc.Arbitrary<Way> = fc.nat(VMMS.length);

/** Everything that any of them knows, so that each way is open. */
export function mixed(identity: VmmHabits, isPacked: boolean): VmmHabits {
  const [low, high] = identity.accepts;
  return {
    ...identity,
    name: `a mix with the addresses of ${identity.name}`,
    accepts: [
      low,
      isPacked ? high | TransportFeature.RING_PACKED : high & ~TransportFeature.RING_PACKED,
    ],
    wants: ~ProtocolFeature.INBAND_NOTIFICATIONS,
    transfersBy: "pipe",
    regions: identity.regions.slice(0, 24),
  };
}

/** Rings start in an order that no VMM has: what describes a ring, and then what starts it, each shuffled. */
function shuffledStart(vmm: Vmm, seed: number): Message[] {
  let state = seed;
  const toss = (below: number) => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return Math.floor(state / 65536) % below;
  };
  const shuffle = <T>(all: T[]) => all.sort(() => toss(3) - 1);
  const messages: Message[] = [];
  messages.push({ request: Request.SET_FEATURES, payload: words(...vmm.features) });
  const files = vmm.regions.map(({ file }) => file);
  messages.push({ request: Request.SET_MEM_TABLE, payload: vmm.table(), files });
  vmm.hasTable = true;
  vmm.agreed = vmm.features;
  shuffle(messages);
  for (const [i, ring] of shuffle([...vmm.rings.entries()])) {
    messages.push(
      ...shuffle<Message>([
        { request: Request.SET_VRING_NUM, payload: words(i, RING_SIZE) },
        { request: Request.SET_VRING_ADDR, payload: vmm.place(i) },
        { request: Request.SET_VRING_BASE, payload: words(i, vmm.bases[i]) },
      ]),
      ...shuffle<Message>([
        { request: Request.SET_VRING_KICK, payload: longs(i), files: [ring.kickEvent.descriptor] },
        { request: Request.SET_VRING_CALL, payload: longs(i), files: [ring.callEvent.descriptor] },
        { request: Request.SET_VRING_ERR, payload: longs(i), files: [ring.errorEvent.descriptor] },
        { request: Request.SET_VRING_ENABLE, payload: words(i, 1) },
      ]),
    );
  }
  return messages.map((message) => ({ ...message, needsReply: toss(2) === 0 }));
}

/** What starts the rings, one of the ways. */
export function startBy(vmm: Vmm, way: Way, seed: number): Message[] {
  return way < VMMS.length ? VMMS[way].activate(vmm) : shuffledStart(vmm, seed);
}
