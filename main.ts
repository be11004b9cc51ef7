/**
 * The command line of viommu. `help` lists the commands, and `--help` after a command lists its options.
 *
 * ```sh
 * deno run --allow-ffi --allow-run main.ts demo
 * deno run --allow-ffi main.ts serve --socket-path /tmp/viommu.sock
 * ```
 *
 * @module
 */
import { main } from "./device/command/main.ts";

if (import.meta.main) Deno.exit(await main(Deno.args));
