/**
 * The devices behind the IOMMU under the front ends of five VMMs (`vmm_habits.ts`): every answer byte by byte, and after every
 * step the device is served through the translations of its endpoint.
 */
import { VMMS } from "../vhost_user/vmm_habits.ts";
import { replayLives } from "./device_lives.ts";
import { blk, rng } from "./replayed_device.ts";
import { ReplayedEndpoint } from "./replayed_service.ts";

replayLives(VMMS, "rng", () => new ReplayedEndpoint(rng()));
replayLives(VMMS, "blk", () => new ReplayedEndpoint(blk()));
