/** `serve --frames`: what it takes, and what it says where the right to see frames is missing. */
import { assertEquals } from "@std/assert";
import { seesFrames } from "../host/page_frames.ts";
import { DENO } from "../served_process.ts";
import { viommu } from "./in_process.ts";

/** Runs `serve` until it ends by itself. Returns its exit code and what it says. */
async function serve(args: readonly string[], before: readonly string[] = []): Promise<
  readonly [number, string]
> {
  const folder = await Deno.makeTempDir();
  try {
    const [program, ...rest] = [
      ...before,
      Deno.execPath(),
      ...DENO,
      "serve",
      "--socket-path",
      `${folder}/s`,
      ...args,
    ];
    const { code, stderr } = await new Deno.Command(program, {
      args: rest,
      env: { NO_COLOR: "1" },
      stdout: "null",
      stderr: "piped",
    }).output();
    return [code, new TextDecoder().decode(stderr)];
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What runs a program without the right to see frames; nothing if it cannot be taken away. */
function withoutRight(): readonly string[] | undefined {
  if (!seesFrames) return [];
  const options = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
  try {
    const { success } = new Deno.Command("setpriv", { args: [...options, "true"] }).outputSync();
    return success ? ["setpriv", ...options] : undefined;
  } catch {
    return undefined;
  }
}

const without = withoutRight();

Deno.test({
  name: "serve --frames host without the right to see frames ends with one line",
  ignore: without === undefined,
  async fn() {
    assertEquals(await serve(["--frames", "host"], without), [
      1,
      "viommu: Cannot serve --frames host: /proc/self/pagemap shows frames to root only (CAP_SYS_ADMIN)\n",
    ]);
  },
});

Deno.test("serve --frames takes guest and host", async () => {
  const { code, err } = await viommu(["serve", "--socket-path", "/nowhere/s", "--frames", "mine"]);
  assertEquals([code, err], [
    2,
    "viommu: Cannot take --frames mine: it must be guest or host (see viommu serve --help)\n",
  ]);
});
