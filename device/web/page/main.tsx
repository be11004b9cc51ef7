/** What the browser runs: a playground with some mappings, and the page that shows it. */
/// <reference lib="dom" />
import { render } from "preact";
import { MAP_F_READ, MAP_F_WRITE } from "../../iommu/mod.ts";
import { App } from "./app.tsx";
import { ENDPOINTS, Playground } from "./playground.ts";

/** First byte of what is mapped at the start. */
const START = 0x4000_0000n;
const BOTH = MAP_F_READ | MAP_F_WRITE;

const playground = new Playground();
for (const { id } of ENDPOINTS) playground.attach(1, id);
/** Two large leaves, three pages to be read, one to be written. */
const MAPPINGS = [
  { first: 0n, bytes: 0x40_0000n, phys: 0x20_0000n, flags: BOTH },
  { first: 0x40_0000n, bytes: 0x3000n, phys: 0x80_1000n, flags: MAP_F_READ },
  { first: 0x50_0000n, bytes: 0x1000n, phys: 0x90_0000n, flags: MAP_F_WRITE },
];
for (const { first, bytes, phys, flags } of MAPPINGS) {
  const virtStart = START + first;
  playground.map({ domain: 1, virtStart, virtEnd: virtStart + bytes - 1n, physStart: phys, flags });
}
const root = document.getElementById("page")!;
// The command that serves the page says where the API of a running device is.
const api = document.documentElement.dataset["api"] ?? "";
render(<App playground={playground} api={api} start={Number(START >> 12n)} />, root);
