/**
 * Between the loop that serves a front end of the IOMMU and the one that waits for the next nothing is lost: whatever
 * wakes a device behind the IOMMU, or the API, in the moment in which a front end comes, goes or is refused is served.
 */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { ApiServer } from "../../../device/api/mod.ts";
import { EntropyDevice, SeededRandom } from "../../../device/endpoint/mod.ts";
import { UnixListener, UnixStream } from "../../../device/host/mod.ts";
import { setting } from "../../long_mode.ts";
import { until } from "../../until.ts";
import { ask, EndpointWorld } from "../endpoint/endpoint_world.ts";

const RUNS = Number(setting("VIOMMU_HAND_OVERS") ?? 40);
const BUFFER = 0x8000;
/** What a request may take before it counts as lost: nothing else wakes the loop meanwhile. */
const PATIENCE_MS = 20_000;

/** What happens at the IOMMU's socket in the moment in which something behind it is to be served. */
const FRONT_END = [
  "nothing",
  "comes",
  "goes",
  "comes and goes",
  "sends garbage",
  "second",
] as const;
/** What is to be served. */
const WAKER = ["kick", "API", "both"] as const;

const step = fc.tuple(fc.constantFrom(...FRONT_END), fc.constantFrom(...WAKER));

Deno.test("what wakes a device or the API while a front end comes or goes is served", async () => {
  // What a guest has attached is blocked with the end of a session; what it has not goes on.
  await using world = new EndpointWorld(new EntropyDevice(new SeededRandom(1)), {
    bypass: true,
    shift: 0,
    beside: (world, log) =>
      new ApiServer(UnixListener.listen(`${world.path}.api`), {
        device: world.guest.device,
        services: [world.service],
        version: "1.2.3",
        connected: false,
      }, log),
  });
  const { frontEnd } = await world.connect();
  const queue = await frontEnd.startQueue(0, { size: 16, address: 0x1000 });
  const request = new TextEncoder().encode("GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const answer = new Uint8Array(4096);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 16 }), async (steps) => {
      using opened = new DisposableStack();
      let held: UnixStream | undefined;
      for (const [frontEndDoes, waker] of steps) {
        using client = UnixStream.connect(`${world.path}.api`);
        // Everything up to the first await is there when the loop looks next.
        if (frontEndDoes === "comes") held ??= opened.use(UnixStream.connect(world.iommuPath));
        if (frontEndDoes === "goes") {
          held?.close();
          held = undefined;
        }
        if (["comes and goes", "sends garbage", "second"].includes(frontEndDoes)) {
          const other = UnixStream.connect(world.iommuPath);
          if (frontEndDoes === "sends garbage") other.send(new Uint8Array(12).fill(0xff), 0, 12);
          if (frontEndDoes === "second") opened.use(other);
          else other.close();
        }
        if (waker !== "kick") client.send(request, 0, request.length);
        const what = `${frontEndDoes}, ${waker}`;
        if (waker !== "API") {
          assertEquals(await ask(queue, BUFFER, 64, PATIENCE_MS), 64, what);
        }
        if (waker !== "kick") {
          await until(() => client.receive(answer, 0, answer.length) > 0, what, PATIENCE_MS);
        }
      }
    }),
    { numRuns: RUNS },
  );
});
