/**
 * The program with one difference: back ends are never told to forget a translation. What a test of invalidation must
 * be able to notice.
 */
import { main } from "../../device/command/main.ts";
import { BackEndIotlb } from "../../device/endpoint/proxy/back_end_iotlb.ts";

BackEndIotlb.prototype.invalidate = function () {};
BackEndIotlb.prototype.invalidateAll = function () {};

Deno.exit(await main(Deno.args));
