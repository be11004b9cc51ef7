/**
 * A PC whose vhost-user devices use I/O virtual addresses. QEMU passes those on only if the machine has an IOMMU of
 * QEMU's, so it has an `intel-iommu` beside our device, which the guest does not use.
 *
 * @module
 */
import { compileStatic } from "./lab/compiler.ts";
import { cpioArchive, EXECUTABLE, gzip } from "./lab/cpio.ts";
import { Guest, type Lab, machineArguments } from "./lab/mod.ts";
import { attachArguments, type ServedDevice } from "./served_device.ts";

/**
 * Options of `serve` for such a machine. QEMU looks up ring addresses in RAM although they are I/O virtual, so they must
 * lie below its end.
 */
export const BELOW_END_OF_RAM: readonly string[] = ["--input-range", "0x0-0x1fffffff"];

/** The parts of such a machine. */
export interface TranslatedMachineOptions {
  /** Modules of the devices' drivers, with their arguments. */
  readonly modules: Readonly<Record<string, string>>;
  /** Programs that the guest has besides the usual ones: files of `program/`, without their ending. */
  readonly programs?: readonly string[];
  /** Whether the guest invalidates with every unmapping. */
  readonly strict: boolean;
  /** Whether the guest's drivers use its memory untranslated; they do not unless told otherwise. */
  readonly passthrough?: boolean;
  /** Whether the guest may restart. */
  readonly restarts?: boolean;
  /** QEMU arguments that add devices. */
  readonly devices: readonly string[];
}

/** Boots a guest on such a machine; its files are in a folder. */
export async function bootTranslated(
  lab: Lab,
  folder: string,
  device: ServedDevice,
  options: TranslatedMachineOptions,
): Promise<Guest> {
  const initramfs = `${folder}/initramfs.gz`;
  await lab.writeInitramfs(initramfs, options.modules);
  for (const name of options.programs ?? []) await addProgram(initramfs, name);
  const arguments_ = machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    restarts: options.restarts ?? false,
    machine: "kernel-irqchip=off",
    append: `intel_iommu=off iommu.strict=${options.strict ? 1 : 0} ` +
      `iommu.passthrough=${options.passthrough === true ? 1 : 0}`,
    devices: [
      ...["-device", "intel-iommu"],
      ...await attachArguments(device, folder),
      ...options.devices,
    ],
  });
  return await Guest.boot(lab.qemu, arguments_);
}

/** Compiles a program of `tests/guest/program/` and adds it to the file system of an x86-64 guest. */
export async function addProgram(initramfs: string, name: string): Promise<void> {
  const program = `${initramfs}.${name}`;
  await compileStatic("x86_64", new URL(`program/${name}.c`, import.meta.url).pathname, program);
  const content = await Deno.readFile(program);
  // The kernel unpacks several archives in a row.
  const more = await gzip(cpioArchive([{ path: `bin/${name}`, mode: EXECUTABLE, content }]));
  await Deno.writeFile(initramfs, more, { append: true });
  await Deno.remove(program);
}
