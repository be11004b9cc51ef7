/** `serve --record` and `replay` as a user meets them (`docs/recording.md`). */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { RecordingFile } from "../../../device/command/recording_file.ts";
import { O_CLOEXEC, O_RDWR } from "../../../device/host/constants.ts";
import { cString, libc } from "../../../device/host/libc.ts";
import { Descriptor } from "../../../device/host/mod.ts";
import { Log } from "../../../device/log.ts";
import { RecordBuffer } from "../../../device/recording/record_buffer.ts";
import { Recorder } from "../../../device/recording/recorder.ts";
import { formatNames } from "../../../pagetable/mod.ts";
import { HANG_MS, until } from "../../until.ts";
import { connect, kill, send, type Session, start, withServe } from "../served_process.ts";
import { viommu } from "./in_process.ts";
import { withFolder } from "./test_folder.ts";

/** The range of addresses that each format has. */
const NARROW = ["--input-range", "0-0xfffffffffff"];

function map(page: number): Uint8Array {
  const virtStart = BigInt(page) * 4096n;
  const virtEnd = virtStart + 4095n;
  return mapRequest({ domain: 3, virtStart, virtEnd, physStart: virtStart + 0x5000n, flags: 3 });
}

/** Attaches, and maps some pages; one MAP is refused. */
async function drive(session: Session, pages: number): Promise<void> {
  assertEquals(await send(session, attachRequest(3, 24)), "OK");
  for (let page = 0; page < pages; page++) assertEquals(await send(session, map(page)), "OK");
  assertEquals(await send(session, map(0)), "INVAL");
}

/** `fcntl`: sets the bytes that a pipe takes. */
const F_SETPIPE_SZ = 1031;

/** Replays a file, which must not differ from what today's code does. */
async function replayed(...args: readonly string[]): Promise<string> {
  const { code, out, err } = await viommu(["replay", ...args]);
  assertEquals([code, err], [0, ""]);
  return out;
}

Deno.test("what serve records is replayed in every format, up to any request or time", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/life.rec`;
    await withServe(["--record", file, ...NARROW], async ({ socket }) => {
      using session = await connect(socket);
      await drive(session, 20);
    });
    assertEquals((await Deno.stat(file)).mode! & 0o777, 0o600);
    for (const format of formatNames()) {
      const out = await replayed(file, "--format", format);
      assertStringIncludes(out, `tables ${format}`);
      assertStringIncludes(out, "22 requests in ");
      assertStringIncludes(out, "each answered as recorded; the recording ended: serve ended\n");
      const tree = await replayed(file, "--format", format, "--until", "11", "--tree");
      assertStringIncludes(tree, "endpoint 0x18: domain ");
      assertStringIncludes(tree, "0x0-0x9fff -> 0x5000 rw 0x1000 x10\n");
    }
    assertStringIncludes(await replayed(file, "--until", "5"), "5 requests in ");
    assertStringIncludes(await replayed(file, "--until", "0us"), "0 requests in ");
    assertStringIncludes(await replayed(file, "--until", "100s"), "22 requests in ");
    const { requests, difference, end } = JSON.parse(await replayed(file, "--json"));
    assertEquals([requests, difference, end], [22, null, "serve ended"]);
    assertMatch(
      await replayed(file, "--bench"),
      /^22 requests, 21 of them MAP or UNMAP, in [\d.]+ ms: [\d.]+ us each \(best of \d+ rounds\)\n$/,
    );
    const again = await viommu(["serve", "--socket-path", `${folder}/s`, "--record", file]);
    assertEquals(again.code, 1);
    assertStringIncludes(again.err, "something is there already (EEXIST)");
  });
});

Deno.test("a recording of a serve that was killed is replayed up to its last whole record", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/life.rec`;
    const { socket, process, log } = await start(folder, ["--record", file]);
    try {
      using session = await connect(socket);
      await drive(session, 3);
      await until(
        async () => (await viommu(["replay", file])).out.includes("5 requests in "),
        "all requests are in the file",
      );
    } finally {
      process.kill("SIGKILL");
      await kill(process);
      await log;
    }
    const bytes = await Deno.readFile(file);
    assertStringIncludes(await replayed(file), "the file was cut there");
    await Deno.writeFile(file, bytes.subarray(0, -3));
    assertStringIncludes(await replayed(file), "4 requests in ");
  });
});

Deno.test("a full disk ends the recording with one line, and what comes later is dropped", async () => {
  const lines: string[] = [];
  const buffer = new RecordBuffer();
  const recorder = new Recorder(buffer, "{}", 0);
  using file = await RecordingFile.open("/dev/full");
  file.start(buffer, new Log("info", (line) => lines.push(line)));
  await until(() => lines.length > 0, "the recording ends");
  for (let i = 0; i < 1000; i++) recorder.fault(8, 1, 2, 1);
  recorder.end();
  assertEquals(await file.finish(HANG_MS), true);
  assertEquals(lines, [
    "viommu: warn: The recording in /dev/full has ended: " +
    "Cannot write /dev/full: the disk is full (ENOSPC); make room, or write elsewhere",
  ]);
});

Deno.test("a pipe without a reader ends the recording with one line, and the guest does not wait", async () => {
  await withFolder(async (folder) => {
    const pipe = `${folder}/pipe`;
    const { success } = await new Deno.Command("mkfifo", { args: [pipe] }).output();
    assert(success);
    // A page is all that it takes, and as long as it is open here it keeps that size.
    using held = new Descriptor(libc().open(cString(pipe), O_RDWR | O_CLOEXEC, 0));
    assertEquals(libc().fcntl(held.number, F_SETPIPE_SZ, 4096), 4096);
    const { socket, process, log } = await start(folder, ["--record", pipe]);
    try {
      using session = await connect(socket);
      await drive(session, 1);
      const unmap = unmapRequest(3, 0n, 0xfffn);
      // 36 bytes a pair are more than the pipe takes; nothing but the guest's own requests is waited for.
      for (let pairs = 0; pairs < 500; pairs++) {
        assertEquals(await send(session, unmap), "OK");
        assertEquals(await send(session, map(0)), "OK");
      }
      process.kill("SIGTERM");
      // The thread that waits for the pipe must not keep the process.
      await process.status;
    } finally {
      await kill(process);
      assertStringIncludes(await log, "The end of the recording is not in");
    }
  });
});

Deno.test("a recording ends at its size limit with one line", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/life.rec`;
    const log = await withServe(["--record", `${file},size=64K`], async ({ socket }) => {
      using session = await connect(socket);
      await drive(session, 1);
      for (let i = 0; i < 5000; i++) await send(session, map(0));
    });
    assertEquals(log.match(/The recording in/g)?.length, 1);
    assertStringIncludes(log, "has ended: its size limit was reached");
    assert((await Deno.stat(file)).size <= 64 << 10);
    assertStringIncludes(await replayed(file), "its size limit was reached");
  });
});

Deno.test("with dma=on the translations of endpoints are in a recording, and without it are not", async () => {
  await withFolder(async (folder) => {
    const sizes = [];
    for (const dma of ["on", "off"]) {
      const file = `${folder}/${dma}.rec`;
      const options = ["--record", `${file},dma=${dma}`, "--api-access", "full"];
      await withServe(options, async ({ socket, api }) => {
        using session = await connect(socket);
        assertEquals(await send(session, attachRequest(3, 24)), "OK");
        assertEquals(await send(session, map(0)), "OK");
        using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
        const body = JSON.stringify({ endpoint: 24, iova: "0x0", length: 4 });
        const answer = await fetch("http://127.0.0.1/v1/dma", { client, method: "POST", body });
        assertEquals(answer.status, 200);
        await answer.body?.cancel();
      });
      await replayed(file);
      const kinds = new Int32Array((await Deno.readFile(file)).buffer).filter((word) =>
        (word & 0xffff) === (21 | 8 << 5)
      );
      sizes.push(kinds.length);
    }
    assertEquals(sizes, [1, 0]);
  });
});

Deno.test("replay refuses what is no recording, and what it is not told rightly, in one line", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/no.rec`;
    await Deno.writeTextFile(file, "this is a text and no recording");
    const cases: readonly (readonly [readonly string[], number, string])[] = [
      [[file], 1, "it does not begin as a recording does"],
      [[`${folder}/nothing`], 1, "there is no such file or folder (ENOENT)"],
      [[folder], 1, `Cannot read ${folder}: it is a folder (EISDIR)`],
      [[], 2, "FILE is missing"],
      [[file, "--until", "soon"], 2, "such as 2s, 150ms or 70us"],
      [[file, "--format", "x86"], 2, "one of vtd-ss, "],
    ];
    for (const [args, code, text] of cases) {
      const outcome = await viommu(["replay", ...args]);
      assertEquals(outcome.code, code, args.join(" "));
      assertMatch(outcome.err, /^viommu: [^\n]+\n$/);
      assertStringIncludes(outcome.err, text);
    }
  });
});
