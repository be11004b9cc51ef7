/**
 * MAP and UNMAP through the whole device, from the ring to the table entries and back, without a guest.
 *
 * The driver's side runs in the same process and is measured, too; `bench/targets.ts` measures the device
 * alone.
 */
import { RecordedBench } from "./recording.ts";
import { BATCH, PairBench, RingDriver } from "./ring_driver.ts";

for (const power of [10, 13, 17, 20]) {
  let bench: PairBench | undefined;
  Deno.bench({
    name: `MAP and UNMAP of ${BATCH} pages, 2^${power} live mappings`,
    group: "whole device",
    fn(b) {
      bench ??= new PairBench(2 ** power);
      b.start();
      bench.run();
      b.end();
    },
  });
}

let recorded: PairBench | undefined;
const recording = new RecordedBench();
Deno.bench({
  name: `MAP and UNMAP of ${BATCH} pages, 2^10 live mappings, recorded`,
  group: "whole device",
  fn(b) {
    recorded ??= new PairBench(2 ** 10, { make: (options) => recording.make(options) });
    b.start();
    recorded.run();
    b.end();
    recording.drain();
  },
});

let large: RingDriver | undefined;
Deno.bench({
  name: "MAP and UNMAP of an aligned 1 GiB",
  group: "whole device",
  fn(b) {
    large ??= new RingDriver();
    large.pages[0] = 2 ** 20;
    b.start();
    large.map(1, 2 ** 18);
    large.unmap(1, 2 ** 18);
    b.end();
  },
});

const store = new Int32Array(BATCH * 64);
Deno.bench({
  name: `calibration: ${BATCH * 64} stores`,
  group: "whole device",
  baseline: true,
  fn() {
    for (let i = 0; i < store.length; i++) store[i] = i;
  },
});
