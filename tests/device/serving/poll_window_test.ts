import { assertEquals } from "@std/assert";
import { PollWindow } from "../../../device/serving/poll_window.ts";

Deno.test("PollWindow is a moment for the first request, and all that is allowed once the guest keeps coming", () => {
  const window = new PollWindow(1);
  assertEquals(window.milliseconds, 0.05);
  window.woken(0.2);
  assertEquals(window.milliseconds, 1);
});

Deno.test("PollWindow stays open for a guest that is slow because it had to kick", () => {
  const window = new PollWindow(1);
  window.woken(0.2);
  window.woken(1.3);
  window.woken(2.5);
  assertEquals(window.milliseconds, 1);
});

Deno.test("PollWindow falls back when the guest has stayed away for long", () => {
  const window = new PollWindow(1);
  window.woken(0.2);
  window.woken(10.1);
  assertEquals(window.milliseconds, 0.05);
});

Deno.test("PollWindow opens for a burst after a long silence, and not for a few requests", () => {
  const window = new PollWindow(1);
  window.woken(1000);
  window.served(3);
  assertEquals(window.milliseconds, 0.05);
  window.served(13);
  assertEquals(window.milliseconds, 1);
  window.woken(1000);
  window.served(15);
  assertEquals(window.milliseconds, 0.05);
});

Deno.test("PollWindow of 0 never watches", () => {
  const window = new PollWindow(0);
  window.woken(0);
  window.served(100);
  assertEquals(window.milliseconds, 0);
});
