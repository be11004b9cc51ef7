/** The version of the program. */
import configuration from "../../deno.json" with { type: "json" };

/** Version as in `deno.json`, such as `0.1.0`. */
export const VERSION: string = configuration.version;
