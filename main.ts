/**
 * The command line of viommu.
 *
 * @module
 */
import { main } from "./device/command/main.ts";

if (import.meta.main) Deno.exit(await main(Deno.args));
