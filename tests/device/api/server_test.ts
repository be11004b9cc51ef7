/** The API socket byte by byte: HTTP, its limits, and how little of it comes between two looks at the rings. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { CONNECTIONS_MAX } from "../../../device/api/server.ts";
import { WORK_MAX } from "../../../device/api/work.ts";
import { attachRequest, mapRequest, unmapRequest } from "../../../device/iommu/driver_requests.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { runs } from "../../vring/ring_fixture.ts";
import { type ApiTestClient, ApiWorld, get, type HttpAnswer, post } from "./api_world.ts";

/** What one request of a turn may exceed the limit by: the unit that reached it. */
const SLACK = 8;

/** Maps pages of a domain, one by one, each to itself. */
function mapPages(guest: InProcessGuest, domain: number, first: number, count: number): void {
  for (let page = first; page < first + count; page++) {
    const virtStart = BigInt(page) * 0x2000n;
    const fields = { domain, virtStart, virtEnd: virtStart + 0xfffn, physStart: virtStart };
    guest.request(mapRequest({ ...fields, flags: 3 }), 4);
  }
}

/** A guest with so many domains of one endpoint each, and so many mappings in the first. */
function busyGuest(domains: number, mappings: number): InProcessGuest {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, reserved: [], bypass: false });
  for (let id = domains; id >= 1; id--) guest.request(attachRequest(id, id), 4);
  mapPages(guest, 1, 0, mappings);
  return guest;
}

Deno.test("requests follow each other on a connection, also sent at once", async () => {
  using world = new ApiWorld();
  const client = world.connect();
  client.send(
    get("/v1/state") + get("/v1/mappings") + post("/v1/nothing", "{}") + get("/v1/state"),
  );
  const answers: HttpAnswer[] = [];
  while (answers.length < 4) answers.push(await world.answer(client));
  assertEquals(answers.map(({ status }) => status), [200, 200, 404, 200]);
  assertEquals(JSON.parse(answers[1].body), []);
  assertEquals(JSON.parse(answers[3].body).version, "0");
  client.send("GET /v1/state HTTP/1.1\r\nConnection: close\r\n\r\n");
  assertStringIncludes((await world.answer(client)).head, "Connection: close");
  while (world.server.connections > 0) world.turn();
  client.pump();
  assertEquals(client.isClosed, true);
});

Deno.test("a request may come byte by byte", async () => {
  using world = new ApiWorld();
  const client = world.connect();
  for (const letter of post("/v1/dma", '{"endpoint":8,"iova":"0","length":4}')) {
    client.send(letter);
    for (let i = 0; i < 3; i++) world.turn();
  }
  assertEquals(JSON.parse((await world.answer(client)).body), { data: "00000000" });
});

Deno.test("HTTP/1.0 gets an answer that ends with the connection, and HEAD one without a body", async () => {
  using world = new ApiWorld(busyGuest(1, 2000));
  const old = await world.ask("GET /v1/mappings HTTP/1.0\r\n\r\n");
  assertEquals([old.status, JSON.parse(old.body).length], [200, 2000]);
  assert(!/transfer-encoding/i.test(old.head));
  const client = world.connect();
  client.send("HEAD /v1/state HTTP/1.1\r\n\r\n");
  for (let i = 0; i < 20; i++) world.turn();
  client.pump();
  assertStringIncludes(client.text, "HTTP/1.1 200 ");
  assert(client.text.endsWith("\r\n\r\n"), client.text);
  // The connection goes on behind it: a client that took it for an answer with a body would be out of step.
  client.send(get("/v1/version") + "HEAD /v1/nothing HTTP/1.1\r\n\r\n");
  for (let i = 0; i < 40; i++) world.turn();
  client.pump();
  assertStringIncludes(client.text, '"api":"v1"');
  assertStringIncludes(client.text, "HTTP/1.1 404 ");
  assert(client.text.endsWith("\r\n\r\n"), client.text);
});

const LONG_HEX = "00".repeat(1 << 20);

Deno.test("what is wrong with a request is said in one line of JSON, and in no log", async () => {
  using world = new ApiWorld();
  const chunked = "POST /v1/dma HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  const cases: readonly (readonly [string, number, string])[] = [
    ["GET http://evil:99999/v1/state HTTP/1.1\r\n\r\n", 400, "is no URL"],
    ["OPTIONS * HTTP/1.1\r\n\r\n", 400, "is no URL"],
    ["nonsense\r\n\r\n", 400, "request line"],
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2.0"],
    ["GET /v1/state HTTP/1.1\r\nno field\r\n\r\n", 400, "header field"],
    ["GET /v1/state HTTP/1.1\r\n folded: x\r\n\r\n", 400, "header field"],
    [`GET /${"x".repeat(20000)} HTTP/1.1\r\n\r\n`, 431, "16384"],
    ["POST /v1/dma HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, "length of the body"],
    ["POST /v1/dma HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n", 413, "3145728"],
    [`POST /v1/dma HTTP/1.1\r\nContent-Length: ${"9".repeat(400)}\r\n\r\n`, 413, "3145728"],
    [
      "POST /v1/dma HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
      400,
      "two lengths",
    ],
    ["POST /v1/dma HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "chunked"],
    [`${chunked}x\r\n`, 400, "chunks"],
    [`${chunked}2\r\n{}}\r\n`, 400, "chunks"],
    [`${chunked}${"1".repeat(300)}`, 400, "chunks"],
    [`${chunked}${`100000\r\n${" ".repeat(1 << 20)}\r\n`.repeat(4)}0\r\n\r\n`, 413, "3145728"],
    [get("/v1/mappings?domain=%zz"), 400, "domain"],
    [get("/v1/mappings?domain=1e3"), 400, "domain"],
    [get(`/v1/translate?endpoint=${"9".repeat(9000)}&iova=0`), 400, "endpoint"],
    [get("/v1/mappings?domain=7"), 404, "no domain 7"],
    [get("/v1/mappings?domian=7"), 400, "GET /v1/mappings takes domain, after, limit"],
    [get("/v1/state?pretty"), 400, "GET /v1/state takes none"],
    [get("/v1/mappings?limit=5&limit=6"), 400, "limit twice"],
    [get("/v1/mappings?limit=0"), 400, "a number from 1"],
    [get("/v1/mappings?after=7"), 400, "2:0x1000"],
    [get("/v1/endpoints?after=x"), 400, "an endpoint such as 24"],
    [get("//evil/v1/state"), 404, "There is no //evil"],
    ["PUT /v1/state HTTP/1.1\r\n\r\n", 405, "it takes GET, HEAD"],
    [get("/v1/dma"), 405, "it takes POST"],
    [post("/v1/endpoints/24", "{}"), 405, "it takes DELETE"],
    ...["", "[", "3", "null", '"x"', '[{"endpoint":8}]', "[".repeat(5000), "[".repeat(3 << 20)].map(
      (body) => [post("/v1/dma", body), 400, "JSON object"] as const,
    ),
    [post("/v1/dma", `{"a":"${LONG_HEX}","b":"${LONG_HEX.slice(1000)}"}`), 413, "3145728"],
    [post("/v1/dma", `{"a":"${"0".repeat(2100)}","b":"${"0".repeat(2100)}"}`), 400, "JSON object"],
    [
      post("/v1/dma", `{"endpoint":8,"iova":"0","access":"w","data":"${LONG_HEX}00"}`),
      400,
      "1048577",
    ],
    [
      post("/v1/dma", `{"endpoint":8,"iova":"0","access":"w","data":"${"x".repeat(999)}"}`),
      400,
      "hexadecimal",
    ],
  ];
  for (const [request, status, text] of cases) {
    const answer = await world.ask(request);
    assertEquals(answer.status, status, request.slice(0, 80));
    const { error } = JSON.parse(answer.body);
    assertStringIncludes(error, text);
    assert(error.length < 300 && !error.includes("\n"), error);
  }
  assertEquals(world.lines, []);
  assert(world.server.work.longest <= WORK_MAX + SLACK);
});

Deno.test("a megabyte is written and read by POST /v1/dma, with a length and in chunks", async () => {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: true });
  using world = new ApiWorld(guest);
  const length = 0x40000; // behind the rings and buffers of the driver
  const hex = Array.from({ length }, (_, i) => (i * 7 % 251).toString(16).padStart(2, "0")).join(
    "",
  );
  const written = `{"endpoint":8,"iova":"0x40000","access":"w","data":"${hex}"}`;
  assertEquals((await world.ask(post("/v1/dma", written))).body, "{}\n");
  const read = await world.ask(post("/v1/dma", '{"endpoint":8,"iova":"0x40000","length":262144}'));
  assertEquals(JSON.parse(read.body), { data: hex });
  const chunks = written.match(/.{1,5000}/g)!.map((part) =>
    `${part.length.toString(16)}\r\n${part}\r\n`
  );
  const answer = await world.ask(
    `POST /v1/dma HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n${
      chunks.join("")
    }0\r\n\r\n`,
  );
  assertEquals([answer.status, answer.body], [200, "{}\n"]);
});

Deno.test("whatever comes, the connection is answered or closed, and the next one is served", async () => {
  using world = new ApiWorld(busyGuest(3, 3));
  const parts = fc.constantFrom(
    get("/v1/state"),
    post("/v1/dma", '{"endpoint":1,"iova":"0","length":4}'),
    "POST /v1/dma HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "5\r\nabcde\r\n",
    "0\r\n\r\n",
    "Content-Length: 10\r\n",
    "\r\n\r\n",
  );
  const garbage = fc.string({ unit: "binary", maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof(parts, garbage), { maxLength: 8 }), async (texts) => {
      const client = world.connect();
      client.send(texts.join(""));
      for (let i = 0; i < 50; i++) world.turn();
      client.pump();
      client.close();
      assertEquals((await world.ask(get("/v1/state"))).status, 200);
    }),
    { numRuns: runs(200) },
  );
  assertEquals(world.lines, []);
});

Deno.test("a client that asks for much and takes nothing costs a few pieces", () => {
  using world = new ApiWorld(busyGuest(1, 30_000));
  const client = world.connect();
  client.send(get("/v1/mappings"));
  let turns = 0;
  while (world.turn() || turns < 10) turns++;
  const { total } = world.server.work;
  assert(total < 10_000, `${total} of 30000 mappings were put together`);
  for (let i = 0; i < 100; i++) assertEquals(world.turn(), false, "it waits for the client");
  assertEquals(world.server.work.total, total);
});

Deno.test("between two looks at the rings the clients together get no more than a piece of work", async () => {
  const DOMAINS = 1000;
  const MAPPINGS = 5000;
  using world = new ApiWorld(busyGuest(DOMAINS, MAPPINGS));
  const { guest, server } = world;
  const targets = ["/v1/mappings", "/v1/state", "/v1/mappings?domain=1"];
  const asked = Array.from({ length: CONNECTIONS_MAX }, () => silent(world, ""));
  asked.forEach((client, i) => {
    client.send(
      i % 4 === 3 ? post("/v1/dma", "[".repeat(3 << 20)) : get(targets[i % 4]) + get("/v1/state"),
    );
  });
  const answers = asked.map((): HttpAnswer[] => []);
  const wanted = asked.map((_, i) => i % 4 === 3 ? 1 : 2);
  let turns = 0;
  while (answers.some((list, i) => list.length < wanted[i])) {
    const before = server.work.total;
    world.turn();
    assert(server.work.total - before <= WORK_MAX + SLACK, "work in one turn");
    // The guest is served after each turn, whatever the clients ask.
    guest.request(unmapRequest(2, 0n, 0xfffn), 4);
    if (++turns % 50 !== 0) continue;
    asked.forEach((client, i) => {
      client.pump();
      const answer = client.take();
      if (answer !== undefined) answers[i].push(answer);
    });
    if (turns % 1000 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  assert(server.work.total >= 16 * MAPPINGS + 24 * DOMAINS, `${server.work.total} units`);
  for (const [i, [first, second]] of answers.entries()) {
    if (i % 4 === 3) {
      assertEquals(first.status, 400);
      continue;
    }
    if (i % 4 === 1) assertEquals(JSON.parse(first.body).domains.length, DOMAINS);
    else assertEquals(JSON.parse(first.body).length, MAPPINGS);
    assertEquals(JSON.parse(second.body).endpoints.length, DOMAINS);
  }
});

Deno.test("one domain with many endpoints is told in pieces, too, by ascending id", async () => {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, reserved: [], bypass: false });
  for (let i = 0; i < 5000; i++) guest.request(attachRequest(1, (i * 7919) % 65536), 4);
  using world = new ApiWorld(guest);
  const state = JSON.parse((await world.ask(get("/v1/state"))).body);
  const ids = Array.from({ length: 5000 }, (_, i) => (i * 7919) % 65536).sort((a, b) => a - b);
  assertEquals(state.domains[0].endpoints, ids);
  assertEquals(state.endpoints.map(({ id }: { id: number }) => id), ids);
  assert(world.server.work.longest <= WORK_MAX + SLACK);
});

/** A connection that waits for its client, in the middle of something or not. */
function silent(world: ApiWorld, text: string): ApiTestClient {
  const client = world.connect();
  client.send(text);
  while (world.turn());
  return client;
}

Deno.test("one connection too many takes the place of the one that was silent for longest", async () => {
  using world = new ApiWorld();
  const half = silent(world, "POST /v1/dma HTTP/1.1\r\nContent-Length: 10\r\n\r\n{");
  const clients = Array.from(
    { length: CONNECTIONS_MAX - 1 },
    () => silent(world, get("/v1/state")),
  );
  assertEquals(world.server.connections, CONNECTIONS_MAX);
  half.pump();
  assertEquals(half.isClosed, false);
  assertEquals((await world.ask(get("/v1/mappings"))).status, 200);
  half.pump();
  assertEquals(half.isClosed, true);
  for (const client of clients) {
    client.pump();
    assertEquals(client.isClosed, false);
  }
});

Deno.test("where every connection is being answered, one more is told to come again", async () => {
  using world = new ApiWorld(busyGuest(1, 3000));
  const clients = Array.from({ length: CONNECTIONS_MAX }, () => {
    const client = world.connect();
    world.turn();
    return client;
  });
  for (const client of clients) client.send(get("/v1/mappings"));
  for (let i = 0; i < CONNECTIONS_MAX * 2; i++) world.turn();
  const refused = await world.ask(get("/v1/state"));
  assertEquals(refused.status, 503);
  assertStringIncludes(JSON.parse(refused.body).error, "too many clients");
  for (const client of clients) {
    assertEquals(JSON.parse((await world.answer(client)).body).length, 3000);
  }
  assertEquals((await world.ask(get("/v1/state"))).status, 200);
});

Deno.test("close() ends what is under way at once", () => {
  const world = new ApiWorld(busyGuest(1, 3000));
  const clients = [
    silent(world, "POST /v1/dma HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"),
    silent(world, "GET /v1/sta"),
    silent(world, ""),
    world.connect(),
  ];
  clients[3].send(get("/v1/mappings"));
  for (let i = 0; i < 4; i++) world.turn();
  world.server.close();
  for (const client of clients) {
    client.pump();
    assertEquals(client.isClosed, true);
  }
  world[Symbol.dispose]();
});
