/**
 * The seccomp program, run by an interpreter of what it is made of (linux/filter.h), for both architectures: each call is
 * decided as its rule says, whatever the other arguments.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { ALLOWED, FATAL } from "../../../device/sandbox/allowed_calls.ts";
import { ENDING, makeFilter } from "../../../device/sandbox/filter.ts";
import { NOTHING_NEEDED, type SandboxPolicy } from "../../../device/sandbox/mod.ts";
import {
  type Architecture,
  type SystemCallName,
  systemCallNumbers,
} from "../../../device/host/system_calls.ts";

const PID = 4711;
const AUDIT = { x86_64: 0xc000003e, aarch64: 0xc00000b7 };
const [ALLOW, TRAP, KILL, ERRNO] = [0x7fff0000, 0x00030000, 0x80000000, 0x00050000];
const [EPERM, ENOSYS] = [1, 38];

/** What the program of a policy answers to a call. Throws if the kernel would not take the program. */
function decide(
  architecture: Architecture,
  policy: Partial<SandboxPolicy>,
  number: number,
  args: readonly bigint[] = [],
  { audit = AUDIT[architecture], hasHandler = true } = {},
): number {
  const whole = { ...NOTHING_NEEDED, ...policy };
  const program = new DataView(
    makeFilter(whole, { architecture, pid: PID, hasHandler }).buffer,
  );
  const count = program.byteLength / 8;
  assert(count <= 4096, "BPF_MAXINSNS");
  const call = new DataView(new ArrayBuffer(64));
  call.setUint32(0, number, true);
  call.setUint32(4, audit, true);
  args.forEach((arg, i) => call.setBigUint64(16 + 8 * i, arg, true));
  let accumulator = 0;
  for (let at = 0; at < count; at++) {
    const code = program.getUint16(8 * at, true);
    const [whenTrue, whenFalse] = [program.getUint8(8 * at + 2), program.getUint8(8 * at + 3)];
    const k = program.getUint32(8 * at + 4, true);
    if (code === 0x06) return k;
    if (code === 0x20) accumulator = call.getUint32(k, true);
    else if (code === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (code === 0x15) at += accumulator === k ? whenTrue : whenFalse;
    else if (code === 0x35) at += accumulator >= k ? whenTrue : whenFalse;
    else throw new Error(`There is no instruction ${code}`);
  }
  throw new Error("The program has no end");
}

const ARCHITECTURES: readonly Architecture[] = ["x86_64", "aarch64"];

for (const architecture of ARCHITECTURES) {
  const numbers = systemCallNumbers(architecture);
  /** What is decided about a call by its name. */
  const of = (
    name: SystemCallName,
    args: readonly bigint[] = [],
    policy: Partial<SandboxPolicy> = {},
    hasHandler = true,
  ) => decide(architecture, policy, numbers[name], args, { hasHandler });

  Deno.test(`what is listed is allowed, what ends the process is told apart, all else is refused (${architecture})`, () => {
    for (const name of ALLOWED) {
      if (numbers[name] >= 0 && name !== "ioctl") assertEquals(of(name), ALLOW, name);
    }
    for (const name of FATAL) {
      if (numbers[name] < 0) continue;
      assertEquals(of(name), TRAP | (ENDING.indexOf(name) + 1), name);
      assertEquals(of(name, [], {}, false), KILL, name);
    }
    const known = new Set(Object.values(numbers));
    for (let number = 0; number < 600; number++) {
      if (known.has(number)) continue;
      assertEquals(decide(architecture, {}, number), TRAP, `${number}`);
      assertEquals(decide(architecture, {}, number, [], { hasHandler: false }), ERRNO | EPERM);
    }
  });

  Deno.test(`calls of another architecture end the process (${architecture})`, () => {
    for (const audit of [0x40000003, 0xc000003e, 0xc00000b7, 0x40000028]) {
      if (audit === AUDIT[architecture]) continue;
      assertEquals(decide(architecture, {}, numbers.read, [], { audit }), KILL);
    }
    if (architecture === "x86_64") assertEquals(decide(architecture, {}, 0x40000000), KILL);
  });

  Deno.test(`arguments decide (${architecture})`, () => {
    const any = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const low = (value: bigint) => value & 0xffff_ffffn;
    fc.assert(
      fc.property(any, any, any, (a, b, c) => {
        const args = [a, b, c];
        // An int argument is what its lower half is.
        assertEquals(of("socket", args), TRAP);
        assertEquals(of("socket", args, { unixSockets: true }), low(a) === 1n ? ALLOW : TRAP);
        assertEquals(of("tgkill", args) === ALLOW, low(a) === BigInt(PID));
        assertEquals(of("prlimit64", args) === ALLOW, [0n, BigInt(PID)].includes(low(a)));
        assertEquals(of("openat", args) === ALLOW, (low(c) & 0x400243n) === 0n);
        assertEquals(of("openat", args, { writes: ["/"] }), ALLOW);
        assertEquals(of("clone", args) === ALLOW, (low(a) & 0x7e030000n) === 0x10000n);
        assertEquals(of("clone3", args), ERRNO | ENOSYS);
        assertEquals(of("clone3", args, { startsPrograms: true }, false), ALLOW);
      }),
      { examples: [[1n, 0n, 0n], [BigInt(PID), 0n, 0o2n], [0x3d0f00n, 0n, 0o100n]] },
    );
    for (const family of [1n, 2n, 10n, 16n]) {
      assertEquals(of("socket", [family], { network: true }), family === 1n ? TRAP : ALLOW);
    }
    assertEquals(of("ioctl", [0n, 0x541bn]), ALLOW);
    assertEquals(of("ioctl", [0n, 0x5412n]), TRAP | (ENDING.indexOf("ioctl") + 1));
    for (const name of ["mlock2", "munlock"] as const) {
      assertEquals([of(name), of(name, [], { locksMemory: true })], [TRAP, ALLOW]);
    }
  });
}
