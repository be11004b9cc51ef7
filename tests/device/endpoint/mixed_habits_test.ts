/**
 * The devices behind the IOMMU under front ends that are a random mix of those that there are: whichever way each step is
 * done, and in whichever order they come, the device is served through the translations of its endpoint.
 *
 * `VIOMMU_TEST=full` tries more of them.
 */
import { RUNS } from "../vhost_user/vmm_mix.ts";
import { blk, rng } from "./replayed_device.ts";
import { ReplayedEndpoint } from "./replayed_service.ts";
import { tryMixes } from "./service_session.ts";

Deno.test("rng: a front end that is a random mix of those that there are is served", () =>
  tryMixes(() => new ReplayedEndpoint(rng()), RUNS));

Deno.test("blk: a front end that is a random mix of those that there are is served", () =>
  tryMixes(() => new ReplayedEndpoint(blk()), RUNS));
