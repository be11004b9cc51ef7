/** How the server comes to front ends, and what becomes of those that are wrong. */
import { assert, assertEquals } from "@std/assert";
import { deadline } from "@std/async";
import { attachRequest } from "../../../device/iommu/driver_requests.ts";
import { UnixListener, UnixStream } from "../../../device/host/mod.ts";
import { IommuDevice } from "../../../device/iommu/iommu_device.ts";
import { Log } from "../../../device/log.ts";
import { DeviceServer } from "../../../device/serving/device_server.ts";
import { FrontEnd, Request } from "../../../device/vhost_user/mod.ts";
import { words } from "../../bytes.ts";
import { HANG_MS, until } from "../../until.ts";
import { failAsPlanned, FailurePlan } from "../host/failing_libc.ts";
import { datagramSocket, temporaryPath } from "../host/host_state.ts";
import { DEFAULT_OPTIONS } from "../in_process_guest.ts";
import { connectOver, send } from "../served_process.ts";

/** A server that connects to a path. */
class Client implements AsyncDisposable {
  readonly lines: string[] = [];
  readonly device = new IommuDevice(DEFAULT_OPTIONS);
  readonly server: DeviceServer;
  readonly done: Promise<void>;

  constructor(path: string) {
    this.server = new DeviceServer(
      this.device,
      new Log("info", (line) => this.lines.push(line)),
      0,
    );
    this.done = this.server.runClient(path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.stop();
    await deadline(this.done, HANG_MS);
    this.device.close();
  }
}

/** A server that listens on a path. */
class Listening implements AsyncDisposable {
  readonly path = temporaryPath();
  readonly lines: string[] = [];
  readonly device = new IommuDevice(DEFAULT_OPTIONS);
  readonly server: DeviceServer;
  readonly #done: Promise<void>;

  constructor() {
    const log = new Log("info", (line) => this.lines.push(line));
    this.server = new DeviceServer(this.device, log, 0);
    this.#done = this.server.run(UnixListener.listen(this.path));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.stop();
    await deadline(this.#done, HANG_MS);
    this.device.close();
  }
}

async function accept(listener: UnixListener): Promise<UnixStream> {
  let stream: UnixStream | undefined;
  await until(() => (stream = listener.accept()) !== undefined, "it connects");
  return stream!;
}

/** Serves one request of a front end. */
async function serveOne(stream: UnixStream): Promise<void> {
  using session = await connectOver(new FrontEnd(stream));
  assertEquals(await send(session, attachRequest(3, 24)), "OK");
}

Deno.test("a VMM that accepts and closes is not connected to without a pause", async () => {
  const path = temporaryPath();
  using listener = UnixListener.listen(path);
  await using client = new Client(path);
  const times: number[] = [];
  for (let i = 0; i < 4; i++) {
    const stream = await accept(listener);
    times.push(performance.now());
    stream.end();
  }
  assert(times[3] - times[0] >= 3 * 190, `${times}`);
  await serveOne(await accept(listener));
  assert(client.lines.length < 30);
});

Deno.test("whatever is in the place of a VMM's socket, it is waited for", async () => {
  const path = temporaryPath();
  await Deno.symlink(path, path);
  await using client = new Client(path);
  await until(() => client.lines.some((line) => line.includes("connect failed: ELOOP")), "ELOOP");
  await Deno.remove(path);
  using datagrams = datagramSocket(path);
  await until(() => client.lines.some((line) => line.includes("EPROTOTYPE")), "EPROTOTYPE");
  datagrams.close();
  await Deno.remove(path);
  using listener = UnixListener.listen(path);
  await serveOne(await accept(listener));
});

Deno.test("a VMM whose queue of connections is full is waited for", async () => {
  const path = temporaryPath();
  using listener = UnixListener.listen(path);
  using stack = new DisposableStack();
  const others: UnixStream[] = [];
  try {
    for (;;) others.push(stack.use(UnixStream.connect(path)));
  } catch {
    assert(others.length > 0);
  }
  await using client = new Client(path);
  await until(() => client.lines.some((line) => line.includes("EAGAIN")), "EAGAIN");
  for (const each of others) {
    (await accept(listener)).close();
    each.close();
  }
  await serveOne(await accept(listener));
});

/** Connects to the server and hands its end over to the test, as a launcher of VMMs does; then ends. */
const LAUNCHER = `
const { UnixStream } = await import(Deno.args[0]);
const own = UnixStream.connect(Deno.args[1]);
const test = UnixStream.connect(Deno.args[2]);
test.send(new Uint8Array(1), 0, 1, [own.descriptor.number]);`;

Deno.test("a connection whose process has ended is kept, and replaced when another one comes", async () => {
  using listener = UnixListener.listen(temporaryPath());
  await using served = new Listening();
  const { path, lines } = served;
  const host = new URL("../../../device/host/mod.ts", import.meta.url).href;
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", LAUNCHER, host, path, listener.path!],
  }).output();
  assertEquals(code, 0);
  using courier = await accept(listener);
  await until(() => courier.receive(new Uint8Array(1), 0, 1) === 1, "the connection arrives");
  const handed = new UnixStream(courier.received.shift()!);
  courier.close();
  using session = await connectOver(new FrontEnd(handed));
  assertEquals(await send(session, attachRequest(3, 24)), "OK");
  await serveOne(UnixStream.connect(path));
  assertEquals(lines.filter((line) => line.includes("is replaced")), [
    "viommu: warn: The front end is replaced by another one: its process has ended",
  ]);
});

Deno.test("what the host refuses while rings are served ends the session, and the next is served", async () => {
  await using served = new Listening();
  const { path, lines, server } = served;
  const plan = new FailurePlan();
  using session = await connectOver(FrontEnd.connect(path));
  const { frontEnd } = session;
  const [one, other] = UnixStream.pair();
  using _ours = one;
  using theirs = other;
  await frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [theirs.descriptor]);
  theirs.close();
  // Signals come as messages from here on.
  const NO_DESCRIPTOR = 0x100;
  const payload = words(NO_DESCRIPTOR, 0);
  await frontEnd.tell(Request.SET_VRING_CALL, payload);
  {
    using _failing = failAsPlanned(plan);
    plan.fail("sendmsg", 1, 4);
    const { queue } = session;
    queue.driver.begin();
    queue.driver.addReadable(0x8000, 4);
    queue.driver.addWritable(0x9000, 4);
    queue.driver.commit();
    queue.kick();
    await until(() => server.failures.iommu === 1, "the session fails");
    assert(plan.end() > 0);
  }
  assert(lines.some((line) => line.includes("The session is ended: Cannot send")), `${lines}`);
  frontEnd.close();
  await serveOne(UnixStream.connect(path));
});

Deno.test("a front end cannot hand over the end of its own connection, as a channel or for a state", async () => {
  await using served = new Listening();
  const { path } = served;
  const frontEnd = FrontEnd.connect(path);
  using stack = new DisposableStack();
  stack.defer(() => frontEnd.close());
  await frontEnd.negotiate();
  const own = frontEnd.connection.stream.descriptor;
  // A pair has no name: it is what channels are.
  const [one, other] = UnixStream.pair();
  using ours = one;
  using theirs = other;
  await frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [theirs.descriptor]);
  const refused = frontEnd.tell(Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [own]);
  assertEquals(await refused.then(() => false, () => true), true);
  const load = words(1, 0);
  const FAILED = 0x101;
  const reply = await frontEnd.ask(Request.SET_DEVICE_STATE_FD, load, [own]);
  assertEquals(reply.getUint32(0, true), FAILED);
  for (const each of [ours, theirs, frontEnd]) each.close();
  await serveOne(UnixStream.connect(path));
});

Deno.test("a front end that has sent nothing for ten seconds is replaced, and one that has sent something is not", async () => {
  const clock = performance.now.bind(performance);
  let ahead = 0;
  performance.now = () => clock() + ahead;
  try {
    for (const speaks of [false, true]) {
      await using listening = new Listening();
      using first = UnixStream.connect(listening.path);
      const frontEnd = new FrontEnd(first);
      if (speaks) await frontEnd.negotiate();
      await until(() => listening.lines.some((line) => line.includes("connected")), "it is served");
      ahead += 10_500;
      using second = UnixStream.connect(listening.path);
      const word = speaks ? "Refused a second front end" : "said nothing for 10 seconds";
      await until(() => listening.lines.some((line) => line.includes(word)), word);
      if (!speaks) await serveOne(second);
    }
  } finally {
    performance.now = clock;
  }
});
