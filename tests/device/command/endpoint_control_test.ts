/** Adding an endpoint where the host refuses something on the way: nothing of it is left. */
import { assert, assertEquals } from "@std/assert";
import { ApiError } from "../../../device/api/mod.ts";
import { descriptorsClosed } from "../../../device/host/mod.ts";
import { type Libc, libc, replaceLibc } from "../../../device/host/libc.ts";
import { CALLS } from "../host/failing_libc.ts";
import { descriptorCount } from "../host/host_state.ts";
import { HotplugWorld } from "../hotplug_world.ts";

/** Calls that give back what was taken: where they fail, something is left by the host's own doing. */
const GIVING_BACK = ["close", "closeOnThread", "unlink", "umask", "munmap"];

const EMFILE = 24;

type Call = (...args: unknown[]) => unknown;

/** Makes one of this thread's calls fail, by its number from the last {@linkcode begin} on. */
class FailingCall implements Disposable {
  /** Names of the calls since then. */
  names: string[] = [];
  #failing = -1;

  constructor() {
    const real = libc() as unknown as Record<string, Call>;
    const errno = new Int32Array(
      Deno.UnsafePointerView.getArrayBuffer(libc().errnoLocation()!, 4),
    );
    const calls: Record<string, Call> = { ...real };
    for (const name of CALLS) {
      if (GIVING_BACK.includes(name)) continue;
      calls[name] = (...args) => {
        if (this.names.push(name) - 1 !== this.#failing) return real[name](...args);
        errno[0] = EMFILE;
        return name === "lseek" ? -1n : -1;
      };
    }
    replaceLibc(calls as unknown as Libc);
  }

  begin(failing: number): void {
    this.names = [];
    this.#failing = failing;
  }

  [Symbol.dispose](): void {
    replaceLibc(undefined);
  }
}

/** Adds an endpoint; what it was refused with, if it was. */
function add(world: HotplugWorld, option: string, text: string): unknown {
  try {
    world.control.add(option, text);
    return undefined;
  } catch (error) {
    return error;
  }
}

Deno.test("whichever call the host refuses while an endpoint is added, nothing of it is left", async () => {
  await using world = new HotplugWorld();
  const image = world.image("disk");
  const both = `listen=${world.path("fe")},backend=${world.path("be")},backend-mode=listen`;
  const options = [
    ["--endpoint-device", `rng:24,socket=${world.path("fe")}`],
    ["--endpoint-device", `blk:24,socket=${world.path("fe")},file=${image}`],
    ["--endpoint-relay", `24,${both}`],
    ["--endpoint-proxy", `24,${both}`],
  ];
  using call = new FailingCall();
  const before = [descriptorCount(), world.fileCount];
  for (const [option, text] of options) {
    let refused = 0;
    for (let failing = 0;; failing++) {
      call.begin(failing);
      const outcome = add(world, option, text);
      const { names } = call;
      call.begin(-1);
      const what = `${text}: ${names[failing]}, call ${failing}`;
      if (outcome === undefined) {
        // What was refused did not matter, or there were not so many calls.
        const removal = world.endpoints.remove(24, 0)!;
        world.endpoints.serve();
        assertEquals(removal.isDone, true, what);
      } else {
        refused++;
        assert(outcome instanceof ApiError, `${what}: ${outcome}`);
        assertEquals(outcome.message.includes("\n"), false, what);
      }
      await descriptorsClosed();
      assertEquals([descriptorCount(), world.fileCount], before, what);
      assertEquals(world.endpoints.all, [], what);
      assertEquals(world.guest.device.iotlbListeners.endpoints, [], what);
      if (failing >= names.length) break;
    }
    assert(refused > 5, `${text}: ${refused}`);
  }
});
