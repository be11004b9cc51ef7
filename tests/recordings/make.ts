/**
 * Makes the recordings of this folder: boots guests in the guest lab whose device is recorded.
 *
 * ```sh
 * deno run -A tests/recordings/make.ts
 * ```
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { prepareLab } from "../guest/lab/mod.ts";
import { mapAndCompare, VTD_SECOND_STAGE } from "../guest/mapping_comparison.ts";
import { bootPlain, EDU_ENDPOINT } from "../guest/plain_machine.ts";
import { Random } from "../guest/random.ts";
import { temporaryFolder } from "../guest/temporary_folder.ts";

/** I/O addresses that every table format has, so that each can replay them. */
const EVERY_FORMAT = ["--input-range", "0-0xfffffffffff"];
/** What the guest maps is the same each time, but for where its memory is. */
const SEED = 20_261_201;

const lab = await prepareLab("x86_64");
await using folder = await temporaryFolder();
const file = `${folder.path}/life.rec`;
await using plain = await bootPlain(lab, folder.path, [...EVERY_FORMAT, "--record", file]);
const { guest, device } = plain;
await mapAndCompare(guest, device, EDU_ENDPOINT, VTD_SECOND_STAGE, new Random(SEED));
await guest.closeVfio();
await guest.powerOff();
if (await device.stop() !== 0) throw new Error("serve has failed");
await Deno.copyFile(file, fileURLToPath(import.meta.resolve("./boot_and_map.rec")));
