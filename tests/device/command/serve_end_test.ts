/** How `serve` ends: with the kernel's help, and not by undoing what a guest has done. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { delay } from "@std/async";
import { createPipe, writeNow } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { FrontEnd, Request } from "../../../device/vhost_user/mod.ts";
import { words } from "../../bytes.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { exists, exitCode, kill, start } from "../served_process.ts";

const ENDPOINTS = 65536;
const MAPPINGS = 1_000_000;

/** The state of a device with every endpoint of a segment attached, and very many mappings. */
function largeState(): Uint8Array<ArrayBuffer> {
  const device = new IommuDevice({ ...DEFAULT_OPTIONS, maxMappings: MAPPINGS });
  for (let i = 0; i < ENDPOINTS; i++) device.iommu.attach(1, i, false);
  const domain = device.iommu.domain(1)!;
  for (let i = 0; i < MAPPINGS; i++) {
    device.iommu.map(domain, 2 ** 20 + 2 * i, 2 ** 20 + 2 * i, 1, 3);
  }
  const state = device.saveState();
  device.close();
  return state;
}

/** Has a device load a state. */
async function load(frontEnd: FrontEnd, state: Uint8Array<ArrayBuffer>): Promise<void> {
  const [source, sink] = createPipe();
  await frontEnd.ask(Request.SET_DEVICE_STATE_FD, words(1, 0), [source]);
  source.close();
  sink.setNonblocking();
  for (let at = 0; at < state.length;) {
    const written = writeNow(sink, state.subarray(at), Math.min(65536, state.length - at));
    if (written > 0) at += written;
    else await delay(0);
  }
  sink.close();
  assertEquals((await frontEnd.ask(Request.CHECK_DEVICE_STATE)).getUint32(0, true), 0);
}

Deno.test("SIGTERM ends serve with very many mappings and endpoints, of which it undoes next to nothing", async () => {
  const folder = await Deno.makeTempDir();
  const { socket, process, log } = await start(folder, ["--log-level", "debug"]);
  const frontEnd = FrontEnd.connect(socket);
  try {
    await frontEnd.negotiate();
    await frontEnd.addMemory(0, 1 << 20);
    await load(frontEnd, largeState());
    process.kill("SIGTERM");
    assertEquals(await exitCode(process), 0);
    assertEquals(await exists(socket), false);
    const left = /debug: (\d+) mappings end with the process/.exec(await log)?.[1];
    assert(Number(left) >= MAPPINGS - 4096, `${left} are left to the kernel`);
    assertStringIncludes(await log, `${ENDPOINTS} endpoints that the guest had attached`);
  } finally {
    frontEnd.close();
    await kill(process);
    await log;
    await Deno.remove(folder, { recursive: true });
  }
});
