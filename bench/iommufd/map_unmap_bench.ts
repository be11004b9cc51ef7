/**
 * One-page UNMAP and MAP through the engine and VT-d tables, with 10^3 to 10^6 live mappings at random addresses. Each
 * iteration is 1000 pairs, so read µs as ns a pair. The calibration case, 1000 dependent reads spread over 64 MiB, gives
 * the cost of random memory accesses.
 */
import { OK } from "../../iommufd/mod.ts";
import { Populated, randomNumbers, RW } from "./setup.ts";

const PAIRS = 1000;

const chain = new Int32Array(2 ** 24);
for (let at = 0; at < chain.length; at++) {
  chain[at] = (Math.imul(at, 0x9e3779b1) + 0x1234567) & (chain.length - 1);
}
let place = 0;

Deno.bench({
  name: "calibration: 1000 dependent reads in 64 MiB",
  group: "UNMAP and MAP of one page, 1000 pairs",
  baseline: true,
}, () => {
  for (let at = 0; at < PAIRS; at++) place = chain[place];
});

for (const live of [1e3, 1e4, 1e5, 1e6]) {
  let world: Populated | null = null;
  const random = randomNumbers();
  Deno.bench({
    name: `${live} live mappings`,
    group: "UNMAP and MAP of one page, 1000 pairs",
  }, (b) => {
    world ??= new Populated(live);
    const { space, list, pages, indexes } = world;
    b.start();
    for (let pair = 0; pair < PAIRS; pair++) {
      const page = pages[random() % live];
      const index = indexes[random() % live];
      if (space.unmap(page, page) !== OK) throw new Error("UNMAP was refused");
      if (space.map(page, page, list, index, RW) !== OK) throw new Error("MAP was refused");
    }
    b.end();
  });
}
