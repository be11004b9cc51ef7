/**
 * The model with devices of the host over a kernel: what a guest asks for in requests is what its devices reach.
 *
 * `tests/device/iommu/` has more of the model's rules, over a host of its own; this is about both together.
 */
import { assertEquals } from "@std/assert";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/mod.ts";
import { STATUS_NAMES } from "../../../device/iommu/wire.ts";
import { ENOMEM, OK } from "../../../pagetable/mod.ts";
import { IOMMU_IOAS_MAP_FILE } from "../../../device/vfio/iommufd.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { type FakeWorld, fakeWorld } from "./fake_world.ts";
import { createRam, KernelMachine } from "./kernel_machine.ts";

/** Endpoints as `KernelMachine` numbers them. */
const [A, B] = [0x20, 0x28];
/** The first page of RAM that is mapped here: that of its file. */
const RAM = 0x1000;

/** A guest with two devices of the host. */
class World implements Disposable {
  readonly kernel: FakeWorld;
  readonly guest: InProcessGuest;
  readonly machine: KernelMachine;
  /** RAM besides that of the driver's rings, which does not begin at a page of this process. */
  readonly ram = createRam(RAM, 16);

  constructor(isOneGroup: boolean, bypass = false) {
    this.kernel = fakeWorld(2, isOneGroup);
    const endpoints = [{ first: 0, last: 0xff, format: "vtd-ss" }];
    this.guest = new InProcessGuest({ ...DEFAULT_OPTIONS, endpoints, bypass, maxHostRanges: 4 });
    this.machine = new KernelMachine(this.kernel);
    for (const device of this.machine.devices) {
      assertEquals(this.guest.device.passthrough.add(device), OK);
    }
    this.guest.addMemory(this.ram.region);
  }

  /** The page of RAM that a device reaches at a page, or -1. */
  reached(device: number, page: number): number {
    const area = this.kernel.fakes[device].areaAt(page);
    return area === undefined ? -1 : area.backing.at / 4096 + (page - area.first);
  }

  attach(domain: number, endpoint: number, flags = 0): string {
    return this.#send(attachRequest(domain, endpoint, flags));
  }

  detach(domain: number, endpoint: number): string {
    return this.#send(detachRequest(domain, endpoint));
  }

  map(domain: number, page: number, frame: number, count = 1): string {
    return this.#send(mapRequest({
      domain,
      virtStart: BigInt(page) * 4096n,
      virtEnd: BigInt(page + count) * 4096n - 1n,
      physStart: BigInt(RAM + frame) * 4096n,
      flags: 3,
    }));
  }

  unmap(domain: number, page: number, count = 1): string {
    const last = BigInt(page + count) * 4096n - 1n;
    return this.#send(unmapRequest(domain, BigInt(page) * 4096n, last));
  }

  #send(request: Uint8Array): string {
    return STATUS_NAMES[this.guest.request(request, 4).bytes[0]];
  }

  [Symbol.dispose](): void {
    this.guest.close();
    this.ram[Symbol.dispose]();
    this.kernel[Symbol.dispose]();
  }
}

Deno.test("devices reach what their domains map, from the ATTACH to the UNMAP", () => {
  using world = new World(false);
  assertEquals(world.attach(1, A), "OK");
  assertEquals(world.map(1, 0x100, 3, 4), "OK");
  assertEquals([world.reached(0, 0x100), world.reached(0, 0x103)], [3, 6]);
  assertEquals(world.reached(1, 0x100), -1);
  assertEquals(world.attach(2, B), "OK");
  assertEquals(world.map(2, 0x100, 9), "OK");
  assertEquals([world.reached(0, 0x100), world.reached(1, 0x100)], [3, 9]);
  // Beyond RAM: mapped for the guest, and no device reaches it.
  assertEquals(world.map(1, 0x200, 0x10000), "OK");
  assertEquals(world.reached(0, 0x200), -1);
  assertEquals(world.unmap(1, 0x100, 4), "OK");
  assertEquals(world.reached(0, 0x100), -1);
  assertEquals(world.attach(2, A), "OK");
  assertEquals(world.reached(0, 0x100), 9);
  assertEquals(world.detach(2, A), "OK");
  assertEquals([world.reached(0, 0x100), world.reached(1, 0x100)], [-1, 9]);
});

Deno.test("a MAP that the kernel has no memory for is NOMEM, and nothing of it is left", () => {
  using world = new World(false);
  assertEquals(world.attach(1, A), "OK");
  world.kernel.kernel.fails = (request) => request === IOMMU_IOAS_MAP_FILE ? ENOMEM : 0;
  assertEquals(world.map(1, 0x100, 3), "NOMEM");
  world.kernel.kernel.fails = () => 0;
  assertEquals(world.reached(0, 0x100), -1);
  assertEquals(world.map(1, 0x100, 4), "OK");
  assertEquals(world.reached(0, 0x100), 4);
});

Deno.test("a group goes with the one of its endpoints that is attached, also to another domain", () => {
  using world = new World(true);
  assertEquals(world.attach(1, A), "OK");
  assertEquals(world.map(1, 0x100, 3), "OK");
  assertEquals([world.reached(0, 0x100), world.reached(1, 0x100)], [3, 3]);
  assertEquals(world.attach(2, B), "UNSUPP");
  assertEquals(world.attach(2, A), "OK");
  assertEquals(world.map(2, 0x100, 5), "OK");
  assertEquals([world.reached(0, 0x100), world.reached(1, 0x100)], [5, 5]);
  assertEquals(world.attach(2, B), "OK");
  assertEquals(world.detach(2, A), "OK");
  assertEquals([world.reached(0, 0x100), world.reached(1, 0x100)], [-1, -1]);
});

Deno.test("what the VMM has attached is bypass until the guest attaches, and after that all RAM is", () => {
  using world = new World(false, true);
  const vmms = world.kernel.fakes[0].group.hwpt;
  assertEquals(world.kernel.fakes[0].isAttached, true);
  assertEquals(world.attach(1, A), "OK");
  assertEquals(world.reached(0, RAM + 3), -1);
  assertEquals(world.detach(1, A), "OK");
  assertEquals(world.kernel.fakes[0].group.hwpt === vmms, false);
  assertEquals(world.reached(0, RAM + 3), 3);
  // The other one is where it was.
  assertEquals(world.kernel.fakes[1].group.hwpt, vmms);
});

Deno.test("a device that goes, or is refused, leaves others of its group where the VMM has attached them", () => {
  using world = new World(true, true);
  const [first, second] = world.kernel.fakes;
  const { passthrough, hosts } = world.guest.device;
  assertEquals(passthrough.remove(B), OK);
  assertEquals([first.isAttached, second.isAttached], [true, false]);
  // Its domain cannot be filled for it.
  assertEquals([world.attach(1, B), world.map(1, 0x100, 3)], ["OK", "OK"]);
  world.kernel.kernel.fails = (request) => request === IOMMU_IOAS_MAP_FILE ? ENOMEM : 0;
  assertEquals(passthrough.add(world.machine.devices[1]), ENOMEM);
  world.kernel.kernel.fails = () => 0;
  assertEquals([first.isAttached, second.isAttached], [true, false]);
  assertEquals(hosts.placeOf(A), "vmm");
  // When the last one goes, no device keeps the group attached.
  assertEquals(passthrough.remove(A), OK);
  assertEquals(first.group.hwpt, null);
});
