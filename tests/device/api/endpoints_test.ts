/** `/v1/endpoints`: what is behind the IOMMU, listed and changed over the API socket. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import type { ServedEndpointState } from "../../../device/api/mod.ts";
import { descriptorsClosed, UnixListener, UnixStream } from "../../../device/host/mod.ts";
import { until } from "../../until.ts";
import { EchoBackEnd } from "../endpoint/relay/echo_back_end.ts";
import { IOVA } from "../endpoint/relay/relay_world.ts";
import { openDescriptors } from "../host/host_state.ts";
import { HotplugWorld } from "../hotplug_world.ts";

/** What was answered. */
interface Answered {
  readonly status: number;
  // deno-lint-ignore no-explicit-any -- JSON of several routes, each of whose tests says what is in it
  readonly body: any;
}

/** Asks the API socket of a world, with a connection of its own. */
async function ask(
  world: HotplugWorld,
  method: string,
  path: string,
  body?: unknown,
): Promise<Answered> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: world.path("api") } });
  const response = await fetch(`http://127.0.0.1${path}`, {
    method,
    client,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: await response.json() };
}

async function list(world: HotplugWorld): Promise<readonly ServedEndpointState[]> {
  return (await ask(world, "GET", "/v1/endpoints")).body;
}

/** A relay whose back end keeps the one request that it has. */
async function holding(world: HotplugWorld): Promise<EchoBackEnd> {
  using listener = UnixListener.listen(world.path("be"));
  const sockets = `listen=${world.path("fe")},backend=${world.path("be")}`;
  assertEquals(
    (await ask(world, "POST", "/v1/endpoints", { "endpoint-relay": `00:05.0,${sockets}` })).status,
    200,
  );
  world.attach(0x28);
  const backEnd = await EchoBackEnd.accept(listener, { holds: true });
  world.owns(backEnd);
  const { queue } = await world.plug("fe");
  queue.driver.begin();
  queue.driver.addReadable(IOVA + 0x20_0000, 10);
  queue.driver.addWritable(IOVA + 0x30_0000, 10);
  queue.driver.commit();
  queue.kick();
  await until(() => backEnd.held.length === 1, "the back end has it");
  return backEnd;
}

Deno.test("endpoints are listed, added and removed over the API socket", async () => {
  await using world = new HotplugWorld();
  assertEquals(await list(world), []);
  const rng = { endpoint: 24, kind: "rng", listen: world.path("rng"), connected: false };
  assertEquals(
    await ask(world, "POST", "/v1/endpoints", {
      "endpoint-device": `rng:00:03.0,socket=${world.path("rng")}`,
    }),
    { status: 200, body: rng },
  );
  const sockets = `listen=${world.path("fe")},backend=${world.path("be")},backend-mode=listen`;
  const proxy = {
    endpoint: 16,
    kind: "proxy",
    listen: world.path("fe"),
    backEnd: world.path("be"),
    connected: false,
  };
  assertEquals(
    await ask(world, "POST", "/v1/endpoints", { "endpoint-proxy": `16,${sockets}` }),
    { status: 200, body: proxy },
  );
  world.attach(24);
  const { frontEnd } = await world.plug("rng");
  assertEquals(await list(world), [proxy, { ...rng, connected: true }]);
  const state = await ask(world, "GET", "/v1/state");
  assertEquals(state.body.endpoints.map(({ id }: { id: number }) => id), [16, 24]);
  frontEnd.close();
  assertEquals(await ask(world, "DELETE", "/v1/endpoints/00:03.0"), {
    status: 200,
    body: { endpoint: 24, drained: true },
  });
  assertEquals((await ask(world, "DELETE", "/v1/endpoints/0x10?timeout-ms=0")).status, 200);
  assertEquals(await list(world), []);
  assertEquals(world.warnings, []);
});

Deno.test("what cannot be added is refused in one line, and nothing of it is left", async () => {
  await using world = new HotplugWorld();
  const [socket, image] = [world.path("rng"), world.image("disk")];
  const add = async (body: unknown) => await ask(world, "POST", "/v1/endpoints", body);
  const device = { "endpoint-device": `rng:24,socket=${socket}` };
  assertEquals((await add(device)).status, 200);
  using other = UnixListener.listen(world.path("other"));
  await Deno.writeTextFile(world.path("file"), "precious");
  await until(() => world.connections === 0, "earlier clients are gone");
  const before = [openDescriptors().length, world.fileCount];
  const relay = (text: string) => ({ "endpoint-relay": `25,${text}` });
  const cases: readonly (readonly [body: unknown, status: number, text: string])[] = [
    [{}, 400, "one of endpoint-device, endpoint-relay, endpoint-proxy"],
    [{ ...device, "endpoint-relay": "x" }, 400, "one of endpoint-device"],
    [{ "endpoint": "24" }, 400, "one of endpoint-device"],
    [{ "endpoint-device": 24 }, 400, "a text of at most 2048 characters"],
    [{ "endpoint-device": `rng:24,socket=${"x".repeat(3000)}` }, 400, "at most 2048 characters"],
    [{ "endpoint-device": "rng:24" }, 400, "socket=… is missing"],
    [{ "endpoint-device": "gpu:24,socket=/x" }, 400, "rng:ENDPOINT or blk:ENDPOINT"],
    [relay("listen=/a,backend=/a"), 400, "are the same socket"],
    [device, 409, "00:03.0: it has a device already"],
    [{ "endpoint-device": `rng:25,socket=${socket}` }, 409, "it is a socket of rng 00:03.0"],
    [{ "endpoint-device": `rng:25,socket=${world.path("api")}` }, 409, "a socket of serve itself"],
    [{ "endpoint-device": `rng:0x200,socket=/x` }, 409, "no --endpoint includes it"],
    [{ "endpoint-device": `rng:25,socket=${other.path}` }, 409, "another process serves it"],
    [{ "endpoint-device": `rng:25,socket=${world.path("file")}` }, 409, "not a socket"],
    [{ "endpoint-device": `rng:25,socket=/nowhere/x` }, 409, "/nowhere/x"],
    [
      { "endpoint-device": `blk:25,socket=${world.path("x")},file=${world.path("none")}` },
      409,
      "none: ENOENT",
    ],
    [{ "endpoint-device": `blk:25,socket=${other.path},file=${image}` }, 409, "another process"],
    [
      relay(`listen=${world.path("x")},backend=${other.path},backend-mode=listen`),
      409,
      "another process",
    ],
  ];
  for (const [body, status, text] of cases) {
    const answer = await add(body);
    assertEquals(answer.status, status, JSON.stringify(body).slice(0, 200));
    assertStringIncludes(answer.body.error, text);
    assert(!answer.body.error.includes("\n") && answer.body.error.length < 300, answer.body.error);
  }
  await until(() => world.connections === 0, "the clients are gone");
  await descriptorsClosed();
  assertEquals([openDescriptors().length, world.fileCount], before);
  assertEquals((await list(world)).map(({ endpoint }) => endpoint), [24]);
  for (
    const [id, status, text] of [
      ["25", 404, "nothing at endpoint 00:03.1"],
      ["x", 400, "an endpoint such as 24"],
      ["24?timeout-ms=x", 400, "milliseconds from 0 to 60000"],
      ["24?timeout-ms=60001", 400, "milliseconds from 0 to 60000"],
      ["", 404, "There is no /v1/endpoints/"],
      ["%zz", 400, "not percent-encoded"],
      ["00%3A03.1", 404, "nothing at endpoint 00:03.1"],
      ["24?timeoutms=5", 400, "DELETE /v1/endpoints/{endpoint} takes timeout-ms"],
    ] as const
  ) {
    const answer = await ask(world, "DELETE", `/v1/endpoints/${id}`);
    assertEquals(answer.status, status, id);
    assertStringIncludes(answer.body.error, text);
  }
});

Deno.test("clients that may only look can list endpoints, and change nothing", async () => {
  await using world = new HotplugWorld("read");
  world.control.add("--endpoint-device", `rng:24,socket=${world.path("rng")}`);
  assertEquals((await list(world)).length, 1);
  const add = { "endpoint-device": `rng:25,socket=${world.path("x")}` };
  for (
    const answer of [
      await ask(world, "POST", "/v1/endpoints", add),
      await ask(world, "DELETE", "/v1/endpoints/24"),
    ]
  ) {
    assertEquals(answer.status, 403);
    assertStringIncludes(answer.body.error, "serve --api-access full allows it");
  }
  assertEquals((await list(world)).length, 1);
});

Deno.test("a removal is answered when it is over, and others are answered meanwhile", async () => {
  await using world = new HotplugWorld();
  const backEnd = await holding(world);
  const answers: Answered[] = [];
  const removing = ask(world, "DELETE", "/v1/endpoints/40?timeout-ms=60000")
    .then((answer) => answers.push(answer));
  await until(async () => (await list(world))[0].leaving === true, "it leaves");
  const again = await ask(world, "POST", "/v1/endpoints", {
    "endpoint-device": `rng:40,socket=${world.path("x")}`,
  });
  assertEquals(again.status, 409);
  assertStringIncludes(again.body.error, "it has a device already, which is being removed");
  assertEquals(answers, []);
  backEnd.answerAll();
  await removing;
  assertEquals(answers, [{ status: 200, body: { endpoint: 40, drained: true } }]);
  assertEquals(await list(world), []);
});

Deno.test("a removal that does not drain in its time says so", async () => {
  await using world = new HotplugWorld();
  await holding(world);
  assertEquals(await ask(world, "DELETE", "/v1/endpoints/40?timeout-ms=1"), {
    status: 200,
    body: { endpoint: 40, drained: false },
  });
});

Deno.test("a removal goes on when its client has gone", async () => {
  await using world = new HotplugWorld();
  const backEnd = await holding(world);
  const client = UnixStream.connect(world.path("api"));
  const request = new TextEncoder().encode("DELETE /v1/endpoints/40 HTTP/1.1\r\n\r\n");
  assertEquals(client.send(request, 0, request.length), request.length);
  await until(() => world.endpoints.at(40)?.isLeaving === true, "it leaves");
  client.close();
  backEnd.answerAll();
  await until(() => world.endpoints.at(40) === undefined, "it is removed");
});

Deno.test("whatever a client wants to add, it is added or refused, and removed again nothing is left", async () => {
  const descriptors = openDescriptors().length;
  {
    await using world = new HotplugWorld();
    const image = world.image("disk");
    const before = openDescriptors().length;
    const parts = fc.array(
      fc.constantFrom(
        `socket=${world.path("a")}`,
        `listen=${world.path("b")}`,
        `backend=${world.path("c")}`,
        `file=${image}`,
        "backend-mode=listen",
        "queues=3",
        "readonly",
        "type=fs",
        "memory=1M",
        "timeout-ms=9",
        "x",
      ),
      { maxLength: 5 },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom("endpoint-device", "endpoint-relay", "endpoint-proxy"),
        fc.constantFrom("rng:24", "blk:24", "24", "00:03.0", "rng:0x300", ""),
        parts,
        async (option, head, parts) => {
          const answer = await ask(world, "POST", "/v1/endpoints", {
            [option]: [head, ...parts].join(","),
          });
          assert([200, 400, 409].includes(answer.status), JSON.stringify(answer));
          if (answer.status !== 200) return;
          const { status } = await ask(world, "DELETE", `/v1/endpoints/${answer.body.endpoint}`);
          assertEquals(status, 200);
        },
      ),
      { numRuns: 150 },
    );
    await until(() => world.connections === 0, "the clients are gone");
    await descriptorsClosed();
    assertEquals(openDescriptors().length, before);
    assertEquals(world.fileCount, 3, "two sockets and the image");
  }
  await descriptorsClosed();
  assertEquals(openDescriptors().length, descriptors);
});
