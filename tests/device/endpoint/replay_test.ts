/**
 * The devices behind the IOMMU under the front ends of five VMMs (`vmm_habits.ts`): every answer byte by byte, and after every
 * step the device is served through the translations of its endpoint.
 */
import { assert, assertEquals } from "@std/assert";
import { T_IN, T_OUT } from "../../../device/endpoint/block_wire.ts";
import {
  BlockDevice,
  BlockDisk,
  type EndpointDevice,
  EntropyDevice,
  SeededRandom,
} from "../../../device/endpoint/mod.ts";
import { ImageFile } from "../../../device/host/mod.ts";
import { until } from "../../until.ts";
import { mappingsOf, openDescriptors } from "../host/host_state.ts";
import { type DeviceFacts, Vmm } from "../vhost_user/vmm.ts";
import { type VmmHabits, VMMS } from "../vhost_user/vmm_habits.ts";
import { EndpointWorld, IOVA } from "./endpoint_world.ts";

const KIB = 1024;
/** Requests that are under way on each ring when it is stopped. */
const LOAD = 20;
const SEED = 99;
const SECTOR = 512;
/** Where requests and buffers are, guest-physical. */
const HEADER = 0x40000;
const STATUS = 0x41000;
const BUFFER = 0x50000;
const LOADED = 0x80000;
/** VERSION_1, ACCESS_PLATFORM, RING_PACKED, IN_ORDER, NOTIFICATION_DATA. */
const FEATURES_HIGH = 0x4f;
/** LOG_ALL, INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES. */
const FEATURES_LOW = 0x7400_0000;
/** As the IOMMU's, without DEVICE_STATE. */
const PROTOCOL = 0x1_f22b;

/** A device, what it says of itself, and what its driver does. */
interface Kind extends Disposable {
  readonly name: string;
  readonly device: EndpointDevice;
  readonly facts: DeviceFacts;
  /** Uses the device with a buffer at a guest address that is mapped, and looks at what comes. */
  use(vmm: Vmm, buffer: number): Promise<void>;
  /** Makes {@linkcode LOAD} requests available on each ring, and notifies the device once. */
  load(vmm: Vmm): void;
  /** Looks at what has come of them. */
  check(vmm: Vmm): void;
}

function bytesAt(vmm: Vmm, address: number, length: number): Uint8Array {
  assertEquals(vmm.memory.resolve(address, length, true), length);
  return vmm.memory.bytes.subarray(vmm.memory.offset, vmm.memory.offset + length);
}

/** Makes what was added available, and waits until it is used; `count` descriptors of it. */
async function exchange(vmm: Vmm, index: number, count: number): Promise<number> {
  const queue = vmm.rings[index];
  queue.driver.commit();
  queue.kick();
  assertEquals(await queue.reap(), true, `${vmm.habits.name}: ring ${index} is served`);
  vmm.used[index] += vmm.isPacked ? count : 1;
  return queue.driver.usedLength;
}

function rng(): Kind {
  const expected = new SeededRandom(SEED);
  return {
    name: "rng",
    device: new EntropyDevice(new SeededRandom(SEED)),
    facts: {
      features: [FEATURES_LOW, FEATURES_HIGH],
      protocol: PROTOCOL,
      queues: 1,
      config: new Uint8Array(0),
      ringShift: BigInt(IOVA),
    },
    async use(vmm, buffer) {
      const bytes = new Uint8Array(6000);
      expected.fill(bytes, bytes.length);
      const { driver } = vmm.rings[0];
      driver.begin();
      driver.addWritable(IOVA + buffer + 100, bytes.length);
      assertEquals(await exchange(vmm, 0, 1), bytes.length);
      assertEquals(bytesAt(vmm, buffer + 100, bytes.length), bytes);
    },
    load(vmm) {
      const { driver } = vmm.rings[0];
      for (let i = 0; i < LOAD; i++) {
        driver.begin();
        driver.addWritable(IOVA + BUFFER + i * 4096, 3000);
        driver.commit();
      }
      vmm.rings[0].kick();
    },
    check(vmm) {
      const bytes = new Uint8Array(3000);
      for (let i = 0; i < LOAD; i++) {
        expected.fill(bytes, bytes.length);
        assertEquals(bytesAt(vmm, BUFFER + i * 4096, 3000), bytes, `request ${i}`);
      }
      vmm.used[0] += LOAD;
    },
    [Symbol.dispose]() {},
  };
}

function blk(): Kind {
  const path = Deno.makeTempFileSync();
  Deno.writeFileSync(path, new Uint8Array(256 * SECTOR));
  const device = new BlockDevice(new BlockDisk(ImageFile.open(path, true), false, "disk"), 2);
  const config = new Uint8Array(60);
  device.readConfig(config, 0);
  let turn = 0;
  /** A request of a header, data and a status. */
  async function request(vmm: Vmm, index: number, type: number, sector: number, data: number) {
    const header = new DataView(new ArrayBuffer(16));
    header.setUint32(0, type, true);
    header.setBigUint64(8, BigInt(sector), true);
    bytesAt(vmm, HEADER, 16).set(new Uint8Array(header.buffer));
    bytesAt(vmm, STATUS, 1).fill(0xee);
    const { driver } = vmm.rings[index];
    driver.begin();
    driver.addReadable(IOVA + HEADER, 16);
    if (type === T_OUT) driver.addReadable(IOVA + data, SECTOR);
    else driver.addWritable(IOVA + data, SECTOR);
    driver.addWritable(IOVA + STATUS, 1);
    assertEquals(await exchange(vmm, index, 3), type === T_OUT ? 1 : SECTOR + 1);
    assertEquals([...bytesAt(vmm, STATUS, 1)], [0]);
  }
  return {
    name: "blk",
    device,
    facts: {
      // SEG_MAX, BLK_SIZE, FLUSH, MQ, DISCARD, WRITE_ZEROES.
      features: [FEATURES_LOW | 0x7244, FEATURES_HIGH],
      protocol: PROTOCOL,
      queues: 2,
      config,
      ringShift: BigInt(IOVA),
    },
    async use(vmm, buffer) {
      const [sector, index] = [turn % 256, turn++ % 2];
      const content = Uint8Array.from({ length: SECTOR }, (_, i) => (i + turn) & 0xff);
      bytesAt(vmm, buffer, SECTOR).set(content);
      await request(vmm, index, T_OUT, sector, buffer);
      bytesAt(vmm, buffer, SECTOR).fill(0);
      await request(vmm, 1 - index, T_IN, sector, buffer);
      assertEquals(bytesAt(vmm, buffer, SECTOR), content);
    },
    load(vmm) {
      for (const [index, { driver }] of vmm.rings.entries()) {
        for (let i = 0; i < LOAD; i++) {
          const at = (index * LOAD + i) * 1024;
          const header = new DataView(new ArrayBuffer(16));
          header.setUint32(0, T_OUT, true);
          header.setBigUint64(8, BigInt(100 + index * LOAD + i), true);
          bytesAt(vmm, LOADED + at, 16).set(new Uint8Array(header.buffer));
          bytesAt(vmm, LOADED + at + 16, 1).fill(0xee);
          bytesAt(vmm, LOADED + at + 512, SECTOR).fill(i + 1);
          driver.begin();
          driver.addReadable(IOVA + LOADED + at, 16);
          driver.addReadable(IOVA + LOADED + at + 512, SECTOR);
          driver.addWritable(IOVA + LOADED + at + 16, 1);
          driver.commit();
        }
        vmm.rings[index].kick();
      }
    },
    check(vmm) {
      const disk = Deno.readFileSync(path);
      for (const index of vmm.rings.keys()) {
        for (let i = 0; i < LOAD; i++) {
          const at = index * LOAD + i;
          assertEquals([...bytesAt(vmm, LOADED + at * 1024 + 16, 1)], [0], `request ${at}`);
          const sector = disk.slice((100 + at) * SECTOR, (101 + at) * SECTOR);
          assertEquals(sector, new Uint8Array(SECTOR).fill(i + 1));
        }
        vmm.used[index] += LOAD * (vmm.isPacked ? 3 : 1);
      }
    },
    [Symbol.dispose]() {
      Deno.removeSync(path);
    },
  };
}

/** What a life is about. */
interface Life {
  readonly habits: VmmHabits;
  readonly world: EndpointWorld;
  readonly vmm: Vmm;
  readonly kind: Kind;
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
