/** `inspect watch`: the rates it shows, and how it ends. */
import { assert, assertEquals } from "@std/assert";
import { ApiServer, type EndpointRelayState, type State } from "../../../device/api/mod.ts";
import { ApiClient } from "../../../device/command/api_client.ts";
import { watch } from "../../../device/command/watch.ts";
import { EntropyDevice, SeededRandom } from "../../../device/endpoint/mod.ts";
import { UnixListener } from "../../../device/host/mod.ts";
import type { Log } from "../../../device/log.ts";
import { until } from "../../until.ts";
import { ask, EndpointWorld, IOVA } from "../endpoint/endpoint_world.ts";
import { exists, MAIN } from "../served_process.ts";
import { type Sample, watchLines, watchScreen } from "../../../device/command/watch_text.ts";
import { CHANGE } from "../endpoint/relay/echo_back_end.ts";
import { RelayWorld } from "../endpoint/relay/relay_world.ts";

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

/** A state in which the rng is a relay that has done so much. */
function relayState(chains: number, changes: Partial<EndpointRelayState> = {}): State {
  const plain = state(chains);
  const relay: EndpointRelayState = {
    connected: true,
    sessions: 2,
    reconnects: 1,
    chains,
    toBackEnd: chains * 100,
    toGuest: chains * 3000,
    inFlight: 4,
    poolUsed: 1 << 20,
    poolPeak: 2 << 20,
    poolSize: 4 << 20,
    stalls: 0,
    resubmitted: 0,
    givenUp: 0,
    lateDropped: 5,
    unreadable: 0,
    tooLong: 0,
    violations: 0,
    timeouts: 0,
    messagesRefused: 0,
    medianMicroseconds: 250,
    p99Microseconds: 47_564,
    longestMicroseconds: 99_999,
    ...changes,
  };
  const endpoints = plain.endpoints.map((each) => each.id === 24 ? { ...each, relay } : each);
  return { ...plain, endpoints };
}

function relaySamples(changes: Partial<EndpointRelayState> = {}): [Sample, Sample] {
  return [
    { state: relayState(100), time: 0 },
    { state: relayState(300, changes), time: 500 },
  ];
}

Deno.test("watchScreen() has a table of relays below that of endpoints", () => {
  const lines = watchScreen(...relaySamples());
  assertEquals(lines.length, 10);
  assertEquals(lines[7], "");
  assertEquals(
    lines[8].trim().split(/\s{2,}|(?<=S) (?=[A-Z])/),
    "RELAY,CHAINS/S,BACK END/S,GUEST/S,IN FLIGHT,POOL,LATE,FAULTS,RECONNECTS,MEDIAN,P99".split(","),
  );
  assertEquals(
    columns(lines[9]),
    "00:03.0 400 39.1K 1.14M 4 25 % 5 1 1 250 us 48 ms".split(" "),
  );
  assertEquals(lines[8].length, lines[9].length, "columns align");
  const alone = watchScreen(...relaySamples({ connected: false }));
  assertEquals(columns(alone[9])[1], "(400)");
  assertEquals(watchScreen(...samples(0, 1, 1000)).some((line) => line.startsWith("RELAY")), false);
});

Deno.test("watchLines() has a second line for a relay, in words", () => {
  const lines = watchLines(...relaySamples({ connected: false }));
  assertEquals(lines.length, 2);
  assertEquals(
    lines[1],
    "00:03.0 400 chains/s, 39.1K/s to the back end, 1.14M/s to the guest, 4 in flight, pool 25 %, " +
      "5 late, 1 faults, 1 reconnects, 250 us in the back end (p99 48 ms); no back end is connected",
  );
});

Deno.test("inspect watch shows what passes through a real relay", async () => {
  const [world, connected, backEnd] = await RelayWorld.start({ beside: api });
  await using _ = world;
  const queue = await connected.startQueue(0);
  const client = new ApiClient(`${world.path}.api`, 10_000);
  const written: string[] = [];
  backEnd.holds = true;
  connected.send(queue, [0x20_0000, new Uint8Array(50)], [0x40_0000, 50]);
  await until(() => backEnd.held.length === 1, "the back end has it");
  const watching = watch(client, {
    interval: 50,
    count: 1,
    form: "lines",
    write: (text) => void written.push(text),
  });
  await watching;
  client.close();
  const [device, relay] = written[0].trimEnd().split("\n");
  assert(device.startsWith("00:03.0") && device.includes("relay"), device);
  assert(relay.includes(" 0 chains/s, 0/s to the back end, 0/s to the guest, 1 in flight"), relay);
  backEnd.answerAll();
  assert(await queue.reap());
  assertEquals(connected.bytes[0x40_0000], CHANGE);
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
async function watchDevice(
  form: "screen" | "lines" | "json",
  count: number,
): Promise<readonly string[]> {
  await using world = new EndpointWorld(new EntropyDevice(new SeededRandom(1)), { beside: api });
  world.attach();
  const connected = await world.connect();
  const queue = await connected.frontEnd.startQueue(0, { size: 16, address: 0x4000 });
  const client = new ApiClient(`${world.path}.api`, 10_000);
  const written: string[] = [];
  const watching = watch(client, {
    interval: 50,
    count,
    form,
    write: (text) => void written.push(text),
  });
  for (let i = 0; i < 20; i++) assertEquals(await ask(queue, IOVA + 0x20000, 64), 64);
  await watching;
  connected.frontEnd.close();
  client.close();
  return written;
}

/** The API socket of a world. */
function api(world: EndpointWorld | RelayWorld, log: Log): ApiServer {
  const context = {
    device: world.guest.device,
    ...("relay" in world ? { relays: [world.relay] } : { services: [world.service] }),
    version: "1.2.3",
    connected: true,
  };
  return new ApiServer(UnixListener.listen(`${world.path}.api`), context, log);
}

Deno.test("watch() adds plain lines where it is not on a terminal", async () => {
  const written = await watchDevice("lines", 3);
  assertEquals(written.length, 3);
  assert(written.every((text) => /^00:03\.0 +rng +1 +vtd-ss .*\n$/.test(text)), written.join(""));
});

Deno.test("watch() prints each state as a line of JSON", async () => {
  const written = await watchDevice("json", 2);
  assertEquals(written.length, 2);
  const [first, second] = written.map((line): State => JSON.parse(line));
  assertEquals([first.version, second.endpoints.length], ["1.2.3", first.endpoints.length]);
  assert(written.every((line) => line.indexOf("\n") === line.length - 1));
});

Deno.test("watch() draws on a terminal and gives the screen back", async () => {
  const written = await watchDevice("screen", 2);
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
