/**
 * The guest lab: finds or prepares a QEMU, a Linux kernel and the tools around them, boots guests and talks
 * to them over their serial console. For tests and benches; imports nothing of the product.
 *
 * @module
 */
export { type Arch, type DebianArch, debianArch, hostArch } from "./arch.ts";
export { type BackEnds, findBackEnds } from "./back_ends.ts";
export { cacheFolder, say } from "./cache.ts";
export { type Chromium, findChromium } from "./chromium.ts";
export { type Dpdk, findDpdk } from "./dpdk.ts";
export {
  type AddressRange,
  type Backing,
  Guest,
  type MappedRun,
  type Permission,
} from "./guest.ts";
export { withIommufd } from "./iommufd_modules.ts";
export type { Kernel } from "./kernel.ts";
export { checkInOrder, type Lab, labTests, prepareLab } from "./lab.ts";
export { LineProcess, type LineProcessOptions } from "./line_process.ts";
export { EDU_SLOT, machineArguments, type MachineOptions } from "./machine.ts";
export { Monitor } from "./monitor.ts";
export { findOpenVswitch, type OpenVswitch } from "./open_vswitch.ts";
export { findQemu, type Qemu } from "./qemu.ts";
