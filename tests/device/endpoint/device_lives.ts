/**
 * Whole lives of a device behind the IOMMU under the front end of a VMM (`vmm_habits.ts`): every answer byte by byte, and
 * after every step the device is served through the translations of its endpoint.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { Vmm } from "../vhost_user/vmm.ts";
import type { VmmHabits } from "../vhost_user/vmm_habits.ts";
import { BUFFER, LOAD } from "./replayed_device.ts";
import type { ReplayedService } from "./replayed_service.ts";

const KIB = 1024;

/** What a life is about. */
export interface Life<Service extends ReplayedService> {
  readonly habits: VmmHabits;
  readonly service: Service;
  readonly vmm: Vmm;
}

/** A test of a life: the VMM has connected, the rings run, and the guest has used the device. */
export function life<Service extends ReplayedService>(
  what: string,
  habits: VmmHabits,
  device: string,
  serve: () => Service,
  test: (life: Life<Service>) => Promise<void>,
): void {
  Deno.test(`${habits.name}, ${device}: ${what}`, async () => {
    const mapped = mappingsOf("vmm-");
    const before = openDescriptors();
    {
      await using service = serve();
      const { driver } = service;
      using vmm = new Vmm(habits, driver.facts);
      vmm.newDriver();
      await service.open(vmm);
      await vmm.play(...habits.connect(vmm), habits.read(0, driver.facts.config));
      await vmm.play(...habits.activate(vmm));
      await driver.use(vmm, BUFFER);
      await test({ habits, service, vmm });
      await driver.use(vmm, BUFFER);
      assertEquals(service.complaints, []);
    }
    await descriptorsClosed();
    assertEquals(openDescriptors(), before);
    assertEquals(mappingsOf("vmm-"), mapped);
  });
}

/** The lives that every device has, each under each of some VMMs. */
export function replayLives(
  vmms: readonly VmmHabits[],
  device: string,
  serve: () => ReplayedService,
): void {
  for (const habits of vmms) {
    life(
      "stops, goes on, resets of the driver, and configuration of 4 KiB",
      habits,
      device,
      serve,
      stopsAndResets,
    );
    life(
      "rings are stopped and started under load, and every request is answered once",
      habits,
      device,
      serve,
      stopsUnderLoad,
    );
    life(
      "a connection that ends, and one that goes on at the old bases",
      habits,
      device,
      serve,
      connectionEnds,
    );
    if (habits.handsOverOnce !== true) {
      life(
        "memory comes and goes while mappings exist, up to 32 regions",
        habits,
        device,
        serve,
        memoryComesAndGoes,
      );
    }
    if (habits.beginLog !== undefined) {
      life("writes are logged while the machine migrates", habits, device, serve, migrates);
    }
  }
}

async function stopsAndResets({ habits, service, vmm }: Life<ReplayedService>): Promise<void> {
  const { driver } = service;
  const { config } = driver.facts;
  const space = new Uint8Array(8192);
  space.set(config);
  const [inner, end] = [Math.max(0, config.length - 2), config.length];
  const accesses = [[0, 256], [inner, 8], [end, 4], [252, 8], [4092, 4], [0, 4096]];
  for (let round = 0; round < 3; round++) {
    await vmm.play(...habits.stop(vmm), ...habits.activate(vmm));
    await driver.use(vmm, BUFFER);
    for (const [offset, length] of accesses) {
      await vmm.play(habits.read(offset, space.slice(offset, offset + length)));
      const written = new Uint8Array(length).fill(1);
      if (driver.configChanges) written.set(config.slice(offset, offset + length));
      await vmm.play(habits.write(offset, written));
    }
    const [pause, resume] = habits.pause?.(vmm) ?? [[], []];
    await vmm.play(...pause, ...resume);
    await driver.use(vmm, BUFFER);
    await vmm.play(...(habits.reset ?? habits.stop)(vmm));
    vmm.newDriver();
    await vmm.play(habits.read(0, config), ...habits.activate(vmm));
    await driver.use(vmm, BUFFER);
  }
}

async function stopsUnderLoad({ habits, service, vmm }: Life<ReplayedService>): Promise<void> {
  const { driver } = service;
  for (let round = 0; round < 5; round++) {
    driver.load(vmm);
    // No notification comes again for what is available already.
    for (let i = 0; i <= round; i++) {
      await vmm.play(...vmm.stopAnywhere());
      await vmm.play(...habits.activate(vmm));
    }
    await loadAnswered(vmm);
    driver.check(vmm);
    await vmm.play(...habits.stop(vmm), ...habits.activate(vmm));
    await driver.use(vmm, BUFFER);
  }
}

/** Waits for the answers to the load of each ring: each once. */
export async function loadAnswered(vmm: Vmm): Promise<void> {
  for (const ring of vmm.rings) {
    const tokens = new Set<number>();
    for (let i = 0; i < LOAD; i++) {
      assertEquals(await ring.reap(), true, `request ${i} is answered`);
      tokens.add(ring.driver.token);
    }
    assertEquals([tokens.size, ring.driver.inFlight], [LOAD, 0]);
  }
}

async function connectionEnds({ habits, service, vmm }: Life<ReplayedService>): Promise<void> {
  for (let round = 0; round < 2; round++) {
    await vmm.play(...habits.stop(vmm));
    vmm.disconnect();
    await service.open(vmm);
    await vmm.play(...(habits.reconnect ?? habits.connect)(vmm), ...habits.activate(vmm));
    await service.driver.use(vmm, BUFFER);
  }
}

async function memoryComesAndGoes(
  { habits, service, vmm }: Life<ReplayedService>,
): Promise<void> {
  const { driver } = service;
  const added = [];
  // With slots one by one; without them in a table when the rings start the next time, of 32 at most.
  const { plug, unplug } = habits;
  while (plug !== undefined ? added.length < 32 : vmm.regions.length < 32) {
    const at = (64 + added.length * 2) * KIB * KIB;
    const region = vmm.addRegion(at, 64 * KIB);
    added.push(region);
    service.map(at, at + region.size - 1);
    await vmm.play(...(plug?.(vmm, region) ?? [...habits.stop(vmm), ...habits.activate(vmm)]));
    await driver.use(vmm, at + 0x2000);
    await driver.use(vmm, BUFFER);
  }
  for (const region of added.filter((_, i) => i % 3 !== 1)) {
    if (plug !== undefined && unplug === undefined) continue;
    const messages = unplug?.(vmm, region);
    vmm.removeRegion(region);
    await vmm.play(...(messages ?? [...habits.stop(vmm), ...habits.activate(vmm)]));
    await driver.use(vmm, BUFFER);
  }
}

async function migrates({ habits, service, vmm }: Life<ReplayedService>): Promise<void> {
  const { driver } = service;
  await vmm.play(...habits.beginLog!(vmm));
  for (let round = 0; round < 3; round++) {
    await driver.use(vmm, BUFFER);
    const pages = vmm.dirtyPages(vmm.log!);
    assert(pages.includes(BUFFER / 4096), `${pages}`);
    await vmm.play(...habits.nextLog!(vmm));
    await driver.use(vmm, BUFFER + 0x4000);
    const next = vmm.dirtyPages(vmm.log!);
    assert(next.includes(BUFFER / 4096 + 4) && !next.includes(BUFFER / 4096), `${next}`);
  }
  await vmm.play(...habits.endLog!(vmm));
  const marked = vmm.dirtyPages(vmm.log!);
  await driver.use(vmm, BUFFER + 0x8000);
  assertEquals(vmm.dirtyPages(vmm.log!), marked);
}
