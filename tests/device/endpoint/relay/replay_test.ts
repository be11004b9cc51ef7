/**
 * A relayed back end under the front ends of five VMMs (`vmm_habits.ts`): every answer byte by byte, and after every step the
 * requests of the guest pass to the back end and back.
 *
 * `VIOMMU_TEST=full` replays all VMMs, otherwise two that have little in common.
 */
import { assertEquals } from "@std/assert";
import { isLong } from "../../../long_mode.ts";
import { VMMS } from "../../vhost_user/vmm_habits.ts";
import { type Life, life, loadAnswered, replayLives } from "../device_lives.ts";
import { BUFFER } from "../replayed_device.ts";
import { ReplayedRelay } from "./replayed_relay.ts";

const SHORT = ["cloud-hypervisor", "OpenVMM"];
const REPLAYED = VMMS.filter(({ name }) => isLong || SHORT.includes(name));

replayLives(REPLAYED, "relay", () => new ReplayedRelay());

for (const habits of REPLAYED) {
  life(
    "back ends die and others come, and every request is answered once",
    habits,
    "relay",
    () => new ReplayedRelay(),
    backEndsDie,
  );
  life(
    "rings are stopped while the back end keeps requests, and go on with them",
    habits,
    "relay",
    () => new ReplayedRelay(),
    backEndKeepsRequests,
  );
  life(
    "a driver is reset while the back end keeps its requests: the next one hears nothing of them",
    habits,
    "relay",
    () => new ReplayedRelay(),
    driverIsReset,
  );
}

async function backEndsDie({ habits, service, vmm }: Life<ReplayedRelay>): Promise<void> {
  const { driver } = service;
  for (let round = 0; round < 2; round++) {
    await service.replace();
    await driver.use(vmm, BUFFER);
    // With all requests in flight.
    service.backEnd!.holds = true;
    driver.load(vmm);
    await service.holds();
    await service.replace();
    await loadAnswered(vmm);
    driver.check(vmm);
    // With the rings stopped, before and after the requests were made.
    await vmm.play(...habits.stop(vmm));
    driver.load(vmm);
    await service.replace();
    service.backEnd!.holds = true;
    await vmm.play(...habits.activate(vmm));
    await service.holds();
    await vmm.play(...vmm.stopAnywhere());
    await service.replace();
    await vmm.play(...habits.activate(vmm));
    await loadAnswered(vmm);
    driver.check(vmm);
    await driver.use(vmm, BUFFER);
    const [pause, resume] = habits.pause?.(vmm) ?? [[], []];
    await vmm.play(...pause);
    await service.replace();
    await vmm.play(...resume);
    await driver.use(vmm, BUFFER);
  }
}

async function backEndKeepsRequests({ habits, service, vmm }: Life<ReplayedRelay>): Promise<void> {
  const { driver } = service;
  for (let round = 0; round < 3; round++) {
    const backEnd = service.backEnd!;
    backEnd.holds = true;
    driver.load(vmm);
    await service.holds();
    for (let stops = 0; stops < round; stops++) {
      await vmm.play(...vmm.stopAnywhere());
      await vmm.play(...habits.activate(vmm));
      await service.holds();
    }
    // The last first, so that the ring is not used in order.
    backEnd.answerAll();
    await loadAnswered(vmm);
    driver.check(vmm);
    await vmm.play(...habits.stop(vmm), ...habits.activate(vmm));
    await driver.use(vmm, BUFFER);
  }
}

async function driverIsReset({ habits, service, vmm }: Life<ReplayedRelay>): Promise<void> {
  const { driver, world } = service;
  for (let round = 0; round < 4; round++) {
    const backEnd = service.backEnd!;
    backEnd.holds = true;
    driver.load(vmm);
    await service.holds();
    const { requests } = world.counters;
    // The back end may hear of all that only when the next driver has begun.
    const resume = round % 2 === 0 ? () => {} : backEnd.pause();
    await vmm.play(...vmm.stopAnywhere(habits.reset ? { ...habits, stop: habits.reset } : habits));
    vmm.newDriver();
    backEnd.holds = false;
    await vmm.play(habits.read(0, driver.facts.config), ...habits.activate(vmm));
    resume();
    await driver.use(vmm, BUFFER);
    assertEquals(world.counters.requests - requests, 2);
    assertEquals(vmm.rings.map((ring) => ring.driver.reap()), [false, false]);
  }
}
