/**
 * Makes one file of a program, for a guest that has Deno but neither this checkout nor a network.
 *
 * @module
 */
import { runText } from "./process.ts";

/** The folder of `deno.json`, which says what the imports are. */
const ROOT = new URL("../../../", import.meta.url);

/** Bundles a TypeScript program with all that it imports into the JavaScript file `output`. Throws ProgramError. */
export async function bundle(program: URL, output: string): Promise<void> {
  const options = ["--quiet", "--frozen", "--output", output];
  await runText([Deno.execPath(), "bundle", ...options, program.pathname], { cwd: ROOT.pathname });
}
