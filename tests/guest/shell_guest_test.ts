import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { isLong } from "../long_mode.ts";
import { labTests, prepareLab } from "./lab/mod.ts";

const PROGRAM = new URL("shell_guest.ts", import.meta.url).pathname;
/** Milliseconds in which a guest boots and answers on a busy machine. */
const LIMIT = 300_000;

/** Runs `deno task guest`, types lines once the guest's shell is there, and returns all it prints. */
async function guestShell(folder: string, lines: readonly string[]): Promise<string> {
  await using process = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--frozen", "--allow-all", PROGRAM, "--folder", folder],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
    signal: AbortSignal.timeout(LIMIT),
  }).spawn();
  const writer = process.stdin.getWriter();
  let text = "";
  let isTyped = false;
  for await (const piece of process.stdout.pipeThrough(new TextDecoderStream())) {
    text += piece;
    if (isTyped || !text.includes("built-in commands")) continue;
    isTyped = true;
    await writer.write(new TextEncoder().encode(lines.map((line) => `${line}\n`).join("")));
  }
  await writer.close().catch(() => {});
  assertEquals((await process.status).code, 0, text);
  return text;
}

if (isLong) {
  await labTests(() => prepareLab("x86_64"), {
    "deno task guest boots a shell whose disk is behind the IOMMU, and leaves nothing":
      async () => {
        const folder = await Deno.makeTempDir();
        await Deno.remove(folder);
        const text = await guestShell(folder, ["grep vda /proc/mounts", "poweroff -f"]);
        assertStringIncludes(text, "/dev/vda /mnt ext2 rw");
        assertStringIncludes(text, `deno task serve --socket-path ${folder}/vhost.sock`);
        assert(!await Deno.lstat(folder).then(() => true, () => false), "the folder is removed");
      },
  });
}

Deno.test("deno task guest refuses a folder that is there, in one line, and leaves it", async () => {
  const folder = await Deno.makeTempDir();
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--frozen", "--allow-all", PROGRAM, "--folder", folder],
    stdout: "null",
  }).output();
  const text = new TextDecoder().decode(stderr);
  assertEquals([code, text.split("\n").length], [1, 2]);
  assertStringIncludes(text, "--folder");
  await Deno.remove(folder);
});
