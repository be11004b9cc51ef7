/**
 * The guest lab as a whole: everything a test needs to boot a guest, and how tests are skipped where that is missing.
 *
 * @module
 */
import type { Arch } from "./arch.ts";
import { cacheFolder, say } from "./cache.ts";
import { writeInitramfs } from "./initramfs.ts";
import { findKernel, type Kernel } from "./kernel.ts";
import { findQemu, type Qemu } from "./qemu.ts";

/** A QEMU with a kernel and a file system to boot. */
export interface Lab {
  readonly qemu: Qemu;
  readonly kernel: Kernel;
  /** Writes the guest's file system to a path; `modules` are loaded besides the usual ones. */
  writeInitramfs(path: string, modules?: Readonly<Record<string, string>>): Promise<void>;
}

/** Finds or prepares all that guests of `arch` need. Throws with the reason where that cannot be done. */
export async function prepareLab(arch: Arch): Promise<Lab> {
  announceCache();
  const qemu = await findQemu(arch);
  const kernel = await findKernel(arch);
  return {
    qemu,
    kernel,
    writeInitramfs: (path, modules = {}) => writeInitramfs({ arch, kernel, modules }, path),
  };
}

let announced = false;

/** Prints the cache folder once. */
function announceCache(): void {
  if (announced) return;
  announced = true;
  say(`QEMU, kernels and tools are kept in ${cacheFolder()} unless this machine has them`);
}

/**
 * Registers tests that need a prepared thing: `prepare` runs first, and each test is called with its result.
 *
 * Where `prepare` throws, or with `VIOMMU_GUEST=skip`, the tests are skipped and the reason is printed;
 * `VIOMMU_GUEST=require` makes them fail instead.
 */
export async function labTests<T>(
  prepare: () => Promise<T>,
  tests: Readonly<Record<string, (prepared: T, context: Deno.TestContext) => Promise<void>>>,
): Promise<void> {
  const wish = Deno.env.get("VIOMMU_GUEST") ?? "";
  if (!["", "skip", "require"].includes(wish)) {
    throw new Error(`Cannot use VIOMMU_GUEST=${wish}: use "skip", "require" or leave it out`);
  }
  const outcome = wish === "skip"
    ? { prepared: undefined, reason: "VIOMMU_GUEST=skip" }
    : await attempt(prepare);
  for (const [name, test] of Object.entries(tests)) {
    const ready = outcome.prepared;
    if (ready !== undefined) {
      Deno.test(name, (context) => test(ready.value, context));
    } else if (wish === "require") {
      Deno.test(name, () => {
        throw new Error(`Cannot prepare the guest lab: ${outcome.reason}`);
      });
    } else {
      say(`skipped "${name}": ${outcome.reason}`);
      // Without a lab, or by VIOMMU_GUEST=skip: registered so that a run names each test that it skipped. CI requires it.
      Deno.test({ name, ignore: true, fn: () => {} });
    }
  }
}

interface Outcome<T> {
  readonly prepared: { readonly value: T } | undefined;
  readonly reason: string;
}

async function attempt<T>(prepare: () => Promise<T>): Promise<Outcome<T>> {
  try {
    return { prepared: { value: await prepare() }, reason: "" };
  } catch (error) {
    return { prepared: undefined, reason: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * Runs checks of one guest in order, each as a step of its test. A guest is too slow to boot for each of them.
 *
 * The first check that fails ends the test, for the guest is then in no known state.
 */
export async function checkInOrder(
  context: Deno.TestContext,
  checks: Readonly<Record<string, () => Promise<void>>>,
): Promise<void> {
  for (const [name, check] of Object.entries(checks)) {
    // An operation such as reading the console may start in one check and end in a later one; the test as a whole is
    // sanitized.
    const step = { name, fn: check, sanitizeOps: false, sanitizeResources: false };
    if (!await context.step(step)) throw new Error(`Cannot go on after a failed check: ${name}`);
  }
}
