import { assert, assertEquals } from "@std/assert";
import { WatchWindow } from "../../device/watch_window.ts";

Deno.test("WatchWindow grows to the rhythm of a guest that keeps coming, and no further than allowed", () => {
  const window = new WatchWindow(1);
  assertEquals(window.milliseconds, 0.05);
  window.woken(0.2);
  assert(window.milliseconds >= 0.4);
  for (let i = 0; i < 10; i++) window.woken(0.9);
  assertEquals(window.milliseconds, 1);
});

Deno.test("WatchWindow falls back when the guest stays away for longer than it may be watched", () => {
  const window = new WatchWindow(1);
  for (let i = 0; i < 10; i++) window.woken(0.9);
  window.woken(1.1);
  assertEquals(window.milliseconds, 0.05);
});

Deno.test("WatchWindow of 0 never watches", () => {
  const window = new WatchWindow(0);
  window.woken(0);
  assertEquals(window.milliseconds, 0);
});
