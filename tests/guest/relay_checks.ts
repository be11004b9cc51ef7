/**
 * Uses devices behind relays in a guest, and verifies the data on the host.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { isLong } from "../long_mode.ts";
import type { Guest } from "./lab/mod.ts";
import {
  endpointOf,
  GUEST_ADDRESS,
  HOST_ADDRESS,
  places,
  type RelayedName,
  TAG,
  VSOCK_PORT,
} from "./relay_machine.ts";
import type { State } from "./served_device.ts";

/** Bytes of the large files, and the number of small ones: an emulated guest starts several programs for each of those. */
const SIZES = isLong
  ? { bulk: 16 << 20, large: 32 << 20, written: 8 << 20, files: 50 }
  : { bulk: 8 << 20, large: 8 << 20, written: 4 << 20, files: 10 };

/** What `GET /v1/state` says of a relay. */
export interface RelayState {
  readonly connected: boolean;
  readonly reconnects: number;
  readonly chains: number;
  readonly toBackEnd: number;
  readonly toGuest: number;
  readonly inFlight: number;
  readonly resubmitted: number;
  readonly lateDropped: number;
  readonly unreadable: number;
  readonly tooLong: number;
  readonly violations: number;
  readonly timeouts: number;
  readonly medianMicroseconds: number;
  readonly p99Microseconds: number;
}

/** The relay of a device, or of an endpoint. */
export function relayOf(state: State, name: RelayedName | number): RelayState {
  const wanted = typeof name === "number" ? name : endpointOf(name);
  const endpoint = state.endpoints.find(({ id }) => id === wanted);
  assert(endpoint !== undefined && "relay" in endpoint, `${name} is relayed`);
  return endpoint.relay as RelayState;
}

/** A file system is made, filled and unmounted; the image on the host is what the guest sees. */
export async function checkDisk(guest: Guest, image: string): Promise<void> {
  await guest.run("mke2fs /dev/vda > /dev/null && mkdir -p /disk && mount -t ext2 /dev/vda /disk");
  await guest.run("seq 1 100000 > /disk/numbers && cp /bin/busybox /disk/busybox");
  await guest.run(`dd if=/dev/urandom of=/disk/bulk bs=1M count=${SIZES.bulk >> 20} 2>/dev/null`);
  const [before] = await guest.run("md5sum /disk/bulk");
  await guest.run("umount /disk; echo 3 > /proc/sys/vm/drop_caches; mount -o ro /dev/vda /disk");
  assertEquals((await guest.run("md5sum /disk/bulk"))[0], before);
  await guest.run("cmp /disk/busybox /bin/busybox && seq 1 100000 | cmp - /disk/numbers");
  await guest.run("umount /disk; echo 3 > /proc/sys/vm/drop_caches");
  const [line] = await guest.run("md5sum /dev/vda");
  assertEquals(line.slice(0, 32), await digest(image));
}

/** Files are made, read, written, renamed and removed; guest and host must have the same ones. */
export async function checkSharedFolder(guest: Guest, shared: string): Promise<void> {
  await Deno.writeFile(`${shared}/large`, random(SIZES.large));
  for (let i = 0; i < SIZES.files; i++) {
    await Deno.writeFile(`${shared}/small${i}`, random(Math.round(i * 16_384 / SIZES.files)));
  }
  await guest.run(`mkdir -p /shared && mount -t virtiofs ${TAG} /shared`);
  const [large] = await guest.run("md5sum /shared/large");
  assertEquals(large.slice(0, 32), await digest(`${shared}/large`));
  await guest.run(
    `dd if=/dev/urandom of=/shared/written bs=1M count=${SIZES.written >> 20} 2>/dev/null`,
  );
  await guest.run(
    `cd /shared; i=0; while [ $i -lt ${SIZES.files} ]; do echo file $i > made$i; cat small$i >> made$i; ` +
      "mkdir -p dir$((i % 7)); mv made$i dir$((i % 7))/moved$i; ln -s moved$i dir$((i % 7))/link$i; " +
      "[ $((i % 5)) = 0 ] && rm dir$((i % 7))/moved$i; i=$((i+1)); done; true",
  );
  const listing = "find . -type f | sort | xargs md5sum | md5sum; find . | sort | md5sum";
  await guest.run("sync; echo 3 > /proc/sys/vm/drop_caches");
  const inGuest = await guest.run(`cd /shared; ${listing}`);
  assertEquals(inGuest, await onHost(listing, shared));
  await guest.run("cd /; umount /shared");
}

/** Downloads a file over HTTP from the host. */
export async function checkNetwork(guest: Guest): Promise<void> {
  const content = random(8 << 20);
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    () => new Response(content),
  );
  try {
    await guest.run(`ip link set eth0 up && ip addr add ${GUEST_ADDRESS}/24 dev eth0`);
    await guest.run(
      `wget -q -O /tmp/download http://${HOST_ADDRESS}:${server.addr.port}/`,
    );
    const [line] = await guest.run("md5sum /tmp/download");
    assertEquals(line.slice(0, 32), await digestOf(content));
  } finally {
    await server.shutdown();
  }
}

/** Sends bytes to the host and back over vsock. */
export async function checkVsock(guest: Guest, folder: string): Promise<void> {
  const bytes = 4 << 20;
  using listener = Deno.listen({ transport: "unix", path: places(folder).vsock });
  async function echo(): Promise<void> {
    using connection = await listener.accept();
    const buffer = new Uint8Array(65_536);
    for (let left = bytes; left > 0;) {
      const count = await connection.read(buffer) ?? 0;
      assert(count > 0, "the guest sends all of it");
      for (let done = 0; done < count;) {
        done += await connection.write(buffer.subarray(done, count));
      }
      left -= count;
    }
    // Until the guest has read all of it and closes the connection.
    while (await connection.read(buffer).catch(() => null) !== null);
  }
  await guest.run(`dd if=/dev/urandom of=/tmp/sent bs=${bytes} count=1 2>/dev/null`);
  await Promise.all([
    echo(),
    guest.run(`vsock_echo ${VSOCK_PORT} /tmp/sent /tmp/back && cmp /tmp/sent /tmp/back`),
  ]);
}

/** A process has no shared memory but that of its relay. */
export async function checkConfined(name: RelayedName, pid: number): Promise<void> {
  const maps = await Deno.readTextFile(`/proc/${pid}/maps`);
  const shared = maps.split("\n").filter((line) => line.includes("memfd:"));
  assert(shared.length > 0, `${name} has the relay's memory`);
  for (const line of shared) assert(line.includes("memfd:viommu-relay"), `${name}: ${line}`);
  for await (const { name: number } of Deno.readDir(`/proc/${pid}/fd`)) {
    const target = await Deno.readLink(`/proc/${pid}/fd/${number}`);
    assert(!target.includes("memory-backend"), `${name}: descriptor ${number} is ${target}`);
  }
}

/** Random bytes. */
export function random(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(length, at + 65_536)));
  }
  return bytes;
}

/** MD5 of a file, or of its first bytes. */
export async function digest(path: string, length?: number): Promise<string> {
  const text = length === undefined ? `md5sum < ${path}` : `head -c ${length} ${path} | md5sum`;
  return (await onHost(text, "/"))[0].slice(0, 32);
}

async function digestOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeFile(path, bytes);
    return await digest(path);
  } finally {
    await Deno.remove(path);
  }
}

/** Output lines of a shell command. */
async function onHost(command: string, folder: string): Promise<readonly string[]> {
  const { stdout, success } = await new Deno.Command("sh", {
    args: ["-c", command],
    cwd: folder,
    env: { LC_ALL: "C" },
  }).output();
  assert(success, command);
  return new TextDecoder().decode(stdout).trimEnd().split("\n");
}
