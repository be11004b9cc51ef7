/**
 * The devices behind the IOMMU under the front ends of five VMMs (`vmm_habits.ts`): every answer byte by byte, and after every
 * step the device is served through the translations of its endpoint.
 */
import { assert, assertEquals } from "@std/assert";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import { until } from "../../until.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { Vmm } from "../vhost_user/vmm.ts";
import { type VmmHabits, VMMS } from "../vhost_user/vmm_habits.ts";
import { EndpointWorld } from "./endpoint_world.ts";
import { blk, BUFFER, LOAD, type ReplayedDevice, rng } from "./replayed_device.ts";

const KIB = 1024;

/** What a life is about. */
interface Life {
  readonly habits: VmmHabits;
  readonly world: EndpointWorld;
  readonly vmm: Vmm;
  readonly kind: ReplayedDevice;
}

function life(what: string, who: readonly VmmHabits[], test: (life: Life) => Promise<void>): void {
  for (const make of [rng, blk]) {
    for (const habits of who) {
      Deno.test(`${habits.name}, ${make.name}: ${what}`, async () => {
        const before = openDescriptors();
        {
          using kind = make();
          await using world = new EndpointWorld(kind.device);
          world.attach();
          using vmm = new Vmm(habits, kind.facts);
          vmm.newDriver();
          vmm.open(world.path);
          const { config } = kind.facts;
          await vmm.play(...habits.connect(vmm), habits.read(0, config));
          await vmm.play(...habits.activate(vmm));
          await kind.use(vmm, BUFFER);
          await test({ habits, world, vmm, kind });
          await kind.use(vmm, BUFFER);
          assertEquals(world.warnings, []);
          assertEquals(world.service.faults, 0);
        }
        await descriptorsClosed();
        assertEquals(openDescriptors(), before);
        assertEquals(mappingsOf("vmm-"), []);
      });
    }
  }
}

life("stops, goes on, resets of the driver, and configuration of 4 KiB", VMMS, async (
  { habits, vmm, kind },
) => {
  const space = new Uint8Array(8192);
  space.set(kind.facts.config);
  for (let round = 0; round < 3; round++) {
    await vmm.play(...habits.stop(vmm), ...habits.activate(vmm));
    await kind.use(vmm, BUFFER);
    for (const [offset, length] of [[0, 256], [58, 8], [60, 4], [252, 8], [4092, 4], [0, 4096]]) {
      await vmm.play(habits.read(offset, space.slice(offset, offset + length)));
      await vmm.play(habits.write(offset, new Uint8Array(length).fill(1)));
    }
    const [pause, resume] = habits.pause?.(vmm) ?? [[], []];
    await vmm.play(...pause, ...resume);
    await kind.use(vmm, BUFFER);
    await vmm.play(...(habits.reset ?? habits.stop)(vmm));
    vmm.newDriver();
    await vmm.play(habits.read(0, kind.facts.config), ...habits.activate(vmm));
    await kind.use(vmm, BUFFER);
  }
});

life("rings are stopped and started under load, and every request is answered once", VMMS, async (
  { habits, vmm, kind },
) => {
  for (let round = 0; round < 5; round++) {
    kind.load(vmm);
    // No notification comes again for what is available already.
    for (let i = 0; i <= round; i++) {
      await vmm.play(...vmm.stopAnywhere());
      await vmm.play(...habits.activate(vmm));
    }
    for (const ring of vmm.rings) {
      const tokens = new Set<number>();
      for (let i = 0; i < LOAD; i++) {
        assertEquals(await ring.reap(), true, `request ${i} is answered`);
        tokens.add(ring.driver.token);
      }
      assertEquals([tokens.size, ring.driver.inFlight], [LOAD, 0]);
    }
    kind.check(vmm);
    await vmm.play(...habits.stop(vmm), ...habits.activate(vmm));
    await kind.use(vmm, BUFFER);
  }
});

life("a connection that ends, and one that goes on at the old bases", VMMS, async (
  { habits, world, vmm, kind },
) => {
  for (let round = 0; round < 2; round++) {
    await vmm.play(...habits.stop(vmm));
    vmm.disconnect();
    await until(() => !world.service.connected, "the service has seen the connection end");
    vmm.open(world.path);
    await vmm.play(...(habits.reconnect ?? habits.connect)(vmm), ...habits.activate(vmm));
    await kind.use(vmm, BUFFER);
  }
});

const MOVING = VMMS.filter(({ handsOverOnce }) => handsOverOnce !== true);

life("memory comes and goes while mappings exist, up to 32 regions", MOVING, async (
  { habits, world, vmm, kind },
) => {
  const added = [];
  // With slots one by one; without them in a table when the rings start the next time, of 32 at most.
  const { plug, unplug } = habits;
  while (plug !== undefined ? added.length < 32 : vmm.regions.length < 32) {
    const at = (64 + added.length * 2) * KIB * KIB;
    const region = vmm.addRegion(at, 64 * KIB);
    added.push(region);
    world.map(at, at + region.size - 1);
    await vmm.play(...(plug?.(vmm, region) ?? [...habits.stop(vmm), ...habits.activate(vmm)]));
    await kind.use(vmm, at + 0x2000);
    await kind.use(vmm, BUFFER);
  }
  for (const region of added.filter((_, i) => i % 3 !== 1)) {
    if (plug !== undefined && unplug === undefined) continue;
    const messages = unplug?.(vmm, region);
    vmm.removeRegion(region);
    await vmm.play(...(messages ?? [...habits.stop(vmm), ...habits.activate(vmm)]));
    await kind.use(vmm, BUFFER);
  }
});

life(
  "writes are logged while the machine migrates",
  VMMS.filter(({ beginLog }) => beginLog),
  async (
    { habits, vmm, kind },
  ) => {
    await vmm.play(...habits.beginLog!(vmm));
    for (let round = 0; round < 3; round++) {
      await kind.use(vmm, BUFFER);
      const pages = vmm.dirtyPages(vmm.log!);
      assert(pages.includes(BUFFER / 4096), `${pages}`);
      await vmm.play(...habits.nextLog!(vmm));
      await kind.use(vmm, BUFFER + 0x4000);
      const next = vmm.dirtyPages(vmm.log!);
      assert(next.includes(BUFFER / 4096 + 4) && !next.includes(BUFFER / 4096), `${next}`);
    }
    await vmm.play(...habits.endLog!(vmm));
    const marked = vmm.dirtyPages(vmm.log!);
    await kind.use(vmm, BUFFER + 0x8000);
    assertEquals(vmm.dirtyPages(vmm.log!), marked);
  },
);
