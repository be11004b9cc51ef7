/**
 * A proxied endpoint under the front ends of five VMMs (`vmm_habits.ts`): every answer byte by byte, and after every step the
 * back end has the translations that the guest has made, to the front end's own addresses.
 */
import { assert, assertEquals } from "@std/assert";
import { descriptorsClosed } from "../../../../device/host/mod.ts";
import { ProtocolFeature, Request } from "../../../../device/vhost_user/mod.ts";
import { isLong } from "../../../long_mode.ts";
import { until } from "../../../until.ts";
import { mappingsOf, openDescriptors } from "../../host/host_state.ts";
import { type VmmHabits, VMMS } from "../../vhost_user/vmm_habits.ts";
import { CONFIG, PROTOCOL, ProxiedLife, READ_WRITE } from "./proxied_life.ts";
import { attach, map, ProxyWorld, unmap } from "./proxy_world.ts";

const KIB = 1024;

/** Replays with every VMM, in the long mode; else with two that have little in common. */
const SHORT = ["cloud-hypervisor", "OpenVMM"];

function life(
  what: string,
  vmms: readonly VmmHabits[],
  test: (life: ProxiedLife, habits: VmmHabits) => Promise<void>,
): void {
  for (const habits of vmms) {
    if (!isLong && !SHORT.includes(habits.name)) continue;
    Deno.test(`${habits.name}, proxied: ${what}`, async () => {
      const mapped = mappingsOf("vmm-");
      const before = openDescriptors();
      {
        await using world = await ProxyWorld.start();
        await world.request(attach());
        await using life = new ProxiedLife(habits, world);
        await life.connect();
        await life.works();
        await test(life, habits);
        await life.works();
        const warnings = world.warnings.filter((line) => !line.includes("gets zeros"));
        assertEquals(warnings, []);
        assertEquals(world.counters.refused, 0);
      }
      await descriptorsClosed();
      assertEquals(openDescriptors(), before);
      assertEquals(mappingsOf("vmm-"), mapped);
    });
  }
}

life("stops, goes on, resets of the driver, and configuration of 4 KiB", VMMS, async (
  life,
  habits,
) => {
  const { vmm } = life;
  const space = new Uint8Array(8192);
  space.set(CONFIG);
  for (let round = 0; round < 3; round++) {
    await vmm.play(...habits.stop(vmm), ...habits.activate(vmm));
    await life.works();
    // The back end has 20 bytes and gives nothing beyond, the front end gets zeros.
    for (const [offset, length] of [[0, 20], [20, 4], [252, 8], [256, 8], [4092, 4]]) {
      await vmm.play(habits.read(offset, space.slice(offset, offset + length)));
      await vmm.play(habits.write(offset, new Uint8Array(length).fill(1)));
    }
    const [pause, resume] = habits.pause?.(vmm) ?? [[], []];
    await vmm.play(...pause, ...resume);
    await life.works();
    await vmm.play(...(habits.reset ?? habits.stop)(vmm));
    vmm.newDriver();
    await vmm.play(habits.read(0, CONFIG), ...habits.activate(vmm));
    await life.works();
  }
  const written = life.backEnd!.messages.filter(({ request }) => request === Request.SET_CONFIG);
  assert(written.every(({ payload }) => payload.getUint32(8, true) <= 1), "flag 2 is passed as 1");
  assert(written.every(({ payload }) => payload.byteLength <= 12 + 256));
});

life(
  "rings are stopped and started while the guest maps and unmaps",
  VMMS,
  async (life, habits) => {
    const { vmm } = life;
    for (let round = 0; round < 3; round++) {
      await life.worksUnderLoad(async () => {
        for (let i = 0; i <= round; i++) {
          await vmm.play(...habits.stop(vmm), ...habits.activate(vmm));
        }
      });
      // A driver's reset comes in the middle as well.
      await life.worksUnderLoad(() => vmm.play(...(habits.reset ?? habits.stop)(vmm)));
      vmm.newDriver();
      await vmm.play(habits.read(0, CONFIG), ...habits.activate(vmm));
      await life.works();
    }
  },
);

life("acknowledgements and a channel are agreed, whether the front end does or not", VMMS, async (
  life,
  habits,
) => {
  const backEnd = life.backEnd!;
  const { REPLY_ACK, BACKEND_REQ } = ProtocolFeature;
  const agreed = backEnd.messages.find(({ request }) => request === Request.SET_PROTOCOL_FEATURES);
  const expected = (habits.wants & PROTOCOL | REPLY_ACK | BACKEND_REQ) >>> 0;
  assertEquals(agreed?.payload.getUint32(0, true), expected);
  const hasChannel = backEnd.messages.some(({ request }) => request === Request.SET_BACKEND_REQ_FD);
  assertEquals(hasChannel, true);
  await life.world.request(map(0x900, 9));
  backEnd.takeTold();
  backEnd.miss(0x900 * 4096, READ_WRITE);
  await backEnd.asked();
  await until(() => backEnd.told.length > 0, "the miss is answered");
  await life.world.request(unmap(0x900));
  assertEquals(backEnd.userAddressOf(0x900 * 4096, READ_WRITE), undefined);
});

life(
  "a connection that ends, and one that goes on at the old bases",
  VMMS,
  async (life, habits) => {
    const { vmm, world } = life;
    await vmm.play(...habits.stop(vmm));
    vmm.disconnect();
    await until(() => !world.proxies[0].connected, "the proxy has seen the connection end");
    if (habits.reconnect !== undefined) {
      // It agrees on what it needs by itself, without having asked.
      await life.connect(true);
    } else await life.connect();
    await life.works();
  },
);

life(
  "memory comes and goes while mappings exist, up to 32 regions",
  VMMS.filter(({ handsOverOnce }) => handsOverOnce !== true),
  async (life, habits) => {
    const { vmm } = life;
    const { plug, unplug } = habits;
    const added = [];
    while (plug !== undefined ? added.length < 32 : vmm.regions.length < 32) {
      const at = (64 + added.length * 2) * KIB * KIB;
      const region = vmm.addRegion(at, 64 * KIB);
      added.push(region);
      await vmm.play(...(plug?.(vmm, region) ?? [...habits.stop(vmm), ...habits.activate(vmm)]));
      await life.works(at / 4096 + added.length % 16);
    }
    for (let i = 0; i < 4; i++) await life.works();
    for (const region of added.filter((_, i) => i % 3 !== 1)) {
      if (plug !== undefined && unplug === undefined) continue;
      const messages = unplug?.(vmm, region);
      vmm.removeRegion(region);
      await vmm.play(...(messages ?? [...habits.stop(vmm), ...habits.activate(vmm)]));
      await life.works();
    }
  },
);

life("a log comes, and other ones in its place", VMMS.filter(({ beginLog }) => beginLog), async (
  life,
  habits,
) => {
  await life.vmm.play(...habits.beginLog!(life.vmm));
  await life.works();
  await life.vmm.play(...habits.nextLog!(life.vmm), ...habits.nextLog!(life.vmm));
  await life.works();
  await life.vmm.play(...habits.endLog!(life.vmm));
});
