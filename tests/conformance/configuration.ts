/**
 * Features, configuration space and reset: F1 to F3, C1 to C4, L2.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { attach, map, reaches } from "./requests.ts";
import type { Statement } from "./statement.ts";

/** Virtio 1.4, 5.13.3 and 5.13.4. */
export const CONFIGURATION: readonly Statement[] = [
  {
    id: "F1",
    text: "the device offers MAP_UNMAP",
    run(dut) {
      assert((dut.features & (1 << 2)) !== 0);
      return Promise.resolve();
    },
  },
  {
    id: "F2",
    text: "the device does not offer the deprecated BYPASS",
    run(dut) {
      assertEquals(dut.features & (1 << 3), 0);
      return Promise.resolve();
    },
  },
  {
    id: "F3",
    text: "the device does not offer BYPASS together with BYPASS_CONFIG",
    run(dut) {
      assert((dut.features & 0x48) !== 0x48);
      return Promise.resolve();
    },
  },
  {
    id: "C1",
    text: "page_size_mask has at least one bit",
    async run(dut) {
      const config = new DataView((await dut.readConfig()).buffer);
      assert(config.getBigUint64(0, true) !== 0n);
    },
  },
  {
    id: "C2",
    text: "bypass may begin with 1, and unattached endpoints then reach memory",
    configuration: { bypass: true },
    async run(dut) {
      assertEquals((await dut.readConfig())[36], 1);
      assertEquals(await reaches(dut, 8, 0x1234n), 0x1234n);
    },
  },
  {
    id: "C3a",
    text: "bypass survives a device reset",
    configuration: { bypass: true },
    async run(dut) {
      await dut.writeConfig(36, 0);
      await dut.reset("device");
      assertEquals((await dut.readConfig())[36], 0);
    },
  },
  {
    id: "C3b",
    text: "bypass goes back to its initial value at a system reset",
    configuration: { bypass: true },
    async run(dut) {
      await dut.writeConfig(36, 0);
      // A VMM does not tell a vhost-user back end of a reboot. A driver that has sent no request so far may be one that
      // continues after a stop, and then 0 stays.
      assertEquals(await attach(dut, 1, 8), "OK");
      await dut.reset("system");
      assertEquals((await dut.readConfig())[36], 1);
    },
  },
  {
    id: "C4",
    text: "bypass never shows anything but 0 or 1",
    async run(dut) {
      for (const value of [2, 0x80, 0xff, 3]) {
        await dut.writeConfig(36, value);
        assert((await dut.readConfig())[36] <= 1, `bypass took ${value}`);
      }
    },
  },
  {
    id: "C-ranges",
    text:
      "no range of the configuration ends before it begins, and a property fits into probe_size",
    async run(dut) {
      const config = new DataView((await dut.readConfig()).buffer);
      assert(config.getBigUint64(8, true) <= config.getBigUint64(16, true), "input_range");
      assert(config.getUint32(24, true) <= config.getUint32(28, true), "domain_range");
      const hasProbe = (dut.features & (1 << 4)) !== 0;
      assert(!hasProbe || config.getUint32(32, true) >= 24, "probe_size");
    },
  },
  {
    id: "L2",
    text: "after a device reset no endpoint is attached, and no domain is left",
    configuration: { bypass: false },
    async run(dut) {
      assertEquals(await attach(dut, 1, 8), "OK");
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "OK");
      await dut.reset("device");
      assertEquals(await reaches(dut, 8, 0x1000n), undefined);
      assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x5000n), "NOENT");
    },
  },
  {
    id: "L2b",
    text: "after a reset of either kind the device serves the features that are agreed",
    async run(dut) {
      for (const kind of ["device", "system"] as const) {
        await dut.reset(kind);
        assertEquals(await attach(dut, 1, 8), "OK");
        assertEquals(await map(dut, 1, 0x1000n, 0x1fffn, 0x8000000n, 7), "OK");
        assertEquals(await attach(dut, 2, 16, 1), "OK");
      }
    },
  },
];
