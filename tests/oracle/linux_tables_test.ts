/**
 * Tables that Linux built: our walker, started from the root pointer of QEMU's VT-d, finds each page where
 * the guest's `/proc/self/pagemap` says that it lies.
 */
import { assert, assertEquals } from "@std/assert";
import {
  type EndpointWalker,
  NO_PASID,
  READ,
  VtdLegacyWalker,
  VtdScalableWalker,
  WalkResult,
  WRITE,
} from "../../pagetable/mod.ts";
import {
  EDU_SLOT,
  Guest,
  type Lab,
  labTests,
  machineArguments,
  Monitor,
  prepareLab,
} from "../guest/lab/mod.ts";
import { PAGE, planMappings } from "../guest/mapping_plan.ts";
import { Random, seed } from "../guest/random.ts";
import { temporaryFolder } from "../guest/temporary_folder.ts";
import { variants } from "./examination.ts";
import { MemoryFile } from "./memory_file.ts";

const ENDPOINT = EDU_SLOT * 8;
/** Root table address register of a PC's unit (VT-d §11.4.5): table in bits 63:12, mode in bits 11:10. */
const ROOT_TABLE = 0xfed9_0020;
const SCALABLE = 1n;

/** What QEMU's unit can do; see `-device intel-iommu,aw-bits=48`. */
const CAPABILITIES = { addressBits: 48, inputBits: 48, ridPasid: false };

/** Where a page lies, in frames, and what a device may do there. */
interface Expected {
  readonly frame: number;
  readonly protection: number;
}

/** Compares each page and its neighbours, reads and writes; the pages compared. */
function compare(walker: EndpointWalker, expected: ReadonlyMap<number, Expected>): number {
  const result = new WalkResult();
  const pages = new Set<number>();
  for (const page of expected.keys()) pages.add(page).add(page + 1).add(Math.max(page - 1, 0));
  for (const page of pages) {
    const want = expected.get(page);
    for (const access of [READ, WRITE]) {
      const allowed = want !== undefined && (want.protection & access) !== 0;
      const ok = walker.walk(ENDPOINT, page, access, result, NO_PASID);
      const place = `page 0x${page.toString(16)}, access ${access}, ${result.faultName}`;
      assertEquals(ok, allowed, place);
      if (ok) assertEquals(result.frame, want!.frame, place);
    }
  }
  return pages.size;
}

/** `options` are those of QEMU's unit; `first`: whether Linux then uses first-stage tables. */
function walkLinux(options: string, first: boolean): (lab: Lab) => Promise<void> {
  return async (lab) => {
    const random = new Random(seed());
    await using folder = await temporaryFolder();
    const initramfs = `${folder.path}/initramfs.gz`;
    const memoryFile = `${folder.path}/memory`;
    const socket = `${folder.path}/monitor.sock`;
    await lab.writeInitramfs(initramfs);
    const machine = machineArguments("x86_64", {
      kernel: lab.kernel,
      initramfs,
      memoryFile,
      machine: "kernel-irqchip=off",
      append: "intel_iommu=on",
      devices: [
        ...["-device", `intel-iommu,intremap=off,aw-bits=48${options}`],
        ...["-device", `edu,addr=${EDU_SLOT}`],
        ...Monitor.arguments(socket),
      ],
    });
    await using guest = await Guest.boot(lab.qemu, machine);
    await guest.run("echo 4 > /proc/sys/vm/nr_hugepages");
    const ranges = await guest.openVfio(`0000:00:0${EDU_SLOT}.0`);
    using monitor = await Monitor.connect(socket);
    using memory = new MemoryFile(memoryFile);
    const register = await monitor.readq(ROOT_TABLE);
    const scalable = ((register >> 10n) & 3n) === SCALABLE;
    assertEquals(scalable, options.includes("scalable-mode=on"), `RTADDR is ${register}`);
    const root = Number(register >> 12n);
    const walker = scalable
      ? new VtdScalableWalker(memory, root, CAPABILITIES)
      : new VtdLegacyWalker(memory, root, CAPABILITIES);

    const expected = new Map<number, Expected>();
    // First-stage tables have no write-only pages: Linux makes them readable too.
    const plan = planMappings(random, ranges, { small: 60, huge: 2 });
    for (const { iova, bytes, permission, backing } of plan) {
      const write = permission.includes("w") ? WRITE : 0;
      const read = permission.includes("r") || first ? READ : 0;
      for (const run of await guest.map(iova, bytes, permission, backing)) {
        for (let index = 0; index < run.pages; index++) {
          const page = run.iova / PAGE + index;
          expected.set(page, { frame: run.phys / PAGE + index, protection: read | write });
        }
      }
    }
    assert(compare(walker, expected) > 1000);

    for (const { iova, bytes } of plan.slice(0, plan.length / 2)) {
      await guest.unmap(iova, bytes);
      for (let page = iova / PAGE; page < (iova + bytes) / PAGE; page++) expected.delete(page);
    }
    assert(compare(walker, expected) > 500);
    await guest.powerOff();
  };
}

await labTests(
  () => prepareLab("x86_64"),
  variants(
    { "Our walker reads the VT-d tables of a Linux guest, legacy mode": walkLinux("", false) },
    {
      "Our walker reads the VT-d tables of a Linux guest, scalable mode, second stage": walkLinux(
        ",scalable-mode=on",
        false,
      ),
      "Our walker reads the VT-d tables of a Linux guest, scalable mode, first stage": walkLinux(
        ",scalable-mode=on,fsts=on",
        true,
      ),
    },
  ),
);
