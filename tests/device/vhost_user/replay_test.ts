/**
 * Whole lives of the IOMMU's device under the front ends of five VMMs (`vmm_habits.ts`): every answer byte by byte, and
 * after every step the guest is served and has the translations that it had.
 */
import { assert, assertEquals } from "@std/assert";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { IOMMU_FACTS, IommuWorld, ReplayedGuest } from "./replayed_guest.ts";
import { Vmm } from "./vmm.ts";
import { type VmmHabits, VMMS } from "./vmm_habits.ts";

const KIB = 1024;

/** A VMM with a guest that has booted on a device. */
async function booted(habits: VmmHabits, world: IommuWorld): Promise<[Vmm, ReplayedGuest]> {
  const vmm = new Vmm(habits, IOMMU_FACTS);
  vmm.newDriver();
  vmm.open(world.path);
  await vmm.play(...habits.connect(vmm), habits.read(0, IOMMU_FACTS.config));
  await vmm.play(...habits.activate(vmm));
  const guest = new ReplayedGuest(vmm);
  await guest.boot();
  for (let i = 0; i < 3; i++) await guest.works(world.device);
  return [vmm, guest];
}

function life(
  what: string,
  vmms: readonly VmmHabits[],
  test: (
    habits: VmmHabits,
    world: IommuWorld,
  ) => Promise<void>,
): void {
  for (const habits of vmms) {
    Deno.test(`${habits.name}: ${what}`, async () => {
      const mapped = mappingsOf("vmm-");
      const before = openDescriptors();
      {
        await using world = new IommuWorld();
        await test(habits, world);
        assertEquals(world.warnings, []);
      }
      await descriptorsClosed();
      assertEquals(openDescriptors(), before);
      assertEquals(mappingsOf("vmm-"), mapped);
    });
  }
}

life(
  "the guest reads and writes configuration of 4 KiB, of which the device has 40 bytes",
  VMMS,
  async (
    habits,
    world,
  ) => {
    using vmm = new Vmm(habits, IOMMU_FACTS);
    vmm.newDriver();
    vmm.open(world.path);
    await vmm.play(...habits.connect(vmm));
    const space = new Uint8Array(8192);
    space.set(IOMMU_FACTS.config);
    for (const [offset, length] of [[0, 40], [0, 256], [0, 4096], [38, 4], [252, 8], [4092, 4]]) {
      await vmm.play(habits.read(offset, space.slice(offset, offset + length)));
    }
    for (let offset = 0; offset < 4096; offset += 60) {
      await vmm.play(habits.read(offset, space.slice(offset, offset + 4)));
      // The bypass byte is the guest's.
      if (offset > 0) await vmm.play(habits.write(offset, Uint8Array.of(1, 2, 3, 4)));
    }
    await vmm.play(habits.write(36, Uint8Array.of(1)));
    space[36] = 1;
    await vmm.play(habits.read(0, space.slice(0, 256)));
    assertEquals(world.device.bypass, true);
  },
);

life("a life, a reset of the driver, and a second life", VMMS, async (habits, world) => {
  const [vmm, guest] = await booted(habits, world);
  using _ = vmm;
  for (let life = 0; life < 3; life++) {
    await guest.hearsOfFault(world.device);
    // Where nothing but a stop tells, only what comes next says that it was a reset.
    if (habits.reset === undefined) {
      await vmm.play(...habits.stop(vmm));
      guest.check(world.device);
    } else {
      await vmm.play(...habits.reset(vmm));
      guest.mapped = new Map();
      guest.check(world.device);
    }
    vmm.newDriver();
    // The next driver reads the configuration, wherever the rings stood.
    await vmm.play(habits.read(0, IOMMU_FACTS.config), ...habits.activate(vmm));
    await guest.boot();
    guest.check(world.device);
    for (let i = 0; i < 3; i++) await guest.works(world.device);
  }
});

life("the machine stops and goes on where it was, once and again", VMMS, async (habits, world) => {
  const [vmm, guest] = await booted(habits, world);
  using _ = vmm;
  for (let round = 0; round < 4; round++) {
    await vmm.play(...habits.stop(vmm));
    guest.check(world.device);
    await vmm.play(...habits.activate(vmm));
    for (let i = 0; i < 2 * round; i++) await guest.works(world.device);
    if (round === 2) await guest.hearsOfFault(world.device);
  }
});

life("the machine stops and goes on under load, and every request is answered once", VMMS, async (
  habits,
  world,
) => {
  const [vmm, guest] = await booted(habits, world);
  using _ = vmm;
  for (let round = 0; round < 5; round++) {
    guest.load(25);
    // No notification comes again for what is available already.
    for (let i = 0; i <= round; i++) {
      await vmm.play(...vmm.stopAnywhere());
      await vmm.play(...habits.activate(vmm));
    }
    await guest.loaded(25);
    guest.check(world.device);
    await guest.works(world.device);
  }
});

life("the machine pauses with its rings where they are", VMMS.filter(({ pause }) => pause), async (
  habits,
  world,
) => {
  const [vmm, guest] = await booted(habits, world);
  using _ = vmm;
  for (let round = 0; round < 3; round++) {
    const [pause, resume] = habits.pause!(vmm);
    await vmm.play(...pause);
    guest.check(world.device);
    await vmm.play(...resume);
    await guest.works(world.device);
    await guest.hearsOfFault(world.device);
  }
});

life(
  "a snapshot is taken, and the machine goes on; another process restores it",
  VMMS.filter(({ transfersBy }) => transfersBy),
  async (habits, world) => {
    const [vmm, guest] = await booted(habits, world);
    using _ = vmm;
    await vmm.play(...habits.stop(vmm));
    const state = await vmm.save();
    guest.check(world.device);
    await vmm.play(...habits.activate(vmm));
    await guest.works(world.device);

    // What is saved at the end goes to another process.
    await vmm.play(...habits.stop(vmm));
    const moved = await vmm.save();
    assert(moved.length > 0 && state.length > 0);
    vmm.disconnect();
    await using other = new IommuWorld();
    vmm.open(other.path);
    await vmm.play(...(habits.reconnect ?? habits.connect)(vmm));
    await vmm.load(moved);
    await vmm.play(...habits.activate(vmm));
    await guest.works(other.device);
    await guest.hearsOfFault(other.device);
    await vmm.play(...habits.stop(vmm), ...habits.activate(vmm));
    await guest.works(other.device);
    assertEquals(other.warnings, []);
    vmm.disconnect();
    await other.vacant();
  },
);

life(
  "a state is loaded on the connection that saved it",
  VMMS.filter(({ name }) => name === "crosvm"),
  async (
    habits,
    world,
  ) => {
    const [vmm, guest] = await booted(habits, world);
    using _ = vmm;
    await vmm.play(...habits.stop(vmm));
    const [state, mapped] = [await vmm.save(), new Map(guest.mapped)];
    await vmm.play(...habits.activate(vmm));
    for (let i = 0; i < 5; i++) await guest.works(world.device);
    await vmm.play(...habits.stop(vmm));
    await vmm.load(state);
    await vmm.play(...habits.activate(vmm));
    guest.mapped = mapped;
    for (let i = 0; i < 5; i++) await guest.works(world.device);
  },
);

life(
  "another process goes on at the old bases without a state: nothing of the guest's translates",
  VMMS.filter(({ name }) => name === "OpenVMM"),
  async (habits, world) => {
    const [vmm, guest] = await booted(habits, world);
    using _ = vmm;
    await vmm.play(...habits.stop(vmm));
    vmm.disconnect();
    await using other = new IommuWorld();
    vmm.open(other.path);
    await vmm.play(...habits.connect(vmm), ...habits.activate(vmm));
    await guest.isForgotten(other.device);
    await guest.boot();
    await guest.works(other.device);
    vmm.disconnect();
    await other.vacant();
  },
);

life(
  "memory comes and goes while mappings exist, up to 32 regions",
  VMMS.filter(({ plug }) => plug),
  async (habits, world) => {
    const [vmm, guest] = await booted(habits, world);
    using _ = vmm;
    const added = [];
    while (added.length < 32) {
      const at = (64 + added.length * 2) * KIB * KIB;
      const region = vmm.addRegion(at, 64 * KIB);
      await vmm.play(...habits.plug!(vmm, region));
      added.push(region);
      await guest.works(world.device, at / 4096 + added.length % 16);
    }
    for (const region of added.filter((_, i) => habits.unplug !== undefined && i % 3 !== 1)) {
      await vmm.play(...habits.unplug!(vmm, region));
      vmm.removeRegion(region);
      await guest.works(world.device);
    }
    await vmm.play(...habits.stop(vmm));
    guest.check(world.device);
  },
);

life(
  "a table with 1 to 32 regions comes at each activation while mappings exist",
  VMMS.filter(({ name }) => name === "crosvm"),
  async (habits, world) => {
    const [vmm, guest] = await booted(habits, world);
    using _ = vmm;
    const original = vmm.regions.length;
    for (const count of [3, 8, 9, 17, 32, 31, 2]) {
      await vmm.play(...habits.stop(vmm));
      while (vmm.regions.length > Math.max(count, original)) vmm.removeRegion(vmm.regions.at(-1)!);
      while (vmm.regions.length < count) {
        vmm.addRegion((64 + vmm.regions.length * 2) * KIB * KIB, 64 * KIB);
      }
      await vmm.play(...habits.activate(vmm));
      const last = vmm.regions.at(-1)!;
      await guest.works(world.device, last.guestAddress / 4096 + 3);
    }
  },
);

life(
  "writes are logged while the machine migrates",
  VMMS.filter(({ beginLog }) => beginLog),
  async (
    habits,
    world,
  ) => {
    const [vmm, guest] = await booted(habits, world);
    using _ = vmm;
    await vmm.play(...habits.beginLog!(vmm));
    const first = vmm.log!;
    await guest.works(world.device);
    await guest.hearsOfFault(world.device);
    const [ring, events] = vmm.rings.map(({ driver }) => Math.floor(driver.deviceArea / 4096));
    assertEquals(vmm.dirtyPages(first), [ring, events, 0x48, 0x4c]);
    for (let round = 0; round < 3; round++) {
      const old = vmm.log!;
      const marked = vmm.dirtyPages(old);
      await vmm.play(...habits.nextLog!(vmm));
      await guest.works(world.device);
      // Notifications of the other ring are switched on and off meanwhile.
      const expected = [ring, 0x48];
      assertEquals(vmm.dirtyPages(vmm.log!).filter((page) => page !== events), expected);
      assertEquals(vmm.dirtyPages(old), marked, "the old log is not touched any more");
    }
    await vmm.play(...habits.endLog!(vmm));
    const marked = vmm.dirtyPages(vmm.log!);
    await guest.works(world.device);
    assertEquals(vmm.dirtyPages(vmm.log!), marked);
  },
);

life(
  "a front end goes, and the next one finds a device that knows nothing",
  VMMS,
  async (habits, world) => {
    for (const next of VMMS) {
      const [vmm, guest] = await booted(habits, world);
      await guest.hearsOfFault(world.device);
      vmm[Symbol.dispose]();
      await world.vacant();
      const [other] = await booted(next, world);
      other[Symbol.dispose]();
      await world.vacant();
    }
  },
);
