/**
 * Back ends of other programs behind the IOMMU: what stands between a VMM's vhost-user connection and a back end's, and
 * translates for the back end.
 *
 * `proxy_session.ts` passes messages, `back_end_iotlb.ts` gives and takes translations, `endpoint_proxy.ts` waits for
 * both sides. Translates the way every endpoint does, through `IommuDevice`. May import `device` and `pagetable`.
 *
 * @module
 */
export * from "./back_end_channel.ts";
export * from "./back_end_iotlb.ts";
export * from "./config_access.ts";
export * from "./endpoint_proxy.ts";
export * from "./front_end_replies.ts";
export * from "./iotlb_message.ts";
export * from "./protocol_agreement.ts";
export * from "./proxy_counters.ts";
export * from "./proxy_session.ts";
export * from "./remembered_misses.ts";
export * from "./reply_order.ts";
export * from "./translated_run.ts";
export * from "./user_regions.ts";
