/** What `serve --supervise` does besides replacing a process that has died. */
import { assert, assertEquals } from "@std/assert";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { FrontEnd } from "../../../device/vhost_user/mod.ts";
import { until } from "../../until.ts";
import { connect, exitCode, kill, send, start, withServe } from "../served_process.ts";
import { killWorker, processOf, stateOf, withSpare } from "./supervised.ts";

const PAGE = { domain: 1, virtStart: 0n, virtEnd: 0xfffn, physStart: 0x5000n, flags: 3 };

/** Whether a process is there. */
function isThere(pid: number): boolean {
  try {
    Deno.statSync(`/proc/${pid}`);
    return true;
  } catch {
    return false;
  }
}

/** The processes that a process has started. */
function children(pid: number): readonly number[] {
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`);
    return text.trim().split(" ").filter((each) => each !== "").map(Number);
  } catch {
    return [];
  }
}

Deno.test("SIGHUP replaces the process that serves, and the guest goes on", async () => {
  await withServe(["--supervise", "--endpoint", "8"], async ({ socket, api, process }) => {
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(1, 8)), "OK");
    assertEquals(await send(session, mapRequest(PAGE)), "OK");
    const before = await withSpare(api);
    process.kill("SIGHUP");
    await until(async () => (await processOf(api)).pid !== before.pid, "another process serves");
    assertEquals(await send(session, mapRequest(PAGE)), "INVAL");
    const now = await withSpare(api);
    assertEquals([now.deaths, now.pauses.count], [0, 1]);
    await until(() => !isThere(before.pid), "the one before has ended");
  });
});

Deno.test("a second front end is refused, and another follows the first, with endpoints blocked", async () => {
  await withServe(["--supervise", "--endpoint", "8"], async ({ socket, api }) => {
    const session = await connect(socket);
    assertEquals(await send(session, attachRequest(1, 8)), "OK");
    const second = FrontEnd.connect(socket);
    await until(
      () => second.negotiate().then(() => false, () => true),
      "a second front end is refused",
    );
    second.close();
    session.frontEnd.close();
    const blocked = async () => (await stateOf(api)).blocked;
    await until(async () => await blocked() === 1, "the endpoint is blocked");
    killWorker(await withSpare(api));
    // What was blocked stays blocked in the next process.
    assertEquals(await blocked(), 1);
    using next = await connect(socket);
    assertEquals(await send(next, attachRequest(1, 8)), "OK");
  });
});

Deno.test("when the holder is killed, the processes that serve end, too", async () => {
  const folder = await Deno.makeTempDir();
  const { process, api, log } = await start(folder, ["--supervise"]);
  try {
    const { pid } = await withSpare(api);
    process.kill("SIGKILL");
    await until(() => !isThere(pid), "the active one has ended");
    // It ends with the last process that has its standard error.
    await log;
  } finally {
    await kill(process);
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("processes that die again and again before they serve anything are given up, with one line", async () => {
  const folder = await Deno.makeTempDir();
  const { process, api, log } = await start(folder, ["--supervise"]);
  try {
    await withSpare(api);
    let hasEnded = false;
    process.status.then(() => hasEnded = true);
    await until(() => {
      for (const pid of children(process.pid)) Deno.kill(pid, "SIGKILL");
      return hasEnded;
    }, "the holder gives up");
    assertEquals(await exitCode(process), 1);
    const lines = (await log).split("\n").filter((line) => line.includes("giving up"));
    assertEquals(lines.length, 1, lines.join("\n"));
    assert(lines[0].includes("the 5th in a row"), lines[0]);
    await until(() => children(process.pid).length === 0, "no process is left");
  } finally {
    await kill(process);
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("wrong options end serve --supervise with the exit code and the line of serve", async () => {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--quiet", "--allow-ffi", new URL("../../../main.ts", import.meta.url).href],
      ...["serve", "--supervise", "--socket-path", "/tmp/viommu-never.sock"],
      ...["--endpoint-device", "rng:00:03.0,socket=/nowhere/at/all.sock"],
    ],
    env: { NO_COLOR: "1" },
    stdout: "null",
    stderr: "piped",
  }).output();
  const text = new TextDecoder().decode(stderr);
  assertEquals(code, 1, text);
  assert(text.includes("/nowhere/at/all.sock"), text);
});
