/**
 * Enters a sandbox that may start programs, and starts itself again, which enters one that needs nothing. Both print what
 * is in force.
 *
 * @module
 */
import { enterSandbox, NOTHING_NEEDED } from "../../../device/sandbox/mod.ts";

if (Deno.args.length > 0) {
  console.log(enterSandbox(NOTHING_NEEDED).inForce.join());
} else {
  const policy = { ...NOTHING_NEEDED, reads: ["/"], writes: ["/dev/null"], startsPrograms: true };
  console.log(enterSandbox(policy).inForce.join());
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "--allow-all", import.meta.url, "again"],
    env: { DENO_NO_UPDATE_CHECK: "1" },
  }).output();
  const decoder = new TextDecoder();
  console.log(code, decoder.decode(stdout).trim());
  console.error(decoder.decode(stderr));
}
