/**
 * L1: a Linux guest that is itself a host, with an emulated IOMMU (VT-d, or SMMUv3 on arm64), `iommufd`, VFIO, and Deno, in
 * which a program of ours runs.
 *
 * What needs a real `/dev/iommu`, a real IOMMU and a device behind it is tested there: those of the machine that the tests
 * run on are not theirs to use. (L1 is KVM's word: the guest of the host is L1, a guest in it would be L2.) A program is a
 * bundle; its checks are steps of the test that boots the machine, see `tests/guest/l1/checks.ts`. A boot takes as long as
 * some ten of them, so several programs share one.
 *
 * @module
 */
import { bundle } from "./lab/bundle.ts";
import { type ArchiveEntry, cpioArchive, EXECUTABLE, PLAIN } from "./lab/cpio.ts";
import { denoEntries } from "./lab/deno.ts";
import { withFolders } from "./lab/host_program.ts";
import { baseEntries } from "./lab/initramfs.ts";
import {
  type Arch,
  hostArch,
  type Lab,
  LineProcess,
  machineArguments,
  prepareLab,
  withIommufd,
} from "./lab/mod.ts";

/** Milliseconds for the boot, or for a check, on a busy machine. */
const STEP_LIMIT = 240_000;

/** What each processor's machine has: an IOMMU that can remap interrupts, which the kernel uses. */
const MACHINES: Readonly<
  Record<Arch, { readonly machine: string; readonly append: string; readonly iommu?: string }>
> = {
  x86_64: {
    machine: "kernel-irqchip=split",
    append: "intel_iommu=on",
    iommu: "intel-iommu,intremap=on",
  },
  aarch64: { machine: "iommu=smmuv3", append: "" },
};

/** Modules that are loaded, with their arguments. */
const MODULES: Readonly<Record<string, string>> = {
  "virtio_pci": "",
  "iommufd": "",
  "vfio": "",
  "vfio-pci": "",
};

/** The lab with a kernel that has `iommufd`. Throws with the reason where there can be none. */
export async function prepareL1(arch: Arch = "x86_64"): Promise<Lab> {
  if (arch === "x86_64" && hostArch() !== arch) {
    throw new Error("Cannot run this machine's QEMU in an x86-64 guest");
  }
  const lab = await prepareLab(arch);
  return { ...lab, kernel: await withIommufd(arch, lab.kernel) };
}

/** What runs in L1. */
export interface L1Options {
  /** Its processor; x86-64 when missing. */
  readonly arch?: Arch;
  /** The programs that run one after the other, by their names in `tests/guest/l1/`, with what they prove. */
  readonly programs: Readonly<Record<string, string>>;
  /** Bundles for them, as `/programs/NAME.js`. */
  readonly bundles?: Readonly<Record<string, URL>>;
  /** Further files. */
  readonly files?: readonly ArchiveEntry[];
  /** Properties added to the emulated VT-d, on x86-64. */
  readonly iommu?: string;
  /** Arguments of QEMU that add devices. */
  readonly devices: readonly string[];
  /** MiB of memory; 1024 when missing. */
  readonly memory?: number;
  /** Variables in the programs' environment; without spaces. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Milliseconds for the boot, or for a check; four minutes when missing. */
  readonly stepLimit?: number;
}

/**
 * Two devices of one IOMMU group, by the processor: behind a bridge to PCI, where they cannot be told apart, and as functions
 * of one device, which may reach each other. Linux does not drive the former with SMMUv3. `l1/vfio.ts` has their addresses.
 */
export const GROUPS: Readonly<Record<Arch, readonly string[]>> = {
  x86_64: [
    ...["-device", "pcie-pci-bridge,id=bridge,addr=5"],
    ...edu("bus=bridge,addr=1"),
    ...edu("bus=bridge,addr=2"),
  ],
  aarch64: [...edu("addr=5.0,multifunction=on"), ...edu("addr=5.1")],
};

/** An edu device that can send any 64-bit address. */
export function edu(options: string): readonly string[] {
  return ["-device", `edu,dma_mask=0xffffffffffffffff,${options}`];
}

/**
 * Boots L1 with its files in a folder. Each program is a step of the test, each of its checks a step of that. Returns what
 * the programs told, by name. The first check that fails ends it.
 */
export async function runInL1(
  lab: Lab,
  folder: string,
  options: L1Options,
  context: Deno.TestContext,
): Promise<ReadonlyMap<string, unknown>> {
  await using process = await startL1(lab, folder, options);
  const told = new Map<string, unknown>();
  for (const [name, proves] of Object.entries(options.programs)) {
    await step(
      context,
      proves,
      (within) =>
        followProgram(
          process,
          name,
          told,
          (check, outcome) => step(within, check, outcome),
          options.stepLimit,
        ),
    );
  }
  const { code } = await process.status(STEP_LIMIT);
  if (code !== 0) throw process.failure(`QEMU ended with status ${code}`);
  return told;
}

/** Boots L1 with its files in a folder. What its programs say is read with {@linkcode followProgram}. */
export async function startL1(
  lab: Lab,
  folder: string,
  options: L1Options,
): Promise<LineProcess> {
  const initramfs = `${folder}/l1.cpio`;
  await Deno.writeFile(initramfs, cpioArchive(await rootEntries(lab, folder, options)));
  const variables = Object.entries(options.variables ?? {}).map(([key, value]) =>
    `${key}=${value}`
  );
  const arch = options.arch ?? "x86_64";
  const { machine, append, iommu } = MACHINES[arch];
  const device = iommu === undefined ? [] : ["-device", `${iommu}${options.iommu ?? ""}`];
  const arguments_ = machineArguments(arch, {
    kernel: lab.kernel,
    initramfs,
    memory: options.memory ?? 1024,
    machine,
    append: [append, "program=/bin/l1.sh", ...variables].join(" "),
    devices: [...device, ...options.devices],
  });
  return new LineProcess({
    title: "L1",
    command: [...lab.qemu.command, ...arguments_],
    env: lab.qemu.env,
  });
}

/** The files of L1. */
async function rootEntries(
  lab: Lab,
  folder: string,
  { arch = "x86_64", programs, bundles = {}, files = [] }: L1Options,
): Promise<readonly ArchiveEntry[]> {
  const names = Object.keys(programs);
  const sources = names.map((name) => [name, new URL(`l1/${name}.ts`, import.meta.url)] as const);
  const bundled: ArchiveEntry[] = [];
  for (const [name, url] of [...sources, ...Object.entries(bundles)]) {
    const path = `${folder}/${name}.js`;
    await bundle(url, path);
    bundled.push({ path: `programs/${name}.js`, mode: PLAIN, content: await Deno.readFile(path) });
  }
  const order = new TextEncoder().encode(names.map((name) => `${name}\n`).join(""));
  const script = await Deno.readFile(new URL("program/l1.sh", import.meta.url));
  return withFolders([
    ...await baseEntries(arch, lab.kernel, MODULES),
    ...await denoEntries(arch),
    { path: "bin/l1.sh", mode: EXECUTABLE, content: script },
    { path: "programs/order", mode: PLAIN, content: order },
    ...bundled,
    ...files,
  ]);
}

/**
 * Reads what a program says, from its beginning to its end.
 *
 * @param told Gets what it tells, by name.
 * @param onCheck Called for each check; `outcome` waits for its end and throws if it fails.
 * @param limit Milliseconds for the boot, or for a check.
 */
export async function followProgram(
  process: LineProcess,
  program: string,
  told: Map<string, unknown>,
  onCheck: (name: string, outcome: () => Promise<void>) => Promise<void>,
  limit: number = STEP_LIMIT,
): Promise<void> {
  /** The next line that is for the test, without those that tell a value. */
  async function next(): Promise<string> {
    const end = Date.now() + limit;
    while (true) {
      const line = await process.nextLine(end - Date.now(), `line of ${program} in L1`);
      const [, name, value] = /^@told (\S+) (.*)$/.exec(line) ?? [];
      if (name !== undefined) told.set(name, JSON.parse(value));
      else if (line.startsWith("@")) return line;
    }
  }
  const begin = await next();
  if (begin !== `@program ${program}`) throw process.failure(`${program} does not begin: ${begin}`);
  for (let line = await next(); line !== "@ended 0"; line = await next()) {
    const [, name] = /^@check (.*)$/.exec(line) ?? [];
    if (name === undefined) throw process.failure(`${program} failed outside its checks: ${line}`);
    await onCheck(name, async () => {
      const outcome = await next();
      const [, text] = /^@failed (.*)$/.exec(outcome) ?? [];
      if (text !== undefined) throw process.failure(`${name}: ${JSON.parse(text)}`);
      if (outcome !== "@passed") throw process.failure(`${name}: ${outcome}`);
    });
  }
}

/** A step of a test, which ends the test if it fails. */
async function step(
  context: Deno.TestContext,
  name: string,
  fn: (context: Deno.TestContext) => Promise<void>,
): Promise<void> {
  // What the process's reader awaits may begin in one step and end in another; the test as a whole is sanitized.
  const hasPassed = await context.step({ name, fn, sanitizeOps: false, sanitizeResources: false });
  if (!hasPassed) throw new Error(`Cannot go on after a failed check: ${name}`);
}
