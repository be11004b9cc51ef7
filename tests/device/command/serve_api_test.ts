/** `serve` as a process with clients of its API socket: what they may do, what they may take, and what they leave behind. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { OsError, UnixListener, UnixStream } from "../../../device/host/mod.ts";
import { FrontEnd, TransportFeature } from "../../../device/vhost_user/mod.ts";
import { until } from "../../until.ts";
import { EchoBackEnd } from "../endpoint/relay/echo_back_end.ts";
import {
  connect,
  connectOver,
  DENO,
  exists,
  exitCode,
  kill,
  send,
  start,
  withServe,
} from "../served_process.ts";
import { viommu } from "./in_process.ts";

/** What `inspect` prints. */
async function inspect(api: string, ...args: readonly string[]): Promise<string> {
  return (await viommu(["inspect", "--api-socket", api, ...args])).out;
}

/** Connects once more, unless too many wait already. */
function tryConnect(path: string, clients: UnixStream[]): boolean {
  try {
    clients.push(UnixStream.connect(path));
    return true;
  } catch (error) {
    if (error instanceof OsError && error.code === "EAGAIN") return false;
    throw error;
  }
}

Deno.test("SIGTERM while an endpoint drains ends serve in order", async () => {
  const folder = await Deno.makeTempDir();
  const { api, process, log } = await start(folder, ["--api-access", "full"]);
  try {
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
    const url = "http://127.0.0.1/v1/endpoints";
    using listener = UnixListener.listen(`${folder}/be.sock`);
    const relay = `40,listen=${folder}/fe.sock,backend=${folder}/be.sock`;
    const added = await fetch(url, {
      client,
      method: "POST",
      body: JSON.stringify({ "endpoint-relay": relay }),
    });
    assertEquals([added.status, (await added.json()).endpoint], [200, 40]);
    await using backEnd = await EchoBackEnd.accept(listener, { holds: true });
    const { VERSION_1, ACCESS_PLATFORM, INDIRECT_DESC, LOG_ALL } = TransportFeature;
    using session = await connectOver(
      FrontEnd.connect(`${folder}/fe.sock`, {
        acceptLow: ~(LOG_ALL | INDIRECT_DESC),
        acceptHigh: VERSION_1 | ACCESS_PLATFORM,
      }),
    );
    const { driver } = session.queue;
    driver.begin();
    driver.addWritable(0x9000, 4);
    driver.commit();
    session.queue.kick();
    await until(() => backEnd.held.length === 1, "the back end has a request");
    const removing = fetch(`${url}/40?timeout-ms=60000`, { client, method: "DELETE" })
      .then(() => "answered", () => "cut off");
    await until(async () => !await exists(`${folder}/fe.sock`), "it leaves");
    process.kill("SIGTERM");
    assertEquals(await exitCode(process), 0);
    assertEquals(await removing, "cut off");
    await backEnd.closed;
    session.frontEnd.close();
    const left = [];
    for await (const { name } of Deno.readDir(folder)) left.push(name);
    assertEquals(left, ["be.sock"], "the back end's own");
  } finally {
    await kill(process);
    await log;
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("where a device of the host may be added, answers to PROBE have room for all that it reserves", async () => {
  // struct virtio_iommu_config, 5.13.4: probe_size is at 32; a RESV_MEM property (5.13.6.7) has 24 bytes.
  for (const [args, ranges] of [[[], 1], [["--api-access", "full"], 8]] as const) {
    await withServe(args, async ({ socket }) => {
      using session = await connect(socket);
      const bytes = await session.frontEnd.readConfig(32, 4);
      assertEquals(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true), ranges * 24);
    });
  }
});

Deno.test("SIGTERM ends serve, whatever clients of the API have open", async () => {
  using clients = new DisposableStack();
  await withServe([], async ({ api }) => {
    for (
      const text of ["POST /v1/dma HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", "GET /v1/st", ""]
    ) {
      const stream = clients.use(UnixStream.connect(api));
      if (text === "") continue;
      const bytes = new TextEncoder().encode(text);
      assertEquals(stream.send(bytes, 0, bytes.length), bytes.length);
    }
    // One that is answered after them tells that they have arrived. They stay until serve has ended.
    assertStringIncludes(await inspect(api, "state"), "viommu ");
  });
});

Deno.test("clients of the API leave descriptors for a whole session of a front end", async () => {
  const folder = await Deno.makeTempDir();
  const [socket, api] = [`${folder}/v.sock`, `${folder}/a.sock`];
  const process = new Deno.Command("bash", {
    // So few that clients of the API could take all that are left.
    args: [
      "-c",
      `ulimit -n 96; exec '${Deno.execPath()}' ${DENO.join(" ")} serve ` +
      `--socket-path ${socket} --api-socket ${api}`,
    ],
    env: { NO_COLOR: "1" },
    stderr: "null",
  }).spawn();
  const clients: UnixStream[] = [];
  try {
    await until(() => exists(api), "serve makes its API socket");
    for (let i = 0; i < 200; i++) {
      await until(() => tryConnect(api, clients), "the API accepts, or refuses");
    }
    // A whole session: sockets, memory, events.
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    assertStringIncludes(await inspect(api, "state"), "a VMM is connected");
    process.kill("SIGTERM");
    assertEquals(await exitCode(process), 0);
  } finally {
    for (const client of clients) client.close();
    await kill(process);
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("endpoints are added as long as descriptors for the IOMMU are left", async () => {
  const folder = await Deno.makeTempDir();
  const [socket, api] = [`${folder}/viommu.sock`, `${folder}/api.sock`];
  const process = new Deno.Command("bash", {
    args: [
      "-c",
      `ulimit -n 96; exec '${Deno.execPath()}' ${DENO.join(" ")} serve ` +
      `--socket-path ${socket} --api-socket ${api} --api-access full`,
    ],
    env: { NO_COLOR: "1" },
    stderr: "null",
  }).spawn();
  try {
    await until(() => exists(api), "serve makes its API socket");
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path: api } });
    let refusal: string | undefined;
    let added = 0;
    for (; refusal === undefined && added < 96; added++) {
      const response = await fetch("http://127.0.0.1/v1/endpoints", {
        client,
        method: "POST",
        body: JSON.stringify({ "endpoint-device": `rng:${added},socket=${folder}/${added}` }),
      });
      refusal = (await response.json()).error;
      if (refusal !== undefined) assertEquals(response.status, 409);
    }
    assert(added > 5, `${added} endpoints`);
    assertStringIncludes(refusal!, "fewer than 24 descriptors are left");
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    process.kill("SIGTERM");
    assertEquals(await exitCode(process), 0);
  } finally {
    await kill(process);
    await Deno.remove(folder, { recursive: true });
  }
});
