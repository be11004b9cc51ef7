/** `serve` where its host or its user fails it: log lines that nothing takes, signals at any time, wrong paths. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { Descriptor, SharedMemory, UnixStream } from "../../../device/host/mod.ts";
import { cString, libc } from "../../../device/host/libc.ts";
import { F_GET_SEALS } from "../../../device/host/constants.ts";
import { FrontEnd, Request } from "../../../device/vhost_user/mod.ts";
import { until } from "../../until.ts";
import { connect, DENO, exists, exitCode, kill, send, withServe } from "../served_process.ts";
import { viommu } from "./in_process.ts";
import { namesIn, withFolder } from "./test_folder.ts";

/** Starts `serve`, with its log lines going where a shell puts them. */
function startInShell(socket: string, args: string, redirection: string): Deno.ChildProcess {
  const serve = `'${Deno.execPath()}' ${DENO.join(" ")} serve --socket-path ${socket} ${args}`;
  return new Deno.Command("bash", {
    args: ["-c", `exec ${serve} ${redirection}`],
    env: { NO_COLOR: "1" },
    stderr: "piped",
  }).spawn();
}

/** Whether something listens; there is a moment at which there is a socket already and nothing does. */
function isListening(socket: string): boolean {
  try {
    UnixStream.connect(socket).close();
    return true;
  } catch {
    return false;
  }
}

/** What takes log lines, and how: all of them would have ended `serve`, or stopped it. */
const PLACES: readonly [string, string, (process: Deno.ChildProcess) => Promise<void> | void][] = [
  ["a full disk", "2>/dev/full", () => {}],
  ["a pipe that is not read", "", () => {}],
  ["a pipe that is closed", "", (process) => process.stderr.cancel()],
  ["a pipe that was never open", "2>&-", () => {}],
];

for (const [name, redirection, prepare] of PLACES) {
  Deno.test(`serve serves with its log lines going to ${name}`, async () => {
    await withFolder(async (folder) => {
      const socket = `${folder}/s`;
      const process = startInShell(socket, "--log-level debug", redirection);
      try {
        await until(() => isListening(socket), "it listens");
        await prepare(process);
        using session = await connect(socket);
        // A line for each: more than a pipe holds.
        for (let i = 0; i < 3000; i++) await session.frontEnd.ask(Request.GET_QUEUE_NUM);
        assertEquals(await send(session, attachRequest(3, 24)), "OK");
        session.frontEnd.close();
        process.kill("SIGTERM");
        assertEquals(await exitCode(process), 0);
        assertEquals(await exists(socket), false);
      } finally {
        await kill(process);
        await process.stderr.cancel().catch(() => {});
      }
    });
  });
}

Deno.test("a VMM that connects again and again cannot fill the log", async () => {
  const log = await withServe([], async ({ socket }) => {
    for (let i = 0; i < 300; i++) {
      const frontEnd = FrontEnd.connect(socket);
      await frontEnd.ask(Request.GET_FEATURES).catch(() => {});
      frontEnd.close();
    }
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
  });
  assert(log.split("\n").length < 100, `${log.split("\n").length} lines`);
});

Deno.test("SIGTERM ends serve in order at whatever moment it comes, as soon as there is a socket", async () => {
  await withFolder(async (folder) => {
    const socket = `${folder}/s`;
    for (let i = 0; i < 3; i++) {
      const process = startInShell(socket, `--api-socket ${folder}/api`, "2>/dev/null");
      try {
        while (!await exists(socket));
        process.kill("SIGTERM");
        assertEquals(await exitCode(process), 0);
        assertEquals([await exists(socket), await exists(`${folder}/api`)], [false, false]);
      } finally {
        await kill(process);
        await process.stderr.cancel();
      }
    }
  });
});

Deno.test("a socket path that cannot be listened on is told of in one line", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/file`;
    await Deno.writeTextFile(file, "");
    await Deno.symlink(file, `${folder}/link`);
    const cases = [
      [file, "something that is not a socket is there"],
      [`${folder}/link`, "something that is not a socket is there"],
      [`${folder}/none/s`, "ENOENT"],
    ];
    for (const [path, reason] of cases) {
      for (const option of ["--socket-path", "--api-socket"]) {
        const args = option === "--socket-path" ? [] : ["--socket-path", `${folder}/s`];
        const { code, err: text } = await viommu([
          "serve",
          ...args,
          "--log-level",
          "error",
          option,
          path,
        ]);
        assertEquals([code, text.trimEnd().split("\n").length], [1, 1], text);
        assertStringIncludes(text, "viommu: Cannot ");
        assertStringIncludes(text, reason);
        assertEquals(await exists(`${folder}/s`), false);
      }
    }
  });
});

Deno.test("serve takes guest memory in a file only where it is told to", async () => {
  const path = await Deno.makeTempFile({ dir: "." });
  try {
    await Deno.truncate(path, 1 << 20);
    const O_RDWR = 2;
    using file = new Descriptor(libc().open(cString(path), O_RDWR, 0));
    // Where the working directory is on tmpfs, a file is memory.
    if (libc().fcntl(file.number, F_GET_SEALS, 0) >= 0) return;
    // For the front end of this process.
    SharedMemory.allowsAnyFile = true;
    for (const args of [[], ["--allow-file-memory"]]) {
      await withServe(args, async ({ socket }) => {
        const frontEnd = FrontEnd.connect(socket);
        await frontEnd.negotiate();
        const taken = await frontEnd.addMemory(0, 1 << 20, file).then(() => true, () => false);
        assertEquals(taken, args.length > 0);
        frontEnd.close();
      });
    }
  } finally {
    SharedMemory.allowsAnyFile = false;
    await Deno.remove(path);
  }
});

Deno.test("SIGHUP ends serve in order", async () => {
  await withFolder(async (folder) => {
    const process = startInShell(`${folder}/s`, `--api-socket ${folder}/api`, "2>/dev/null");
    try {
      await until(() => isListening(`${folder}/api`), "it listens");
      process.kill("SIGHUP");
      assertEquals(await exitCode(process), 0);
      assertEquals(await namesIn(folder), []);
    } finally {
      await kill(process);
      await process.stderr.cancel();
    }
  });
});

Deno.test("a serve that cannot start leaves no socket", async () => {
  await withFolder(async (folder) => {
    const sockets = ["--socket-path", `${folder}/s`, "--api-socket", `${folder}/api`];
    const cases: readonly (readonly [readonly string[], number])[] = [
      [["--endpoint-device", `blk:24,socket=${folder}/b,file=${folder}/missing`], 1],
      [["--endpoint-device", `blk:24,socket=${folder}/b,file=${folder}`], 1],
      [["--endpoint-device", `blk:24,socket=/nowhere/b,file=/dev/null`], 1],
      [["--endpoint-device", `rng:24,socket=${folder}/none/r`], 1],
      [["--endpoint-device", `rng:24,socket=${folder}/r`, "--endpoint", "32"], 2],
      [["--endpoint-proxy", `24,listen=${folder}/p,backend=/dev/null,backend-mode=listen`], 1],
      [["--endpoint-relay", `24,listen=${folder}/p,backend=/nowhere/x,backend-mode=listen`], 1],
      [["--api-socket", "/dev/null"], 1],
      [["--api-socket", `${folder}/s`], 1],
      [["--input-range", "0-0xffffffffffffffff"], 2],
    ];
    for (const [args, expected] of cases) {
      const { code, err } = await viommu(["serve", "--log-level", "error", ...sockets, ...args]);
      assertEquals([code, err.trimEnd().split("\n").length], [expected, 1], `${args}: ${err}`);
      assertEquals(await namesIn(folder), [], args.join(" "));
    }
  });
});

Deno.test("the sockets are there before the warm-up, and a VMM that connects meanwhile is served", async () => {
  const log = await withServe(["--log-level", "debug"], async ({ socket }) => {
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
  });
  const [listening, warm] = ["Listening on", "Warmed up with"].map((text) => log.indexOf(text));
  assert(listening >= 0 && listening < warm, log);
});

Deno.test("serve --warm-up off serves without a warm-up", async () => {
  const log = await withServe(["--log-level", "debug", "--warm-up", "off"], async ({ socket }) => {
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
  });
  assert(!log.includes("Warmed up"), log);
});
