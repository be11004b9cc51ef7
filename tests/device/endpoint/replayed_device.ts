/**
 * The devices behind the IOMMU as replays use them (`vmm.ts`): what they say of themselves, and what their drivers do.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { T_IN, T_OUT } from "../../../device/endpoint/block/wire.ts";
import {
  BlockDevice,
  BlockDisk,
  type EndpointDevice,
  EntropyDevice,
  SeededRandom,
} from "../../../device/endpoint/mod.ts";
import { ImageFile } from "../../../device/host/mod.ts";
import type { DeviceFacts, Vmm } from "../vhost_user/vmm.ts";
import { IOVA } from "./endpoint_world.ts";

/** Requests that are under way on each ring when it is stopped. */
export const LOAD = 20;
const SEED = 99;
const SECTOR = 512;
/** Where requests and buffers are, guest-physical. */
export const HEADER = 0x40000;
const STATUS = 0x41000;
/** A buffer that is mapped at first, guest-physical. */
export const BUFFER = 0x50000;
/** Where requests under load are, guest-physical. */
export const LOADED = 0x80000;
/** VERSION_1, ACCESS_PLATFORM, RING_PACKED, IN_ORDER, NOTIFICATION_DATA. */
const FEATURES_HIGH = 0x4f;
/** LOG_ALL, INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES. */
export const FEATURES_LOW = 0x7400_0000;
/** As the IOMMU's, without DEVICE_STATE. */
export const PROTOCOL = 0x1_f22b;

/** What a device says of itself, and what its driver does. */
export interface ReplayedDriver {
  readonly facts: DeviceFacts;
  /** Whether the guest can write to the configuration. */
  readonly configChanges?: boolean;
  /** Uses the device with a buffer at a guest address that is mapped, and looks at what comes. */
  use(vmm: Vmm, buffer: number): Promise<void>;
  /** Makes {@linkcode LOAD} requests available on each ring, and notifies the device once. */
  load(vmm: Vmm): void;
  /** Looks at what has come of them. */
  check(vmm: Vmm): void;
}

/** A device of this process, and its driver. */
export interface ReplayedDevice extends ReplayedDriver, Disposable {
  readonly device: EndpointDevice;
}

/** Guest memory as the driver sees it. */
export function bytesAt(vmm: Vmm, address: number, length: number): Uint8Array {
  assertEquals(vmm.memory.resolve(address, length, true), length);
  return vmm.memory.bytes.subarray(vmm.memory.offset, vmm.memory.offset + length);
}

/** Makes what was added available, and waits until it is used; `count` descriptors of it. */
export async function exchange(vmm: Vmm, index: number, count: number): Promise<number> {
  const queue = vmm.rings[index];
  queue.driver.commit();
  queue.kick();
  assertEquals(await queue.reap(), true, `${vmm.habits.name}: ring ${index} is served`);
  vmm.used[index] += vmm.isPacked ? count : 1;
  return queue.driver.usedLength;
}

/** An entropy device. */
export function rng(): ReplayedDevice {
  const expected = new SeededRandom(SEED);
  return {
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

/** A disk of two queues. */
export function blk(): ReplayedDevice {
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
