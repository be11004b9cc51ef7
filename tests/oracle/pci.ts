/**
 * PCI configuration space of a machine under qtest.
 *
 * @module
 */
import type { Qtest } from "./qtest.ts";

/** Reads and writes 32-bit words of a function's configuration space. */
export interface ConfigSpace {
  read(bdf: number, offset: number): Promise<number>;
  write(bdf: number, offset: number, value: number): Promise<void>;
}

/** Through the address and data ports of a PC (PCI Local Bus 3.0 §3.2.2.3.2). */
export function portConfigSpace(machine: Qtest): ConfigSpace {
  return {
    async read(bdf: number, offset: number): Promise<number> {
      await machine.outl(0xcf8, 0x8000_0000 + bdf * 256 + offset);
      return await machine.inl(0xcfc);
    },
    async write(bdf: number, offset: number, value: number): Promise<void> {
      await machine.outl(0xcf8, 0x8000_0000 + bdf * 256 + offset);
      await machine.outl(0xcfc, value);
    },
  };
}

/** Through the memory window of PCI Express (PCIe §7.2.2), 4 KiB a function from `base`. */
export function windowConfigSpace(machine: Qtest, base: number): ConfigSpace {
  return {
    read: (bdf, offset) => machine.readl(base + bdf * 4096 + offset),
    write: (bdf, offset, value) => machine.writel(base + bdf * 4096 + offset, value),
  };
}

const COMMAND = 0x04;
const BAR0 = 0x10;
const MEMORY_SPACE = 1 << 1;
const BUS_MASTER = 1 << 2;

/** Puts the function's first BAR at `address` and lets it answer there and reach memory. */
export async function enableFunction(
  config: ConfigSpace,
  bdf: number,
  address: number,
): Promise<void> {
  await config.write(bdf, BAR0, address);
  await config.write(bdf, COMMAND, MEMORY_SPACE | BUS_MASTER);
}
