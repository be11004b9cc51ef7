/** The sandbox of real processes: what is refused, what is reported, and that everything is served all the same. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { deadline } from "@std/async";
import { HANG_MS, until } from "../../until.ts";
import { connect, exitCode, kill, start, withServe } from "../served_process.ts";
import { namesIn } from "../command/test_folder.ts";
import { loadOptions, useEverything } from "./load.ts";

const ATTEMPTS = new URL("attempts.ts", import.meta.url).href;
const [EPERM, EACCES, ENOSYS] = [1, 13, 38];

/** A process that makes attempts. */
class Attacker implements AsyncDisposable {
  readonly process: Deno.ChildProcess;
  readonly log: Promise<string>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";

  constructor(args: readonly string[]) {
    this.process = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", "--allow-all", ATTEMPTS, ...args],
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.log = new Response(this.process.stderr).text();
    this.#writer = this.process.stdin.getWriter();
    this.#lines = this.process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The next line that it says; empty if it has ended. */
  async line(): Promise<string> {
    while (!this.#rest.includes("\n")) {
      const { value, done } = await deadline(this.#lines.read(), HANG_MS);
      if (done) return "";
      this.#rest += value;
    }
    const at = this.#rest.indexOf("\n");
    const line = this.#rest.slice(0, at);
    this.#rest = this.#rest.slice(at + 1);
    return line;
  }

  /** Has it make an attempt; what it says of it. */
  async try(thread: string, name: string, path = ""): Promise<string> {
    await this.#writer.write(new TextEncoder().encode(`${thread} ${name} ${path}\n`));
    return await this.line();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await kill(this.process);
    await this.log;
    await this.#writer.close().catch(() => {});
    await this.#lines.cancel();
  }
}

Deno.test("in its sandbox, serve opens, makes and removes no file, makes no socket, and says what was refused", async () => {
  const folder = await Deno.makeTempDir();
  const other = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${other}/secret`, "");
    const api = `${folder}/api`;
    await using attacker = new Attacker([
      ...["serve", "--socket-path", `${folder}/s`, "--api-socket", api, "--sandbox", "strict"],
    ]);
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
    const state = () => fetch("http://127.0.0.1/v1/state", { client }).then((each) => each.json());
    await until(() => state().then(() => true, () => false), "the API answers");
    for (const thread of ["main", "worker"]) {
      const results: Record<string, number> = {};
      const cases: Readonly<Record<string, readonly [string, string]>> = {
        "a file": ["read", `${other}/secret`],
        "a file of the system": ["read", "/etc/passwd"],
        "a file beside the sockets": ["read", `${folder}/x`],
        "a file for writing": ["write", `${other}/secret`],
        "the process's memory for writing": ["write", "/proc/self/mem"],
        "the memory of another process": ["read", `/proc/${Deno.pid}/mem`],
        "the environment of another process": ["read", `/proc/${Deno.pid}/environ`],
        "a new file": ["create", `${other}/new`],
        "a new file beside the sockets": ["create", `${folder}/new`],
        "a file elsewhere, to be removed": ["remove", `${other}/secret`],
        "a unix socket": ["unix", ""],
        "a TCP socket": ["inet", ""],
        "a TCP socket of version 6": ["inet6", ""],
        "a call that is not listed": ["accept", ""],
        "a call that the C library does without": ["clone3", ""],
      };
      await Deno.writeTextFile(`${folder}/x`, "");
      for (const [what, [name, path]] of Object.entries(cases)) {
        results[what] = Number(await attacker.try(thread, name, path));
      }
      assertEquals(results, {
        "a file": EACCES,
        "a file of the system": EACCES,
        "a file beside the sockets": EACCES,
        "a file for writing": EPERM,
        "the process's memory for writing": EPERM,
        "the memory of another process": EACCES,
        "the environment of another process": EACCES,
        "a new file": EPERM,
        "a new file beside the sockets": EPERM,
        "a file elsewhere, to be removed": EACCES,
        "a unix socket": EPERM,
        "a TCP socket": EPERM,
        "a TCP socket of version 6": EPERM,
        "a call that is not listed": EPERM,
        "a call that the C library does without": ENOSYS,
      }, thread);
    }
    const { sandbox } = await state();
    assertEquals([sandbox.mode, sandbox.missing], ["strict", {}]);
    assertEquals(sandbox.inForce, ["limits", "landlock", "capabilities", "seccomp", "reports"]);
    assertEquals([sandbox.refused.openat, sandbox.refused.accept], [8, 2]);
    // The runtime may look for a new version of itself at the same time.
    assert(sandbox.refused.socket >= 6);
    using session = await connect(`${folder}/s`);
    session.frontEnd.close();
    attacker.process.kill("SIGTERM");
    assertEquals(await exitCode(attacker.process), 0);
    const names = await namesIn(folder);
    assertEquals(names, ["x"]);
    const log = await attacker.log;
    assertStringIncludes(log, "viommu: warn: The sandbox refused accept\n");
    assertStringIncludes(log, "The sandbox refused openat");
  } finally {
    await Deno.remove(folder, { recursive: true });
    await Deno.remove(other, { recursive: true });
  }
});

Deno.test("each thread of serve has no new privileges, no capabilities, and a filter", async () => {
  await withServe(["--sandbox", "strict"], async ({ process: { pid } }) => {
    const privileged = 0n;
    const threads = await namesIn(`/proc/${pid}/task`);
    assert(threads.length > 2);
    for (const name of threads) {
      const status = await Deno.readTextFile(`/proc/${pid}/task/${name}/status`);
      const field = (which: string) => RegExp(`^${which}:\\s*(\\w+)$`, "m").exec(status)?.[1] ?? "";
      assertEquals([field("NoNewPrivs"), field("Seccomp")], ["1", "2"], status);
      // CAP_DAC_OVERRIDE at most, with which root removes sockets in folders of others.
      assertEquals(BigInt(`0x${field("CapPrm")}`) & ~2n, privileged, status);
      assertEquals(BigInt(`0x${field("CapEff")}`) & ~2n, privileged, status);
    }
    const limits = await Deno.readTextFile(`/proc/${pid}/limits`);
    assert(/Max core file size +0 +0 /.test(limits), limits);
  });
});

const ENDING = [
  "execve",
  "fork",
  "ptrace",
  "mount",
  "unshare",
  "readMemory",
  "kill",
  "tgkill",
  "tiocsti",
];
/** What the kernel calls it. */
const CALLS: Readonly<Record<string, string>> = {
  fork: "clone",
  readMemory: "process_vm_readv",
  tiocsti: "ioctl",
};

for (const [i, name] of ENDING.entries()) {
  const thread = i % 2 === 0 ? "worker" : "main";
  Deno.test(`${name} ends a process in the sandbox, with a line that says so (${thread} thread)`, async () => {
    await using attacker = new Attacker([]);
    assertEquals(await attacker.line(), "{}");
    assertEquals(await attacker.try(thread, name, "/bin/true"), "");
    assertEquals(await exitCode(attacker.process), 159);
    const call = CALLS[name] ?? name;
    assertStringIncludes(
      await attacker.log,
      `error: The sandbox refuses ${call}: the process ends`,
    );
  });
}

Deno.test("everything is served in the sandbox, and none of it is refused a system call", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const env = { DENO_NO_UPDATE_CHECK: "1" };
    const options = [...loadOptions(folder), "--sandbox", "strict"];
    const served = await start(folder, options, env);
    try {
      await useEverything(served);
      using client = Deno.createHttpClient({ proxy: { transport: "unix", path: served.api } });
      const state = await fetch("http://127.0.0.1/v1/state", { client });
      assertEquals((await state.json()).sandbox.refused, {});
      served.process.kill("SIGTERM");
      assertEquals(await exitCode(served.process), 0);
      const names = await namesIn(folder);
      assertEquals(names, ["image", "second"]);
    } finally {
      await kill(served.process);
      await served.log;
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("what the API adds may be in folders that options name, and nowhere else", async () => {
  const [folder, named, other] = await Promise.all([1, 2, 3].map(() => Deno.makeTempDir()));
  try {
    const args = ["--api-access", "full", "--sandbox-path", named];
    await withServe(args, async ({ api }) => {
      using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
      const results: Record<string, number> = {};
      for (const [where, path] of Object.entries({ named, other })) {
        await Deno.writeFile(`${path}/image`, new Uint8Array(512));
        const values = [
          `rng:8,socket=${path}/rng`,
          `blk:16,socket=${named}/blk,file=${path}/image`,
        ];
        for (const value of values) {
          const body = JSON.stringify({ "endpoint-device": value });
          const answer = await fetch("http://127.0.0.1/v1/endpoints", {
            client,
            method: "POST",
            body,
          });
          const text = await answer.text();
          results[`${where} ${value.slice(0, 3)}`] = answer.status;
          if (where === "other") assertStringIncludes(text, "--sandbox-path");
        }
        for (const endpoint of [8, 16]) {
          const url = `http://127.0.0.1/v1/endpoints/${endpoint}`;
          await (await fetch(url, { client, method: "DELETE" })).body?.cancel();
        }
      }
      assertEquals(results, {
        "named rng": 200,
        "named blk": 200,
        "other rng": 409,
        "other blk": 409,
      });
    });
  } finally {
    for (const each of [folder, named, other]) await Deno.remove(each, { recursive: true });
  }
});

Deno.test("serve --sandbox off serves without a sandbox, and says so", async () => {
  await withServe(["--sandbox", "off"], async ({ api, process: { pid } }) => {
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
    const { sandbox } = await fetch("http://127.0.0.1/v1/state", { client }).then((each) =>
      each.json()
    );
    assertEquals(sandbox, { mode: "off", inForce: [], missing: {}, refused: {} });
    assert(/^Seccomp:\s*0$/m.test(await Deno.readTextFile(`/proc/${pid}/status`)));
  });
});

Deno.test("a process in a sandbox that may start programs starts one, which enters a narrower one", async () => {
  const starter = new URL("starter.ts", import.meta.url).href;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-check", "--allow-all", starter],
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
  }).output();
  const text = new TextDecoder();
  assertEquals([code, text.decode(stdout).split("\n").slice(0, 2)], [0, [
    "limits,landlock,capabilities,seccomp",
    "0 limits,landlock,capabilities,seccomp,reports",
  ]], text.decode(stderr));
});
