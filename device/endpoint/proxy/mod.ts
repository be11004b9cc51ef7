/**
 * Back ends of other programs behind the IOMMU: what stands between a VMM's vhost-user connection and a back end's, and
 * translates for the back end.
 *
 * `proxy_session.ts` passes messages, `back_end_iotlb.ts` gives and takes translations, `endpoint_proxy.ts` waits for
 * both sides. Translates the way every endpoint does, through `IommuDevice`. May import `device` and `pagetable`.
 *
 * @module
 */
export { EndpointProxy, type EndpointProxyOptions } from "./endpoint_proxy.ts";
export { ProxyCounters } from "./proxy_counters.ts";
export type { WriteOnly } from "./translated_run.ts";
