/** Descriptors that come with a request to the API socket (docs/api.md, "Descriptors"). */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { closeAll, createPipe, type Descriptor } from "../../../device/host/mod.ts";
import { openDescriptors } from "../host/host_state.ts";
import { InProcessGuest } from "../in_process_guest.ts";
import { ApiWorld, get, post } from "./api_world.ts";

/** So many open descriptors, and their numbers. */
function somePipes(count: number): Descriptor[] {
  return Array.from({ length: count / 2 }, () => createPipe()).flat();
}

/** What this process holds once a client that connects is served; that is compared with, so that leaks are seen. */
function settledDescriptors(world: ApiWorld): string[] {
  for (let i = 0; i < 20; i++) world.turn();
  return openDescriptors();
}

Deno.test("what a route does not take of the descriptors of a request is closed", async () => {
  using world = new ApiWorld();
  const client = world.connect();
  const pipes = somePipes(8);
  const before = settledDescriptors(world);
  for (const request of [get("/v1/health"), get("/v1/nothing"), post("/v1/endpoints", "{")]) {
    client.send(request, pipes.map(({ number }) => number));
    await world.answer(client);
    assertEquals(openDescriptors(), before, request);
  }
  closeAll(pipes);
});

Deno.test("descriptors may come with any byte of a request, and are kept until it is whole", async () => {
  using world = new ApiWorld();
  const client = world.connect();
  const pipes = somePipes(4);
  const before = settledDescriptors(world);
  const request = post("/v1/endpoints", "{}");
  const half = request.length - 1;
  client.send(request.slice(0, 5), [pipes[0].number]);
  client.send(request.slice(5, half), [pipes[1].number, pipes[2].number]);
  for (let i = 0; i < 20; i++) world.turn();
  assertEquals(openDescriptors().length, before.length + 3);
  client.send(request.slice(half), [pipes[3].number]);
  assertEquals((await world.answer(client)).status, 403);
  assertEquals(openDescriptors(), before);
  closeAll(pipes);
});

Deno.test("more descriptors than a request may have end the connection, at once or in pieces", async () => {
  using world = new ApiWorld();
  const pipes = somePipes(10);
  const numbers = pipes.map(({ number }) => number);
  for (const parts of [[numbers], [numbers.slice(0, 5), numbers.slice(5)]]) {
    const client = world.connect();
    const before = settledDescriptors(world);
    for (const part of parts) {
      client.send("GET /v1/", part);
      for (let i = 0; i < 5; i++) world.turn();
    }
    const { status, head, body } = await world.answer(client);
    assertEquals(status, 400);
    assertStringIncludes(head, "Connection: close");
    assertStringIncludes(body, "they are more than 8, or than this process may open");
    assertEquals(openDescriptors(), before);
    // What still comes, descriptors included, is thrown away.
    client.send("health HTTP/1.1\r\n\r\n", numbers.slice(0, 4));
    for (let i = 0; i < 20; i++) world.turn();
    assertEquals(openDescriptors(), before);
    client.close();
    for (let i = 0; i < 20; i++) world.turn();
    assertEquals(world.server.connections, 0);
  }
  closeAll(pipes);
});

Deno.test("a client that disconnects leaves none of its descriptors behind", () => {
  using world = new ApiWorld();
  const before = settledDescriptors(world);
  const client = world.connect();
  const pipes = somePipes(6);
  client.send("GET /v1/health HTTP/1.1\r\n", pipes.map(({ number }) => number));
  for (let i = 0; i < 20; i++) world.turn();
  client.close();
  closeAll(pipes);
  for (let i = 0; i < 20; i++) world.turn();
  assertEquals(openDescriptors(), before);
});

Deno.test("a socket whose clients can only read takes no descriptors", async () => {
  using world = new ApiWorld(new InProcessGuest(), "read");
  const client = world.connect();
  const pipes = somePipes(2);
  const before = settledDescriptors(world);
  client.send(get("/v1/health"), [pipes[0].number]);
  const { status, body } = await world.answer(client);
  assertEquals([status, JSON.parse(body).error], [
    403,
    "Cannot take descriptors: this socket allows reading the device's state only " +
    "(serve --api-access full allows it)",
  ]);
  assertEquals(openDescriptors(), before);
  closeAll(pipes);
});
