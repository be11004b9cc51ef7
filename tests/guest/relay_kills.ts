/**
 * A back end that is killed again and again while the guest uses its disk.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { isLong } from "../long_mode.ts";
import { until } from "../until.ts";
import type { Guest } from "./lab/mod.ts";
import { digest, relayOf } from "./relay_checks.ts";
import type { ServedDevice } from "./served_device.ts";

/** Times that the back end is killed. */
export const KILLS = isLong ? 20 : 4;
/** MiB that are written and read again and again meanwhile. */
const BULK = isLong ? 32 : 8;

/**
 * The guest writes and reads its disk while the back end is replaced again and again; nothing is lost.
 *
 * @param disk The image.
 * @param replace Kills the back end and starts another one.
 */
export async function killUnderLoad(
  guest: Guest,
  device: ServedDevice,
  disk: string,
  replace: () => Promise<void>,
): Promise<void> {
  await guest.run(`dd if=/dev/urandom of=/tmp/bulk bs=1M count=${BULK} 2>/dev/null`);
  // Writes and reads what it wrote, until it is told to stop; every round must be right.
  const write = "dd if=/tmp/bulk of=/dev/vda bs=64k oflag=direct 2>/tmp/err";
  const read = `dd if=/dev/vda bs=64k count=${BULK * 16} iflag=direct 2>/tmp/err`;
  await guest.run(
    `(n=0; while [ ! -e /tmp/stop ]; do ${write} && ${read} | cmp - /tmp/bulk || touch /tmp/wrong; ` +
      "n=$((n+1)); echo $n > /tmp/rounds; done; touch /tmp/done) > /dev/null 2>&1 &",
  );
  for (let i = 0; i < KILLS; i++) {
    const before = relayOf(await device.state(), "blk");
    await device.stateWhere("moving on", (state) => relayOf(state, "blk").chains > before.chains);
    // Anywhere in a round.
    await delay(Math.random() * 100);
    await replace();
    await device.stateWhere("connected again", (state) => {
      const relay = relayOf(state, "blk");
      return relay.connected && relay.reconnects === i + 1;
    });
  }
  await guest.run("touch /tmp/stop");
  await until(
    async () => (await guest.run("[ -e /tmp/done ] && echo yes || echo no"))[0] === "yes",
    "the last round ends",
    120_000,
  );
  assertEquals(await guest.run("[ -e /tmp/wrong ] && echo wrong || echo right"), ["right"]);
  const [line] = await guest.run("md5sum /tmp/bulk");
  assertEquals(line.slice(0, 32), await digest(disk, BULK << 20));
  const dmesg = (await guest.run("dmesg")).join("\n");
  assert(!/I\/O error|page fault/.test(dmesg), dmesg);
  const { resubmitted, reconnects, violations } = relayOf(await device.state(), "blk");
  const [rounds] = await guest.run("cat /tmp/rounds");
  console.error(`relay: ${reconnects} kills, ${resubmitted} requests again, ${rounds} rounds`);
  assertEquals([reconnects, violations], [KILLS, 0]);
}
