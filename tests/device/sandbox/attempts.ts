/**
 * What an attacker would try first, made in a process after it has entered the sandbox: in its main thread, or in one that
 * was there before.
 *
 * With arguments, the process is `viommu` with them; otherwise it enters a sandbox that needs nothing. It reads lines
 * `THREAD ATTEMPT PATH` and answers each with a line: the errno, or 0 if it succeeded.
 *
 * @module
 */
import { main } from "../../../device/command/main.ts";
import { addressOf, cString } from "../../../device/host/libc.ts";
import { SYSTEM_CALLS, systemCall } from "../../../device/host/system_calls.ts";
import { enterSandbox, NOTHING_NEEDED } from "../../../device/sandbox/mod.ts";

const AT_FDCWD = -100n & 0xffff_ffff_ffff_ffffn;
const O_RDWR = 2n;
const O_CREAT = 0o100n;
const [AF_UNIX, AF_INET, AF_INET6, SOCK_STREAM] = [1n, 2n, 10n, 1n];
const S = SYSTEM_CALLS;

/** Paths are given to the kernel by their addresses, and must be there that long. */
function withPath(path: string, call: (address: bigint) => number): number {
  const text = cString(path);
  const result = call(addressOf(text.buffer));
  // So that the text is still in use.
  return text.length > 0 ? result : 0;
}

/** Each attempt by its name; the result as of a system call. */
const ATTEMPTS: Readonly<Record<string, (path: string) => number>> = {
  read: (path) => withPath(path, (at) => systemCall(S.openat, AT_FDCWD, at)),
  write: (path) => withPath(path, (at) => systemCall(S.openat, AT_FDCWD, at, O_RDWR)),
  create: (path) =>
    withPath(path, (at) => systemCall(S.openat, AT_FDCWD, at, O_RDWR | O_CREAT, 0o600n)),
  remove: (path) => withPath(path, (at) => systemCall(S.unlinkat, AT_FDCWD, at)),
  unix: () => systemCall(S.socket, AF_UNIX, SOCK_STREAM),
  inet: () => systemCall(S.socket, AF_INET, SOCK_STREAM),
  inet6: () => systemCall(S.socket, AF_INET6, SOCK_STREAM),
  execve: (path) => withPath(path, (at) => systemCall(S.execve, at)),
  fork: () => systemCall(S.clone, 17n),
  clone3: () => systemCall(S.clone3),
  ptrace: () => systemCall(S.ptrace),
  mount: () => systemCall(S.mount),
  unshare: () => systemCall(S.unshare, 0x1000_0000n),
  readMemory: () => systemCall(S.process_vm_readv, BigInt(Deno.pid)),
  kill: () => systemCall(S.kill, 1n, 0n),
  tgkill: () => systemCall(S.tgkill, 1n, 1n, 0n),
  tiocsti: () => systemCall(S.ioctl, 0n, 0x5412n),
  accept: () => systemCall(S.accept, 0n),
};

/** Makes an attempt; the errno, or 0. */
function attempt(name: string, path: string): number {
  return Math.max(0, -ATTEMPTS[name](path));
}

const isWorker = typeof (globalThis as { postMessage?: unknown }).postMessage === "function";
if (isWorker) {
  const scope = globalThis as unknown as {
    onmessage: (event: MessageEvent<readonly [string, string]>) => void;
    postMessage(message: unknown): void;
  };
  scope.onmessage = ({ data: [name, path] }) => scope.postMessage(attempt(name, path));
  scope.postMessage("ready");
} else {
  const worker = new Worker(import.meta.url, { type: "module" });
  const answer = () => new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
  await answer();
  const input = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
  let served: Promise<number> | undefined;
  if (Deno.args.length > 0) served = main(Deno.args);
  else console.log(JSON.stringify(enterSandbox(NOTHING_NEEDED).missing));
  served?.then((code) => Deno.exit(code));
  for await (const line of input) {
    const [thread, name, path = ""] = line.trim().split(" ");
    if (thread === "main") console.log(attempt(name, path));
    else {
      worker.postMessage([name, path]);
      console.log(await answer());
    }
  }
}
