/**
 * What this process holds of the host, counted from outside the code under test: open descriptors and
 * mappings of memory files. Goes through libc, so that it needs no more permissions than the code.
 *
 * @module
 */
import { Descriptor } from "../../../device/host/mod.ts";
import { descriptorName, descriptorStatus } from "../../../device/host/file_status.ts";

const libc = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
}).symbols;

/** The kinds of descriptor the code under test makes, each with its number. */
const OURS = /^(socket:|anon_inode:\[eventfd\]|\/memfd:|pipe:)/;

/** Every open descriptor of a kind we make, as `number name`. */
export function openDescriptors(): string[] {
  const found: string[] = [];
  for (let number = 0; number < 1024; number++) {
    if (typeof descriptorStatus(number) === "number") continue;
    const name = descriptorName(number);
    if (OURS.test(name)) found.push(`${number} ${name}`);
  }
  return found;
}

/**
 * How many descriptors are open, but for pipes: the runtime closes those to other processes at some time after they have
 * ended, or after their streams were cancelled.
 */
export function descriptorCount(): number {
  return descriptorNames().filter((name) => !name.startsWith("pipe:")).length;
}

/** The names of all that is open; a path for a file. */
export function descriptorNames(): string[] {
  return [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => descriptorName(Number(name)));
}

/** Every mapping of a memory file whose name contains `name`. */
export function mappingsOf(name: string): string[] {
  const maps = readFile("/proc/self/maps");
  return maps.split("\n").filter((line) => line.includes("/memfd:") && line.includes(name));
}

/** A path in the temporary folder that no other test uses. */
export function temporaryPath(suffix = "sock"): string {
  return `/tmp/viommu-test-${Deno.pid}-${crypto.randomUUID().slice(0, 8)}.${suffix}`;
}

/** A datagram socket at a path, to which no stream can connect. */
export function datagramSocket(path: string): Descriptor {
  const AF_UNIX = 1;
  const SOCK_DGRAM = 2;
  const socket = new Descriptor(libc.socket(AF_UNIX, SOCK_DGRAM, 0));
  const address = new TextEncoder().encode(`\x01\0${path}\0`);
  if (libc.bind(socket.number, address, address.length) < 0) throw new Error(`Cannot bind ${path}`);
  return socket;
}

function readFile(path: string): string {
  const number = libc.open(new TextEncoder().encode(`${path}\0`), 0);
  if (number < 0) throw new Error(`Cannot open ${path}`);
  const decoder = new TextDecoder();
  const bytes = new Uint8Array(65536);
  let text = "";
  for (;;) {
    const count = libc.read(number, bytes, BigInt(bytes.length));
    if (count <= 0) break;
    text += decoder.decode(bytes.subarray(0, count), { stream: true });
  }
  libc.close(number);
  return text;
}
