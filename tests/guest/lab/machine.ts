/**
 * QEMU command lines of the lab's machines.
 *
 * @module
 */
import type { Arch } from "./arch.ts";
import type { Kernel } from "./kernel.ts";

/** The parts of a lab machine. */
export interface MachineOptions {
  readonly kernel: Kernel;
  /** Path of the guest's file system. */
  readonly initramfs: string;
  /** Words added to the kernel's command line. */
  readonly append?: string;
  /** Words added to the `-M` option, such as `kernel-irqchip=off`. */
  readonly machine?: string;
  /** MiB of guest memory, shared with vhost-user back ends; 512 when missing. */
  readonly memory?: number;
  /** File to keep guest memory in, for the host to read; anonymous memory when missing. */
  readonly memoryFile?: string;
  /** Whether the guest may restart; otherwise QEMU ends when it tries to. */
  readonly restarts?: boolean;
  /** Arguments that add devices. */
  readonly devices: readonly string[];
}

const BASE: Readonly<Record<Arch, { readonly machine: string; readonly console: string }>> = {
  x86_64: { machine: "q35", console: "ttyS0" },
  aarch64: { machine: "virt,gic-version=3", console: "ttyAMA0" },
};

/** PCI slot of the device that the guest's VFIO program binds to. */
export const EDU_SLOT = 4;

/** Arguments of a machine with one processor, its serial console on standard input and output. */
export function machineArguments(arch: Arch, options: MachineOptions): readonly string[] {
  const { machine, console } = BASE[arch];
  const extra = options.machine === undefined ? "" : `,${options.machine}`;
  const memory = options.memory ?? 512;
  return [
    "-M",
    `${machine},accel=tcg,memory-backend=mem${extra}`,
    "-object",
    options.memoryFile === undefined
      ? `memory-backend-memfd,id=mem,size=${memory}M,share=on`
      : `memory-backend-file,id=mem,size=${memory}M,share=on,mem-path=${options.memoryFile}`,
    "-m",
    `${memory}`,
    "-cpu",
    "max",
    "-smp",
    "1",
    "-nographic",
    "-nodefaults",
    "-serial",
    "stdio",
    "-run-with",
    "exit-with-parent=on",
    ...(options.restarts === true ? [] : ["-no-reboot"]),
    "-kernel",
    options.kernel.image,
    "-initrd",
    options.initramfs,
    "-append",
    // On a busy host too few ticks reach an emulated machine in time for the kernel's check of its timer, which panics.
    `console=${console} quiet no_timer_check panic=${options.restarts === true ? 0 : -1} ${
      options.append ?? ""
    }`
      .trim(),
    ...options.devices,
  ];
}
