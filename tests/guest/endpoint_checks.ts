/**
 * Uses the devices behind the IOMMU in a guest, and verifies the data on the host.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { randomSequence } from "../device/endpoint/random_sequence.ts";
import { isLong } from "../long_mode.ts";
import { BLK, endpointState, RNG, SEED, SERIAL } from "./endpoint_machine.ts";
import { Ext2Image } from "./ext2_image.ts";
import type { Arch } from "./lab/arch.ts";
import { busyboxFor } from "./lab/busybox.ts";
import type { Guest } from "./lab/mod.ts";
import type { ServedDevice } from "./served_device.ts";

/** Bytes moved when the throughput of the block device is measured. */
export const BULK = 64 << 20;
/** Numbers that are written into one file, and small files that are written. */
const NUMBERS = isLong ? 200_000 : 50_000;
const FILES = isLong ? 200 : 50;
/** Bytes of random data that identify their place in the sequence. */
const RECOGNISABLE = 8;

/** The first bytes of the rng, in hexadecimal: more than a test takes. */
const SEQUENCE = hex(randomSequence(SEED, 1 << 18));

/** Bytes as hexadecimal text. */
function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The offset of bytes, given in hexadecimal, in the rng's sequence, at or after `from`; −1 if they are not in it. */
export function placeOf(text: string, from = 0): number {
  let at = SEQUENCE.indexOf(text, from * 2);
  while (at >= 0 && at % 2 !== 0) at = SEQUENCE.indexOf(text, at + 1);
  return at < 0 ? -1 : at / 2;
}

/**
 * `/dev/hwrng` gives our bytes, in order. The kernel takes some for itself in between. It asks for 64 at a time and
 * hands them out from the end, so only whole 64 come in order.
 */
export async function checkRandom(guest: Guest, device: ServedDevice): Promise<void> {
  const [current] = await guest.run("cat /sys/class/misc/hw_random/rng_current");
  assert(current.startsWith("virtio_rng"), current);
  const lines = await guest.run("dd if=/dev/hwrng bs=64 count=16 2>/dev/null | xxd -p -c 32");
  let rest = lines.join("");
  assertEquals(rest.length, 2 * 64 * 16);
  let from = 0;
  while (rest.length > 0) {
    from = placeOf(rest.slice(0, 2 * RECOGNISABLE), from);
    assert(from >= 0, `foreign bytes: ${rest}`);
    let length = 0;
    while (length < rest.length && rest[length] === SEQUENCE[2 * from + length]) length++;
    length -= length % 2;
    from += length / 2;
    rest = rest.slice(length);
  }
  const { faults, device: counts } = await endpointState(device, RNG);
  assertEquals([faults, counts?.faults], [0, 0]);
  assert(counts !== undefined && counts.requests > 0 && counts.writtenBytes >= 1024);
}

/** A file system is made, filled, unmounted; afterwards the image holds all of it, byte by byte. */
export async function checkFileSystem(
  guest: Guest,
  device: ServedDevice,
  image: string,
  arch: Arch = "x86_64",
): Promise<void> {
  assertEquals(await guest.run("cat /sys/block/vda/serial"), [SERIAL]);
  await guest.run("mke2fs /dev/vda > /dev/null && mkdir -p /mnt && mount -t ext2 /dev/vda /mnt");
  await guest.run(`seq 1 ${NUMBERS} > /mnt/numbers && cp /bin/busybox /mnt/ && mkdir /mnt/many`);
  await guest.run(
    `i=0; while [ $i -lt ${FILES} ]; do echo file $i > /mnt/many/$i; i=$((i+1)); done`,
  );
  await guest.run("rm /mnt/many/7 && sync && umount /mnt");
  await guest.run("echo 3 > /proc/sys/vm/drop_caches; mount -t ext2 -o ro /dev/vda /mnt");
  await guest.run(`cmp /mnt/busybox /bin/busybox && seq 1 ${NUMBERS} | cmp - /mnt/numbers`);
  await guest.run("umount /mnt; echo 3 > /proc/sys/vm/drop_caches");
  const [line] = await guest.run("md5sum /dev/vda");

  const bytes = await Deno.readFile(image);
  const digest = await new Deno.Command("md5sum", { args: [image], stdout: "piped" }).output();
  assertEquals(line.slice(0, 32), new TextDecoder().decode(digest.stdout).slice(0, 32));
  const files = new Ext2Image(bytes).files();
  const numbers = Array.from({ length: NUMBERS }, (_, i) => `${i + 1}\n`).join("");
  const expected = new Map([
    ["/numbers", new TextEncoder().encode(numbers)],
    ["/busybox", await Deno.readFile(await busyboxFor(arch))],
  ]);
  for (let i = 0; i < FILES; i++) {
    if (i !== 7) expected.set(`/many/${i}`, new TextEncoder().encode(`file ${i}\n`));
  }
  assertEquals([...files.keys()].sort(), [...expected.keys()].sort());
  for (const [path, content] of expected) {
    const found = files.get(path)!;
    assertEquals(found.length, content.length, path);
    assert(found.every((byte, i) => byte === content[i]), `${path} is as it was written`);
  }
  const { faults, device: counts } = await endpointState(device, BLK);
  assertEquals([faults, counts?.faults], [0, 0]);
  assert(counts !== undefined && counts.iotlbHits > 0 && counts.iotlbMisses > 0);
}

/** MiB a second. */
export interface Throughput {
  readonly write: number;
  readonly read: number;
}

/** Writes 64 MiB of new random bytes to the disk and reads them back; they must be the same. */
export async function measure(guest: Guest): Promise<Throughput> {
  // The file that the bytes are read into gets its memory first: allocating it takes the guest longer than the disk.
  await guest.run(
    "dd if=/dev/urandom of=/tmp/bulk bs=1M count=64 conv=notrunc 2>/dev/null && " +
      "dd if=/dev/zero of=/tmp/back bs=1M count=64 conv=notrunc 2>/dev/null",
  );
  const write = await timed(guest, "dd if=/tmp/bulk of=/dev/vda bs=1M oflag=direct 2>/dev/null");
  const read = await timed(
    guest,
    "dd if=/dev/vda of=/tmp/back bs=1M count=64 iflag=direct conv=notrunc 2>/dev/null",
  );
  const digests = (await guest.run("md5sum /tmp/bulk /tmp/back")).map((line) => line.slice(0, 32));
  assertEquals(digests[0], digests[1], "what was written is read");
  return { write, read };
}

/** MiB a second at which a command moves 64 MiB. */
async function timed(guest: Guest, command: string): Promise<number> {
  const lines = await guest.run(
    `cut -d' ' -f1 /proc/uptime; ${command}; cut -d' ' -f1 /proc/uptime`,
  );
  const seconds = Math.max(0.01, Number(lines[1]) - Number(lines[0]));
  return BULK / (1 << 20) / seconds;
}

/** The first 64 MiB of the image are what the guest has in `/tmp/bulk`. */
export async function checkBulk(guest: Guest, image: string): Promise<void> {
  const [line] = await guest.run("md5sum /tmp/bulk");
  const head = new Deno.Command("head", { args: ["-c", `${BULK}`, image], stdout: "piped" });
  const md5 = new Deno.Command("md5sum", { stdin: "piped", stdout: "piped" }).spawn();
  const input = md5.stdin.getWriter();
  await input.write((await head.output()).stdout);
  await input.close();
  const { stdout } = await md5.output();
  assertEquals(line.slice(0, 32), new TextDecoder().decode(stdout).slice(0, 32));
}
