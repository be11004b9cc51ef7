/** `inspect watch`: the rates it shows, and how it ends. */
import { assert, assertEquals } from "@std/assert";
import { ApiServer, type State } from "../../../device/api/mod.ts";
import { ApiClient } from "../../../device/command/api_client.ts";
import { watch } from "../../../device/command/watch.ts";
import { EntropyDevice, SeededRandom } from "../../../device/endpoint/mod.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import type { Log } from "../../../device/log.ts";
import { until } from "../../until.ts";
import { ask, EndpointWorld, IOVA } from "../endpoint/endpoint_world.ts";
import { exists } from "../served_process.ts";
import { type Sample, watchLines, watchScreen } from "../../../device/command/watch_text.ts";

const MAIN = new URL("../../../main.ts", import.meta.url).href;

/** A state of a device with an rng, after so many requests of it. */
function state(requests: number): State {
  return {
    version: "1.2.3",
    connected: true,
    features: [],
    bypass: true,
    domains: [{ id: 2, bypass: false, endpoints: [24], mappings: 3, pages: 5, tables: [] }],
    endpoints: [
      { id: 8, domain: null, format: "vtd-ss", faults: 7 },
      {
        id: 24,
        domain: 2,
        format: "vtd-ss",
        faults: 1,
        device: {
          type: "rng",
          connected: true,
          requests,
          readBytes: 0,
          writtenBytes: requests * 3000,
          iotlbHits: 3 * requests,
          iotlbMisses: requests,
          faults: 1,
        },
      },
    ],
    requests: { MAP: { OK: requests, INVAL: requests }, PROBE: { OK: 1 } },
    faults: { reported: 8, dropped: 0 },
  };
}

function samples(from: number, to: number, milliseconds: number): [Sample, Sample] {
  return [{ state: state(from), time: 1000 }, { state: state(to), time: 1000 + milliseconds }];
}

function columns(line: string): readonly string[] {
  return line.trim().split(/\s+/);
}

Deno.test("watchScreen() shows what happened in a second, and what has been", () => {
  const lines = watchScreen(...samples(100, 300, 500));
  assertEquals(lines[1], "1 domains, 3 mappings of 5 pages, 8 faults reported, 0 dropped");
  assertEquals(lines[2], "MAP 800/s, PROBE 0/s");
  assertEquals(lines.length, 7);
  assertEquals(columns(lines[5]), "00:01.0 - - vtd-ss - - - - - 7".split(" "));
  assertEquals(
    columns(lines[6]),
    ["00:03.0", "rng", "2", "vtd-ss", "400", "0", "1.14M", "75", "%", "400", "1"],
  );
  assertEquals(new Set(lines.slice(4).map((line) => line.length)).size, 1, "columns align");
});

Deno.test("a count that shrank was started anew, and is not a rate below 0", () => {
  const line = columns(watchScreen(...samples(300, 100, 1000))[6]);
  assertEquals([line[4], line[6]], ["0", "0"]);
});

Deno.test("watchLines() has one line for each device, or the requests where there is none", () => {
  const [before, now] = samples(0, 10, 1000);
  assertEquals(watchLines(before, now).length, 1);
  assert(watchLines(before, now)[0].startsWith("00:03.0"));
  const bare = { state: { ...now.state, endpoints: [] }, time: now.time };
  assertEquals(watchLines(before, bare), ["MAP 20/s, PROBE 0/s"]);
});

/** Watches a real device through its API socket while it works; what was written. */
async function watchDevice(isTerminal: boolean, count: number): Promise<readonly string[]> {
  await using world = new EndpointWorld(new EntropyDevice(new SeededRandom(1)), { beside: api });
  world.attach();
  const connected = await world.connect();
  const queue = await connected.frontEnd.startQueue(0, { size: 16, address: 0x4000 });
  const client = new ApiClient(`${world.path}.api`);
  const written: string[] = [];
  const watching = watch(client, {
    interval: 50,
    count,
    isTerminal,
    write: (text) => void written.push(text),
  });
  for (let i = 0; i < 20; i++) assertEquals(await ask(queue, IOVA + 0x20000, 64), 64);
  await watching;
  connected.frontEnd.close();
  client.close();
  return written;
}

/** The API socket of a world. */
function api(world: EndpointWorld, log: Log): ApiServer {
  const context = {
    device: world.guest.device,
    services: [world.service],
    version: "1.2.3",
    connected: true,
  };
  return new ApiServer(UnixListener.listen(`${world.path}.api`), context, log);
}

Deno.test("watch() adds plain lines where it is not on a terminal", async () => {
  const written = await watchDevice(false, 3);
  assertEquals(written.length, 3);
  assert(written.every((text) => /^00:03\.0 +rng +1 +vtd-ss .*\n$/.test(text)), written.join(""));
});

Deno.test("watch() draws on a terminal and gives the screen back", async () => {
  const written = await watchDevice(true, 2);
  assertEquals(written.length, 4);
  assertEquals([written[0], written[3]], ["\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"]);
  assert(written[1].startsWith("\x1b[Hviommu 1.2.3") && written[1].includes("00:03.0"));
});

Deno.test("inspect watch ends with status 0 on Ctrl-C, and with 1 when the device is gone", async () => {
  const folder = await Deno.makeTempDir();
  const api = `${folder}/api.sock`;
  const deno = ["run", "--quiet", "--allow-all", MAIN];
  const serve = new Deno.Command(Deno.execPath(), {
    args: [...deno, "serve", "--socket-path", `${folder}/vm.sock`, "--api-socket", api],
    stdout: "null",
    stderr: "null",
  }).spawn();
  try {
    await until(() => exists(api), "serve makes its API socket");
    const one = startWatch(deno, api);
    const lines = one.stdout.pipeThrough(new TextDecoderStream());
    const { value } = await lines[Symbol.asyncIterator]().next();
    assertEquals(value?.split("\n")[0], "no requests yet");
    one.kill("SIGINT");
    assertEquals((await one.status).code, 0);
    const two = startWatch(deno, api);
    const reader = two.stdout.getReader();
    await reader.read();
    await stop(serve);
    assertEquals((await two.status).code, 1);
    await reader.cancel();
  } finally {
    await stop(serve);
    await Deno.remove(folder, { recursive: true });
  }
});

function startWatch(deno: readonly string[], api: string): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [...deno, "inspect", "--api-socket", api, "watch", "--interval", "20"],
    stdout: "piped",
    stderr: "null",
  }).spawn();
}

/** Ends a process, if it is still there. */
async function stop(process: Deno.ChildProcess): Promise<void> {
  try {
    process.kill("SIGTERM");
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
  await process.status;
}
