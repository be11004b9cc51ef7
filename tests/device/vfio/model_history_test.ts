/**
 * Whatever is done with devices of which two are in one host group: each reaches in the kernel what the model says, also
 * after devices have gone and come back, and where calls of the kernel have failed.
 *
 * `tests/device/iommu/passthrough_history_test.ts` has the model over a host of its own; here its devices are those of
 * `device/vfio`, over a kernel in which a device that is detached reaches what the rest of its group does.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import {
  attachRequest,
  detachRequest,
  mapRequest,
  unmapRequest,
} from "../../../device/iommu/mod.ts";
import { Log } from "../../../device/log.ts";
import { HostDevices, type OpenDevice } from "../../../device/vfio/mod.ts";
import { IOMMU_IOAS_MAP_FILE } from "../../../device/vfio/iommufd.ts";
import { VFIO_ATTACH } from "../../../device/vfio/vfio_device.ts";
import { EINVAL, ENOMEM, OK, READ } from "../../../pagetable/mod.ts";
import { isLong } from "../../long_mode.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { FakeHost } from "./fake_host.ts";
import type { FakeIoas } from "./fake_objects.ts";
import { createRam } from "./kernel_machine.ts";

const ENDPOINTS = [0x20, 0x28, 0x30];
const GROUPS = [7, 7, 8];
/** RAM in a file: its first frame, and its pages. */
const [RAM, PAGES] = [0x1000, 16];
/** Pages that are mapped. */
const MOST = 24;

const step = fc.record({
  kind: fc.constantFrom(
    "attach",
    "attach",
    "attach",
    "detach",
    "map",
    "map",
    "map",
    "unmap",
    "unmap",
    "bypass",
    "go",
    "come",
  ),
  device: fc.nat(2),
  domain: fc.integer({ min: 1, max: 2 }),
  flags: fc.constantFrom(0, 0, 1),
  page: fc.nat(MOST - 8),
  count: fc.integer({ min: 1, max: 8 }),
  on: fc.boolean(),
  /** Which call that can fail does, and how. */
  fault: fc.option(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.constantFrom(ENOMEM, EINVAL)), {
    freq: 2,
  }),
});
type Step = Parameters<Parameters<typeof step["map"]>[0]>[0];

/** A guest with three devices, and what is known of them. */
class History implements Disposable {
  readonly host = new FakeHost(GROUPS);
  readonly guest: InProcessGuest;
  readonly #ram = createRam(RAM, PAGES);
  readonly #devices = new HostDevices(new Log("error", () => {}), this.host.places);
  readonly #open = new Map<number, OpenDevice>();
  readonly #vmms: FakeIoas;

  constructor(bypass: boolean) {
    this.guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass, maxHostRanges: 4 });
    this.guest.addMemory(this.#ram.region);
    this.host.bind();
    this.#vmms = this.host.devices[0].device.group.hwpt!.ioas;
    for (const at of GROUPS.keys()) assert(this.#come(at));
  }

  do({ kind, device, domain, flags, page, count, on, fault }: Step): void {
    const { kernel } = this.host;
    const endpoint = ENDPOINTS[device];
    const virtStart = BigInt(page) * 4096n;
    const virtEnd = BigInt(page + count) * 4096n - 1n;
    let calls = 0;
    kernel.fails = (request) => {
      const mayFail = request === VFIO_ATTACH || request === IOMMU_IOAS_MAP_FILE;
      return mayFail && ++calls === fault?.[0] ? fault[1] : OK;
    };
    if (kind === "attach") this.guest.request(attachRequest(domain, endpoint, flags), 4);
    else if (kind === "detach") this.guest.request(detachRequest(domain, endpoint), 4);
    else if (kind === "map") {
      const physStart = BigInt(RAM + page % 8) * 4096n;
      this.guest.request(mapRequest({ domain, virtStart, virtEnd, physStart, flags: 3 }), 4);
    } else if (kind === "unmap") {
      this.guest.request(unmapRequest(domain, virtStart, BigInt(MOST) * 4096n - 1n), 4);
    } else if (kind === "bypass") this.guest.device.writeConfig(new Uint8Array([on ? 1 : 0]), 36);
    else if (kind === "go") this.#go(device);
    else this.#come(device);
    kernel.fails = () => OK;
  }

  /** Each device reaches what its place says. */
  check(): void {
    const { hosts, endpoints } = this.guest.device;
    for (const at of this.#open.keys()) {
      const id = ENDPOINTS[at];
      const fake = this.host.devices[at].device;
      const ioas = fake.group.hwpt?.ioas;
      const place = hosts.placeOf(id);
      if (place === "vmm") assertEquals(ioas === this.#vmms, true, "it is where the VMM has it");
      else if (place === "blocked") assertEquals(ioas, undefined, "it is blocked");
      else if (place === "bypass") {
        assertEquals(ioas === this.#vmms || this.#reached(at, RAM) === 0, true, "it has all RAM");
      } else if (endpoints.seen(id)?.domain !== undefined) {
        for (let page = 0; page < MOST; page++) {
          const walk = this.guest.device.walk(id, page, READ);
          assertEquals(this.#reached(at, page), walk.ok ? walk.frame - RAM : -1, `page ${page}`);
        }
      } else assert(ioas !== undefined && ioas !== this.#vmms, "it goes with its group");
    }
  }

  /** The page of RAM that a device reaches at a page, or -1. */
  #reached(at: number, page: number): number {
    const area = this.host.devices[at].device.areaAt(page);
    return area === undefined ? -1 : area.backing.at / 4096 + (page - area.first);
  }

  /** A device is unplugged, here and in the VMM. */
  #go(at: number): void {
    if (!this.#open.has(at)) return;
    assertEquals(this.guest.device.passthrough.remove(ENDPOINTS[at]), OK);
    this.#open.get(at)!.close();
    this.#open.delete(at);
  }

  /** The VMM attaches a device to all RAM, as far as its group permits, and it is added. Returns whether it is. */
  #come(at: number): boolean {
    if (this.#open.has(at)) return false;
    const { device } = this.host.devices[at];
    const { group } = device;
    if (group.hwpt !== null && group.hwpt.ioas !== this.#vmms) return false;
    const { fails } = this.host.kernel;
    this.host.kernel.fails = () => OK;
    this.host.attachToVmms(at);
    this.host.kernel.fails = fails;
    const files = { iommufd: this.host.iommufd(), device: this.host.file(at) };
    const open = this.#devices.open(ENDPOINTS[at], files);
    const isAdded = this.guest.device.passthrough.add(open.device) === OK;
    if (isAdded) this.#open.set(at, open);
    else open.close();
    return isAdded;
  }

  [Symbol.dispose](): void {
    for (const at of [...this.#open.keys()]) this.#go(at);
    this.guest.close();
    this.#ram[Symbol.dispose]();
    this.host[Symbol.dispose]();
  }
}

Deno.test("whatever comes and goes, devices of a group reach in the kernel what the model says", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 30 }),
      fc.boolean(),
      async (steps, bypass) => {
        {
          using history = new History(bypass);
          for (const each of steps) {
            history.do(each);
            history.check();
          }
        }
        await descriptorsClosed();
      },
    ),
    { numRuns: isLong ? 2000 : 60 },
  );
});
