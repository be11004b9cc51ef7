/**
 * Proxied back ends: vhost-user back ends of other programs that translate I/O virtual addresses themselves. The proxy
 * stands between the VMM's connection and the back end's, and gives the back end the guest's translations. `README.md`
 * follows an UNMAP.
 */
export { EndpointProxy, type EndpointProxyOptions } from "./endpoint_proxy.ts";
export { ProxyCounters } from "./proxy_counters.ts";
export type { WriteOnly } from "./translated_run.ts";
