/**
 * The program with one difference: it never sends an INVALIDATE to a back end. Tests of invalidation must fail with it.
 */
import { main } from "../../device/command/main.ts";
import { BackEndIotlb } from "../../device/endpoint/proxy/back_end_iotlb.ts";

BackEndIotlb.prototype.invalidate = function () {};
BackEndIotlb.prototype.invalidateAll = function () {};

Deno.exit(await main(Deno.args));
