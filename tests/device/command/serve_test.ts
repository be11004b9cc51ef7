/** `serve` as a process: its sockets, its signals, one front end after another, and `inspect` beside it. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { UnixListener, UnixStream } from "../../../device/host/mod.ts";
import { FrontEnd } from "../../../device/vhost_user/mod.ts";
import { HANG_MS, until } from "../../until.ts";
import {
  connect,
  connectOver,
  DENO,
  exists,
  exitCode,
  kill,
  MAIN,
  send,
  start,
  withServe,
} from "../served_process.ts";
import { viommu } from "./in_process.ts";

/** What `inspect` prints. */
async function inspect(api: string, ...args: readonly string[]): Promise<string> {
  return (await viommu(["inspect", "--api-socket", api, ...args])).out;
}

/** One page of domain 3. */
const MAP = mapRequest({
  domain: 3,
  virtStart: 0x7000n,
  virtEnd: 0x7fffn,
  physStart: 0x5000n,
  flags: 3,
});

/** Permission bits of a file, in octal. */
async function modeOf(path: string): Promise<string> {
  return ((await Deno.lstat(path)).mode! & 0o777).toString(8);
}

/** Asks the API for guest memory. Returns the status of the answer. */
async function readMemory(api: string): Promise<number> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
  const body = JSON.stringify({ endpoint: 24, iova: "0x0", length: 4 });
  const answer = await fetch("http://127.0.0.1/v1/dma", { client, method: "POST", body });
  await answer.body?.cancel();
  return answer.status;
}

Deno.test("serve with nothing but its sockets", async (t) => {
  const log = await withServe([], async ({ folder, socket, api }) => {
    await t.step("it serves one front end after another, each beginning anew", async () => {
      for (let i = 0; i < 3; i++) {
        using session = await connect(socket);
        assertEquals(await send(session, MAP), "NOENT");
        assertEquals(await send(session, attachRequest(3, 24)), "OK");
        assertEquals(await send(session, MAP), "OK");
      }
    });
    await t.step("it refuses a second front end and goes on with the first", async () => {
      using session = await connect(socket);
      const second = FrontEnd.connect(socket);
      await second.negotiate().then(
        () => {
          throw new Error("Cannot be: the second front end was served");
        },
        () => {},
      );
      second.close();
      assertEquals(await send(session, attachRequest(3, 24)), "OK");
    });
    await t.step(
      "another serve touches neither its socket nor a file that is no socket",
      async () => {
        const file = `${folder}/notes.txt`;
        await Deno.writeTextFile(file, "precious");
        for (const path of [socket, file]) {
          const { code, err } = await viommu(["serve", "--socket-path", path]);
          assertEquals(code, 1);
          assertStringIncludes(err, path);
        }
        assertEquals(await Deno.readTextFile(file), "precious");
        using session = await connect(socket);
        assertEquals(await send(session, attachRequest(3, 24)), "OK");
      },
    );
    await t.step("inspect shows its state, mappings and translations", async () => {
      using session = await connect(socket);
      assertEquals(await send(session, attachRequest(3, 24)), "OK");
      assertEquals(await send(session, MAP), "OK");
      assertStringIncludes(
        await inspect(api, "state"),
        "domain 3: 1 mapping, 1 page; endpoints 00:03.0",
      );
      assertStringIncludes(await inspect(api, "mappings"), "0x7000-0x7fff -> 0x5000 rw");
      const translate = ["translate", "--endpoint", "00:03.0", "--iova"];
      assertStringIncludes(
        await inspect(api, ...translate, "0x7123"),
        "0x5123 rw, 4K page, vtd-ss",
      );
      assertStringIncludes(
        await inspect(api, ...translate, "0x8123"),
        "fault: not-present (0x6), vtd-ss\n  root ",
      );
      assertEquals(JSON.parse(await inspect(api, "mappings", "--domain", "3", "--json")), [
        { domain: 3, iova: "0x7000", last: "0x7fff", phys: "0x5000", flags: "rw" },
      ]);
    });
    await t.step(
      "inspect events says why a request was refused, and follows what happens",
      async () => {
        using session = await connect(socket);
        assertEquals(await send(session, MAP), "NOENT");
        assertStringIncludes(
          await inspect(api, "events"),
          "MAP refused with NOENT: there is no such domain (M4 of docs/conformance.md): domain 3\n",
        );
        using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
        const url = `http://127.0.0.1/v1/events?follow=true`;
        const answer = await fetch(url, { client });
        assertEquals(await send(session, attachRequest(77, 24)), "OK");
        let text = "";
        for await (const piece of answer.body!.pipeThrough(new TextDecoderStream())) {
          text += piece;
          if (text.includes('"domain":77')) break;
        }
        assertStringIncludes(text, '"kind":"attach"');
        // What it prints is there when it happens: it has no end of its own.
        const following = new Deno.Command(Deno.execPath(), {
          args: [...DENO, "inspect", "--api-socket", api, "events", "--follow"],
          stdout: "piped",
          signal: AbortSignal.timeout(HANG_MS),
        }).spawn();
        let printed = "";
        for await (const piece of following.stdout.pipeThrough(new TextDecoderStream())) {
          printed += piece;
          if (printed.includes("attach 00:03.0, domain 77\n")) break;
        }
        assertStringIncludes(printed, "attach 00:03.0, domain 77\n");
        following.kill("SIGINT");
        await following.status;
      },
    );
    await t.step("its API answers 1000 requests a second on one connection", async () => {
      using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
      // What else the machine does must not fail the test: it is enough that a few requests in a row go undisturbed.
      const IN_A_ROW = 10;
      let best = Infinity;
      for (let row = 0; row < 500 && best > IN_A_ROW; row++) {
        const start = performance.now();
        for (let i = 0; i < IN_A_ROW; i++) {
          const response = await fetch("http://127.0.0.1/v1/state", { client });
          assertEquals(response.status, 200);
          await response.body?.cancel();
        }
        best = Math.min(best, performance.now() - start);
      }
      assert(best <= IN_A_ROW, `${best / IN_A_ROW} ms a request`);
      const missing = await fetch("http://127.0.0.1/v2/state", { client });
      assertEquals(missing.status, 404);
      assertStringIncludes((await missing.json()).error, "/v1/state");
    });
    await t.step(
      "its API socket is the user's own, and the other is as the umask wants",
      async () => {
        assertEquals(await modeOf(api), "600");
        assertEquals(await modeOf(socket), (0o777 & ~Deno.umask()).toString(8));
      },
    );
    await t.step("no client of its API can read guest memory", async () => {
      using _session = await connect(socket);
      assertEquals(await readMemory(api), 403);
    });
  });
  assertStringIncludes(log, "vhost-user-test-device-pci");
  assertStringIncludes(log, "second front end");
});

Deno.test("serve with --poll-us 0 answers every request", async () => {
  await withServe(["--poll-us", "0"], async ({ socket }) => {
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    for (let i = 0; i < 50; i++) {
      assertEquals(await send(session, attachRequest(4 + i, 24)), "OK");
    }
  });
});

Deno.test("serve ends promptly on SIGINT while a front end is connected", async () => {
  const folder = await Deno.makeTempDir();
  const { socket, process, log } = await start(folder, []);
  try {
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    process.kill("SIGINT");
    assertEquals(await exitCode(process), 0);
    assertEquals(await exists(socket), false);
  } finally {
    await kill(process);
    await log;
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("serve replaces the sockets that a killed one left behind", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const killed = await start(folder, []);
    await kill(killed.process);
    await killed.log;
    assertEquals([await exists(killed.socket), await exists(killed.api)], [true, true]);
    const next = await start(folder, []);
    try {
      using session = await connect(next.socket);
      assertEquals(await send(session, attachRequest(3, 24)), "OK");
    } finally {
      await kill(next.process);
      await next.log;
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** Starts `serve` as a child that inherits a descriptor, by way of a shell that numbers it. */
function startInheriting(descriptor: number, script: string): Deno.ChildProcess {
  const libc = Deno.dlopen("libc.so.6", {
    fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  });
  const setDescriptorFlags = 2;
  libc.symbols.fcntl(descriptor, setDescriptorFlags, 0);
  libc.close();
  return new Deno.Command("bash", {
    args: ["-c", script.replace("SERVE", `'${Deno.execPath()}' ${DENO.join(" ")} serve`)],
    env: { NO_COLOR: "1" },
    stderr: "null",
  }).spawn();
}

Deno.test("serve --fd serves the connected socket that it inherits, and ends with it", async () => {
  const [ours, theirs] = UnixStream.pair();
  const number = theirs.descriptor.number;
  const process = startInheriting(number, `exec SERVE --fd ${number}`);
  theirs.close();
  try {
    using session = await connectOver(new FrontEnd(ours));
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    session.frontEnd.close();
    assertEquals(await exitCode(process), 0);
  } finally {
    await kill(process);
  }
});

Deno.test("serve without a socket takes the listener of socket activation", async () => {
  const folder = await Deno.makeTempDir();
  const socket = `${folder}/activated.sock`;
  using listener = UnixListener.listen(socket);
  const process = startInheriting(
    listener.descriptor.number,
    `exec 3<&${listener.descriptor.number}; export LISTEN_FDS=1 LISTEN_PID=$$; exec SERVE`,
  );
  try {
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    session.frontEnd.close();
    process.kill("SIGTERM");
    assertEquals(await exitCode(process), 0);
  } finally {
    await kill(process);
    listener.close();
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("serve --connect waits for a VMM that listens, and comes back when it has gone", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/vmm.sock`;
  const process = new Deno.Command(Deno.execPath(), {
    args: [...DENO, "serve", "--connect", path],
    env: { NO_COLOR: "1" },
    stderr: "piped",
  }).spawn();
  let log = "";
  const logged = process.stderr.pipeThrough(new TextDecoderStream()).pipeTo(
    new WritableStream({ write: (text) => void (log += text) }),
  );
  try {
    await until(() => log.includes("Waiting for a front end to listen"), "it waits");
    using listener = UnixListener.listen(path);
    for (let i = 0; i < 2; i++) {
      let stream: UnixStream | undefined;
      await until(() => (stream = listener.accept()) !== undefined, "it connects");
      using session = await connectOver(new FrontEnd(stream!));
      assertEquals(await send(session, attachRequest(3, 24)), "OK");
    }
    process.kill("SIGTERM");
    assertEquals(await exitCode(process), 0);
  } finally {
    await kill(process);
    await logged;
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("inspect looks no name up: a name server that does not answer would make it wait", async () => {
  await withServe([], async ({ api }) => {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--quiet",
        "--no-prompt",
        `--allow-net=127.0.0.1,unix:${api}`,
        "--allow-read",
        "--allow-write",
      ]
        .concat(MAIN, "inspect", "state", "--api-socket", api),
      env: { NO_COLOR: "1" },
    }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
  });
});

Deno.test("serve --log-level trace logs what is refused, and the path of a fault", async () => {
  const log = await withServe(["--log-level", "trace", "--api-access", "full"], async (served) => {
    using session = await connect(served.socket);
    assertEquals(await send(session, MAP), "NOENT");
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    assertEquals(await readMemory(served.api), 200);
  });
  const lines = log.split("\n").filter((line) => line.startsWith("viommu: trace: "));
  const at = lines.findIndex((line) => line.includes("MAP refused with NOENT"));
  assertEquals(lines[at + 1], "viommu: trace: attach 00:03.0, domain 3");
  assertEquals(lines[at + 2], "viommu: trace: fault of 00:03.0: r 0x0: not-present (0x6), vtd-ss");
  assert(lines[at + 3].startsWith("viommu: trace:   root 0x"), lines[at + 3]);
});

Deno.test("sockets have the modes and the group that the options name", async () => {
  const gid = Deno.gid()!;
  const group = ["--socket-group", String(gid), "--api-socket-group", String(gid)];
  await withServe(group, async ({ socket, api }) => {
    assertEquals([await modeOf(socket), await modeOf(api)], ["660", "660"]);
    assertEquals((await Deno.lstat(socket)).gid, gid);
  });
  const modes = ["--socket-mode", "0600", "--api-socket-mode", "666"];
  const folder = await Deno.makeTempDir();
  const path = `${folder}/rng.sock`;
  const device = ["--endpoint-device", `rng:00:04.0,socket=${path}`];
  await withServe([...modes, ...device], async ({ socket, api }) => {
    assertEquals([await modeOf(socket), await modeOf(api), await modeOf(path)], [
      "600",
      "666",
      "600",
    ]);
  });
  await Deno.remove(folder, { recursive: true });
});

Deno.test("guest memory can be read with --api-access full", async () => {
  await withServe(["--api-access", "full"], async ({ socket, api }) => {
    using _session = await connect(socket);
    assertEquals(await readMemory(api), 200);
  });
});
