/** Files that another process has open, seen and taken from outside. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  Descriptor,
  descriptorsClosed,
  isSameFile,
  type PeerFile,
  peerFiles,
  PeerProcess,
  takePeerFile,
  UnixListener,
  UnixStream,
} from "../../../device/host/mod.ts";
import { withoutRights } from "../command/test_folder.ts";
import { descriptorNames, temporaryPath } from "./host_state.ts";

/** A process that holds a file as descriptor 9, until disposed of. */
class Holder implements AsyncDisposable {
  readonly file = temporaryPath("file");
  readonly process: PeerProcess;
  readonly #child: Deno.ChildProcess;

  private constructor(child: Deno.ChildProcess, file: string) {
    this.#child = child;
    this.file = file;
    this.process = PeerProcess.ofProcess(child.pid)!;
  }

  /** @param before What starts it, such as `setpriv` with its options. */
  static async start(before: readonly string[] = []): Promise<Holder> {
    const file = temporaryPath("file");
    const [program, ...args] = [...before, "sh", "-c", `exec 9<>${file}; echo; exec cat`];
    const child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped" }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    await reader.cancel();
    return new Holder(child, file);
  }

  /** The file as the process has it. */
  find(): readonly PeerFile[] | string {
    return peerFiles(this.process, (name) => name === this.file);
  }

  async end(): Promise<void> {
    await this.#child.stdin.close();
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.close();
    await this.end().catch(() => {});
    await Deno.remove(this.file);
  }
}

Deno.test("a file that another process has open is found by its name, and taken", async () => {
  await using holder = await Holder.start();
  const files = holder.find();
  assertEquals(files, [{ number: 9, name: holder.file }]);
  using one = takePeerFile(holder.process, (files as readonly PeerFile[])[0]) as Descriptor;
  using two = holder.process.fileOf(9) as Descriptor;
  // One open file: not only one name.
  assert(isSameFile(one, two));
  await Deno.writeTextFile(`/proc/self/fd/${one.number}`, "written through the copy");
  assertEquals(await Deno.readTextFile(holder.file), "written through the copy");
  const flags = await Deno.readTextFile(`/proc/self/fdinfo/${one.number}`);
  // O_CLOEXEC, in octal: a program that is started later does not get it.
  assertMatch(flags, /^flags:\s+02[0-9]+$/m);
  one.close();
  two.close();
  await descriptorsClosed();
  assertEquals(descriptorNames().filter((name) => name === holder.file), []);
});

Deno.test("two openings of one path are two files, a duplicate is the same", async () => {
  const path = temporaryPath("file");
  using _one = await Deno.open(path, { write: true, create: true });
  using _two = await Deno.open(path);
  using first = numberOf(path, 0);
  using second = numberOf(path, 1);
  using copy = first.duplicate();
  assert(isSameFile(first, copy));
  assert(!isSameFile(first, second));
  await Deno.remove(path);
});

/** A duplicate of the descriptor that the runtime has for a path, of several the one with this index. */
function numberOf(path: string, index: number): Descriptor {
  const files = peerFiles(PeerProcess.ofProcess(Deno.pid)!, (name) => name === path);
  if (typeof files === "string") throw new Error(files);
  const borrowed = new Descriptor(files[index].number);
  const copy = borrowed.duplicate();
  borrowed.take();
  return copy;
}

Deno.test("the process behind a connection is the one whose files are taken", () => {
  const path = temporaryPath();
  const listener = UnixListener.listen(path);
  const client = UnixStream.connect(path);
  const server = listener.accept()!;
  const process = PeerProcess.of(server)!;
  assertEquals(process.pid, Deno.pid);
  const files = peerFiles(process, (name) => name.startsWith("socket:"));
  assert(files.length >= 3, JSON.stringify(files));
  for (const each of [client, server, listener, process]) each.close();
});

Deno.test("what cannot be taken is said in one line: no such number, a process that has ended", async () => {
  await using holder = await Holder.start();
  const { process } = holder;
  const what = `Cannot take descriptor 77 (/dev/iommu) of process ${process.pid}`;
  assertEquals(
    takePeerFile(process, { number: 77, name: "/dev/iommu" }),
    `${what}: pidfd_getfd failed: EBADF`,
  );
  await holder.end();
  assertEquals(takePeerFile(process, { number: 77, name: "/dev/iommu" }), `${what}: it has ended`);
  assertEquals(
    holder.find(),
    `Cannot look for open files of process ${process.pid}: it has ended`,
  );
});

Deno.test({
  name: "a process of another user needs CAP_SYS_PTRACE, which is said in one line",
  ignore: Deno.uid() !== 0,
  async fn() {
    await using holder = await Holder.start(["setpriv", "--reuid=65534", "--clear-groups"]);
    const folder = await Deno.makeTempDir();
    await withoutRights(folder, () => {
      const problem = takePeerFile(holder.process, { number: 9, name: holder.file });
      const what = `Cannot take descriptor 9 (${holder.file}) of process ${holder.process.pid}`;
      assertStringIncludes(
        `${problem}`,
        `${what}: pidfd_getfd failed: EPERM; it needs the user and groups of that process`,
      );
      assertMatch(`${problem}`, /, or CAP_SYS_PTRACE$/);
      return Promise.resolve();
    });
    await Deno.remove(folder);
  },
});

Deno.test("the files of a process that may not be traced are not shown, which is said in one line", async () => {
  await using holder = await Holder.start();
  const folder = await Deno.makeTempDir();
  await withoutRights(folder, () => {
    // Root's own process, seen by another user; for anybody else, the first process, which is root's.
    const process = Deno.uid() === 0 ? holder.process : PeerProcess.ofProcess(1)!;
    const files = peerFiles(process, () => true);
    assertMatch(
      `${files}`,
      /^Cannot look for open files of process \d+: open failed: EACCES; it needs the user .* CAP_SYS_PTRACE$/,
    );
    if (process !== holder.process) process.close();
    return Promise.resolve();
  });
  await Deno.remove(folder);
});
