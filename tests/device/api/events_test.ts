import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { DeviceEvent } from "../../../device/iommu/device_events.ts";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { eventText } from "../../../device/command/event_text.ts";
import { READ } from "../../../pagetable/mod.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { ApiWorld, get } from "./api_world.ts";

const MAPPING = { domain: 9, virtStart: 0x5000n, virtEnd: 0x5fffn, physStart: 0x9000n, flags: 3 };

/** A world whose guest has attached an endpoint; a MAP was refused, and an access. */
function eventfulWorld(): ApiWorld {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(2, 8), 4);
  guest.request(mapRequest(MAPPING), 4);
  guest.device.refused(8, 7, 0x123, READ);
  return new ApiWorld(guest);
}

async function listed(world: ApiWorld, query = ""): Promise<readonly DeviceEvent[]> {
  return JSON.parse((await world.ask(get(`/v1/events${query}`))).body);
}

Deno.test("GET /v1/events lists what was refused, attached and detached, oldest first, in pages", async () => {
  using world = eventfulWorld();
  const all = await listed(world);
  assertEquals(all.map(({ kind }) => kind), ["attach", "refused", "fault"]);
  assertEquals(await listed(world, `?after=${all[0].number}&limit=1`), [all[1]]);
  assertEquals(await listed(world, `?after=${all[2].number}`), []);
  for (const query of ["?after=x", "?follow=yes", "?limit=0"]) {
    assertEquals((await world.ask(get(`/v1/events${query}`))).status, 400, query);
  }
});

Deno.test("GET /v1/events?follow=true goes on with what happens, and costs nothing while nothing does", async () => {
  using world = eventfulWorld();
  const client = world.connect();
  client.send(get("/v1/events?follow=true"));
  const seen = async (count: number) => {
    for (let i = 0; i < 2000 && client.text.split('"kind"').length <= count; i++) {
      world.turn();
      client.pump();
      if (i % 100 === 99) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    assertEquals(client.text.split('"kind"').length - 1, count, client.text);
  };
  await seen(3);
  assertStringIncludes(client.text, "Content-Type: application/jsonl\r\n");
  // Nothing to do: the loop may sleep.
  assertEquals(world.server.setNotifications(true), false);
  assertEquals(world.turn(), false);
  world.guest.request(mapRequest(MAPPING), 4);
  assertEquals(world.server.setNotifications(true), true);
  await seen(4);
  client.close();
  for (let i = 0; i < 10 && world.server.connections > 0; i++) world.turn();
  assertEquals(world.server.connections, 0);
});

Deno.test("GET /v1/translate?ring=N needs a device that is served at the endpoint", async () => {
  using world = eventfulWorld();
  const answer = await world.ask(get("/v1/translate?endpoint=8&ring=0"));
  assertEquals(answer.status, 404);
  assertStringIncludes(answer.body, "no device is served there");
  const both = await world.ask(get("/v1/translate?endpoint=8&ring=0&iova=0"));
  assertEquals(both.status, 400);
});

Deno.test("events read as lines: what was refused with its requirement, and the path below a fault", async () => {
  using world = eventfulWorld();
  const [attach, refused, fault] = (await listed(world)).map(eventText);
  assert(attach.endsWith(" attach 00:01.0, domain 2"), attach);
  assert(
    refused.endsWith(
      " MAP refused with NOENT: there is no such domain (M4 of docs/conformance.md): domain 9",
    ),
    refused,
  );
  const lines = fault.split("\n");
  assert(lines[0].endsWith(" fault of 00:01.0: r 0x7123: not-present (0x6), vtd-ss"), lines[0]);
  // Nothing was ever mapped: the walk ends in the top table.
  assertEquals(lines.slice(1).map((line) => line.trim().split(" ")[0]), ["root", "context", "L4"]);
});
