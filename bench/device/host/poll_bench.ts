/**
 * The cost of signalling, polling and waiting. The calibration case is the cheapest call into the host.
 */
import { Event, PollSet } from "../../../device/host/mod.ts";
import { libc } from "../../../device/host/libc.ts";

const event = Event.create();
const set = new PollSet();
set.add(event.descriptor.number);
const ready = Event.create();
ready.signal();
const readySet = new PollSet();
readySet.add(ready.descriptor.number);

Deno.bench("calibration: getpagesize()", { group: "events", baseline: true }, () => {
  libc().getpagesize();
});
Deno.bench("Event.signal() and drain()", { group: "events" }, () => {
  event.signal();
  event.drain();
});
Deno.bench("Event.drain() of one that was not signalled", { group: "events" }, () => {
  event.drain();
});
Deno.bench("PollSet.poll(0)", { group: "events" }, () => {
  set.poll(0);
});
Deno.bench("PollSet.doze(), something ready", { group: "waits", baseline: true }, async () => {
  await readySet.doze();
});
Deno.bench("PollSet.wait(), something ready", { group: "waits" }, async () => {
  await readySet.wait();
});
