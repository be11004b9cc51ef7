/** A request to the API with descriptors beside it: what arrives, and the one line that says what is wrong. */
import { assertEquals, assertRejects } from "@std/assert";
import { postDescriptors } from "../../../device/command/descriptor_client.ts";
import { CommandError } from "../../../device/command/errors.ts";
import {
  closeAll,
  createPipe,
  type Descriptor,
  isSameFile,
  UnixListener,
  type UnixStream,
} from "../../../device/host/mod.ts";
import { until } from "../../until.ts";
import { HotplugWorld } from "../hotplug_world.ts";
import { openDescriptors } from "../host/host_state.ts";
import { withFolder } from "./test_folder.ts";

const ROUTE = "/v1/endpoints";
const LIMIT = 60_000;

/** Posts to a peer that takes the request and answers with a text, or with nothing. */
async function posted(
  text: string | undefined,
  limit = LIMIT,
  descriptors: readonly Descriptor[] = [],
): Promise<readonly [answer: unknown, received: readonly Descriptor[], request: string]> {
  return await withPeer(async (path, listener) => {
    const numbers = descriptors.map(({ number }) => number);
    const asked = postDescriptors({
      path,
      route: ROUTE,
      value: { a: 1 },
      descriptors: numbers,
      limit,
    });
    let stream: UnixStream | undefined;
    await until(() => (stream ??= listener.accept()) !== undefined, "the client connects");
    const bytes = new Uint8Array(4096);
    const length = stream!.receive(bytes, 0, bytes.length);
    const request = new TextDecoder().decode(bytes.subarray(0, length));
    const received = stream!.received.splice(0);
    if (text !== undefined) {
      if (text !== "") stream!.send(new TextEncoder().encode(text), 0, text.length);
      stream!.close();
    }
    try {
      return [await asked, received, request];
    } finally {
      stream!.close();
    }
  });
}

async function withPeer<T>(use: (path: string, listener: UnixListener) => Promise<T>): Promise<T> {
  let result: T;
  await withFolder(async (folder) => {
    using listener = UnixListener.listen(`${folder}/s`);
    result = await use(`${folder}/s`, listener);
  });
  return result!;
}

Deno.test("a request arrives with its descriptors, in order, and its answer is taken", async () => {
  const before = openDescriptors();
  const pipes = createPipe();
  const text = 'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"b":2}\n';
  const [answer, received, request] = await posted(text, LIMIT, pipes);
  assertEquals(answer, { b: 2 });
  assertEquals(
    request,
    "POST /v1/endpoints HTTP/1.1\r\nHost: viommu\r\nConnection: close\r\n" +
      'Content-Length: 7\r\n\r\n{"a":1}',
  );
  assertEquals(received.map((each, i) => isSameFile(each, pipes[i])), [true, true]);
  closeAll([...pipes, ...received]);
  assertEquals(openDescriptors(), before);
});

Deno.test("a running serve answers such a request, and closes the descriptors that it does not use", async () => {
  await using world = new HotplugWorld();
  const pipes = createPipe();
  const value = { "endpoint-device": `rng:24,socket=${world.path("rng")}` };
  const descriptors = pipes.map(({ number }) => number);
  const request = { path: world.path("api"), route: ROUTE, descriptors, limit: LIMIT };
  assertEquals(await postDescriptors({ ...request, value }), {
    endpoint: 24,
    kind: "rng",
    listen: world.path("rng"),
    connected: false,
  });
  await until(() => world.connections === 0, "the connection is closed");
  await assertRejects(
    () => postDescriptors({ ...request, value }),
    CommandError,
    "Cannot take --endpoint-device for endpoint 00:03.0: it has a device already",
  );
  await until(() => world.connections === 0, "the connection is closed");
  const ends = openDescriptors().filter((each) => each.includes("pipe:"));
  const [one, other] = pipes.map(({ number }) =>
    ends.find((each) => each.startsWith(`${number} `))
  );
  const names = [one, other].map((each) => each?.split(" ")[1]);
  assertEquals(ends.filter((each) => names.includes(each.split(" ")[1])).length, 2);
  closeAll(pipes);
});

Deno.test("what does not answer as the API does is said in one line", async () => {
  const cases: readonly (readonly [answer: string | undefined, limit: number, part: string])[] = [
    ["hello\n", LIMIT, "what answers there is not viommu's API"],
    ["", LIMIT, "what answers there is not viommu's API"],
    ["HTTP/1.1 200 OK\r\n\r\n{", LIMIT, "it ended early; has serve ended?"],
    ["HTTP/1.1 404 Not Found\r\n\r\n{}", LIMIT, "what answers there is not viommu's API"],
    ['HTTP/1.1 409 Conflict\r\n\r\n{"error":"so it is"}', LIMIT, "so it is"],
    [undefined, 50, "no answer within 50 ms; look whether serve is stopped"],
  ];
  for (const [answer, limit, part] of cases) {
    const error = await assertRejects(() => posted(answer, limit), CommandError, part);
    assertEquals(error.message.includes("\n"), false);
  }
});

Deno.test("a socket that cannot be asked is said in one line, in the words of inspect", async () => {
  await withFolder(async (folder) => {
    const request = { route: ROUTE, value: {}, descriptors: [], limit: LIMIT };
    const ask = (name: string) => () => postDescriptors({ ...request, path: `${folder}/${name}` });
    await assertRejects(ask("none"), CommandError, "there is no such socket; is");
    await Deno.writeTextFile(`${folder}/file`, "");
    await assertRejects(ask("file"), CommandError, "nothing answers there; is");
  });
});
