/**
 * The page in a real browser: Debian's Chromium without a window, driven over the DevTools protocol. Every part of the page
 * is used as a person uses it, with a running `serve` behind the API, and nothing may be reported on the console.
 *
 * `VIOMMU_SCREENSHOT=FOLDER` keeps a picture of the page, light and dark, as `page-light.png` and `page-dark.png`.
 */
/// <reference lib="dom" />
import { assert, assertEquals } from "@std/assert";
import puppeteer, { type Browser, type Page } from "puppeteer-core";
import { attachRequest } from "../../device/iommu/mod.ts";
import { pageText } from "../../device/web/page_text.ts";
import { WebServer } from "../../device/web/web_server.ts";
import { connect, send, withServe } from "../device/served_process.ts";
import { HANG_MS, until } from "../until.ts";
import { findChromium, labTests } from "./lab/mod.ts";

/** What the tests need. */
interface Prepared {
  readonly program: string;
  readonly env: Readonly<Record<string, string>>;
  readonly html: string;
}

/** A page of a browser of its own. Whatever its console reports as an error fails the test. */
async function withPage(
  { program, env }: Prepared,
  url: string,
  test: (page: Page) => Promise<void>,
): Promise<void> {
  const browser: Browser = await puppeteer.launch({
    executablePath: program,
    headless: "shell",
    // A test may be run by root, for whom Chromium has no sandbox; the page is ours.
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    env: { ...Deno.env.toObject(), ...env },
    timeout: HANG_MS,
    protocolTimeout: HANG_MS,
    defaultViewport: { width: 1500, height: 1000 },
  });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(HANG_MS);
    const problems: string[] = [];
    page.on("pageerror", (error) => problems.push(`${error}`));
    page.on("console", (message) => {
      if (message.type() === "error") problems.push(message.text());
    });
    await page.goto(url, { waitUntil: "load" });
    // A script that the browser refuses draws nothing: what it says is the reason.
    assertEquals(problems, []);
    await page.waitForSelector("main h1");
    await test(page);
    assertEquals(problems, []);
  } finally {
    await browser.close();
  }
}

/** The text of the first element that a selector finds. */
async function text(page: Page, selector: string): Promise<string> {
  return await page.$eval(selector, (element) => element.textContent ?? "");
}

/** The texts of all elements that a selector finds. */
async function texts(page: Page, selector: string): Promise<readonly string[]> {
  return await page.$$eval(selector, (elements) => elements.map((each) => each.textContent ?? ""));
}

/** Waits until the text of an element has a part. The page is drawn anew some time after what changes it. */
async function untilText(page: Page, selector: string, part: string): Promise<void> {
  let last = "";
  try {
    await until(async () => (last = await text(page, selector)).includes(part), part);
  } catch (error) {
    throw new Error(`The text of ${selector} is "${last}"`, { cause: error });
  }
}

/** Fills in the fields of the request form and sends it; the line that the log has got. */
async function request(
  page: Page,
  kind: string,
  fields: Readonly<Record<string, string>>,
): Promise<string> {
  const form = 'form[aria-label="Request"]';
  await page.select(`${form} [name=kind]`, kind);
  for (const [name, value] of Object.entries(fields)) {
    const field = `${form} [name=${name}]`;
    await page.waitForSelector(field);
    if (await page.$eval(field, (element) => element.tagName) === "SELECT") {
      await page.select(field, value);
      continue;
    }
    await page.click(field, { count: 3 });
    await page.type(field, value);
  }
  const before = (await page.$$(".log li")).length;
  await page.click(`${form} button[type=submit]`);
  await page.waitForFunction(
    (lines) => document.querySelectorAll(".log li").length > lines,
    {},
    before,
  );
  return await text(page, ".log li");
}

/** Walks an address by the form. */
async function walk(page: Page, address: string, access: "1" | "2"): Promise<void> {
  const form = 'form[aria-label="Walk"]';
  await page.select(`${form} [name=walk-access]`, access);
  await page.click(`${form} [name=walk-address]`, { count: 3 });
  await page.type(`${form} [name=walk-address]`, address);
  await page.keyboard.press("Enter");
}

/** What the walk of each format comes to. */
async function outcomes(page: Page): Promise<readonly string[]> {
  return await texts(page, ".walk .outcome");
}

await labTests(
  async () => {
    const html = await pageText();
    assert(html !== undefined);
    return { ...await findChromium(), html };
  },
  {
    "the page shows what requests become in three formats, and what refuses an access": async (
      prepared,
    ) => {
      const server = new WebServer({ hostname: "127.0.0.1", port: 0, page: prepared.html });
      try {
        await withPage(prepared, server.url, checkPlayground);
      } finally {
        await server.close();
      }
    },
    "the page of a file server shows the same, with nothing behind it": async (prepared) => {
      const folder = await Deno.makeTempDir();
      try {
        await Deno.writeTextFile(`${folder}/index.html`, prepared.html);
        await withPage(prepared, `file://${folder}/index.html`, async (page) => {
          assertEquals((await outcomes(page)).length, 3);
          assertEquals(await page.$(".device"), null);
        });
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
    "the page shows a running device, and changes nothing of it": async (prepared) => {
      await withServe([], async ({ socket, api }) => {
        using session = await connect(socket);
        assertEquals(await send(session, attachRequest(7, 0x18)), "OK");
        const { html: page } = prepared;
        const server = new WebServer({ hostname: "127.0.0.1", port: 0, page, apiSocket: api });
        try {
          await withPage(prepared, server.url, async (page) => {
            await page.waitForSelector(".device tbody tr");
            const cells = await texts(page, ".device tbody tr:first-child > *");
            assertEquals(cells.slice(0, 3), ["00:03.0", "7", "vtd-ss"]);
            const rows = await texts(page, ".device table:last-of-type tbody tr > *");
            assertEquals(rows.slice(0, 2), ["7", "0"]);
          });
        } finally {
          await server.close();
        }
      });
    },
  },
);

/** Uses every part of the playground. */
async function checkPlayground(page: Page): Promise<void> {
  await checkWalks(page);
  await checkBits(page);
  await checkRequests(page);
  await checkMap(page);
  await checkNames(page);
  await keepPictures(page);
}

/** The walk of an address in each format; refusals name the bit and the section. */
async function checkWalks(page: Page): Promise<void> {
  assertEquals(await outcomes(page), [
    "Translated to 0x200000 rw, 2M leaf, normal memory",
    "Translated to 0x200000 rw, 2M leaf, normal memory",
    "Translated to 0x200000 rw, 2M leaf, normal memory",
  ]);
  await walk(page, "0x40401000", "2");
  await page.waitForSelector(".walk .fault");
  assertEquals(await outcomes(page), Array(3).fill("Fault: no-write"));
  assertEquals(await texts(page, ".walk .reason"), [
    "refused by bit 1 (W)",
    "refused by bit 7 (AP)",
    "refused by bit 62 (IW)",
  ]);
  const [vtd, smmu, amd] = await texts(page, ".walk .fault");
  assert(vtd.includes("fault reason 0x5") && vtd.includes("VT-d 3.7, 9.8; VT-d 7.1.3"), vtd);
  assert(smmu.includes("F_PERMISSION") && smmu.includes("Arm D8.3"), smmu);
  assert(amd.includes("IO_PAGE_FAULT") && amd.includes("AMD 2.2.3"), amd);
}

/** The bit that refused, flipped, lets the access pass; restored, it refuses again. */
async function checkBits(page: Page): Promise<void> {
  const vtd = '.walk[data-format="vtd-ss"]';
  await page.click(`${vtd} .entry.refused summary`);
  const bit = `${vtd} button[aria-label^="bit 1 (W) of L1"]`;
  await page.waitForSelector(bit);
  await page.click(bit);
  await page.waitForSelector(`${vtd} .outcome.ok`);
  assertEquals((await outcomes(page))[0], "Translated to 0x802000 rw, 4K leaf, normal memory");
  // The others have tables of their own.
  assertEquals((await outcomes(page))[1], "Fault: no-write");
  assert((await text(page, "[role=status]")).startsWith("1 bit is flipped."));
  // The button still has the focus: the keyboard flips it back.
  await page.keyboard.press("Space");
  await page.waitForSelector(`${vtd} .outcome.refused`);
  assertEquals(await page.$("[role=status]"), null);
}

/** Each request of the form, those that are refused with the statement that they break. */
async function checkRequests(page: Page): Promise<void> {
  const range = { start: "0x80000000", end: "0x80000fff" };
  const mapped = await request(page, "MAP", { ...range, phys: "0x100000" });
  assert(mapped.endsWith(" OK"), mapped);
  const again = await request(page, "MAP", {});
  assert(again.includes("INVAL") && again.includes("statement M2"), again);
  const dma = await request(page, "DMA", { endpoint: "8", address: "0x80000008" });
  assert(dma.includes("led to 0x100008"), dma);
  assert((await request(page, "UNMAP", range)).endsWith(" OK"));
  assert((await request(page, "DMA", { address: "0x80000008" })).includes("fault: not-present"));
  assert((await request(page, "DETACH", { endpoint: "16" })).endsWith(" OK"));
  assert((await text(page, '.tree[data-format="smmuv3-s1"]')).includes("attached to no domain"));
  assert((await request(page, "ATTACH", { endpoint: "16" })).endsWith(" OK"));
  assert((await text(page, '.tree[data-format="smmuv3-s1"]')).includes("2 leaves of 0x200000"));
  await page.select('form[aria-label="Request"] [name=kind]', "MAP");
  await page.type('form[aria-label="Request"] [name=start]', "x");
  await page.click('form[aria-label="Request"] button');
  await page.waitForFunction(() =>
    document.querySelector('form[aria-label="Request"] [role=alert]')?.textContent !== ""
  );
  await page.click('.tree[data-format="vtd-ss"] button[aria-label="Walk 0x40500000"]');
  await page.waitForFunction(() =>
    document.querySelector<HTMLInputElement>("[name=walk-address]")?.value === "0x40500000"
  );
}

/** The map by keyboard: to a mapping, closer, and what is under the cursor in words. */
async function checkMap(page: Page): Promise<void> {
  await page.focus("canvas");
  await page.keyboard.press("Home");
  await untilText(page, "#cell", "3 mappings, 1028 of");
  const widths = await texts(page, ".tools code");
  await page.keyboard.press("+");
  await page.waitForFunction(
    (before) => document.querySelector(".tools code")?.textContent !== before,
    {},
    widths[0],
  );
  await page.click(".mappings li:nth-child(2) button");
  await untilText(page, "#cell", "mapped to 0x801000 r");
  await page.focus("canvas");
  await page.keyboard.press("ArrowRight");
  await untilText(page, "#cell", "mapped to 0x802000 r");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() =>
    document.querySelector<HTMLInputElement>("[name=walk-address]")?.value === "0x40401000"
  );
  // Not one colour: something was drawn.
  const colours = await page.$eval("canvas", (canvas) => {
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d")!.getImageData(0, 0, width, height);
    return new Set(new Uint32Array(data.buffer)).size;
  });
  assert(colours >= 3, `${colours} colours`);
}

/** Everything that can be used has a name for those who do not see it. */
async function checkNames(page: Page): Promise<void> {
  const tree = await page.accessibility.snapshot({ interestingOnly: true });
  const unnamed: string[] = [];
  const open = [tree];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    if (node === null) continue;
    const { role, name = "" } = node;
    if (/button|textbox|combobox|checkbox/.test(role) && name === "") unnamed.push(role);
    open.push(...node.children ?? []);
  }
  assertEquals(unnamed, []);
  assertEquals(await page.$eval("html", (element) => element.lang), "en");
}

/** Keeps pictures where they are wanted; the page must be as wide as the window, in both schemes. */
async function keepPictures(page: Page): Promise<void> {
  const folder = Deno.env.get("VIOMMU_SCREENSHOT");
  const backgrounds: string[] = [];
  await walk(page, "0x40401000", "2");
  for (const value of ["dark", "light"]) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);
    backgrounds.push(
      await page.$eval("body", (element) => getComputedStyle(element).backgroundColor),
    );
    const isWide = await page.$eval("html", (each) => each.scrollWidth > each.clientWidth);
    assertEquals(isWide, false, value);
    if (folder === undefined) continue;
    const path = `${folder}/page-${value}.png` as const;
    await page.screenshot({ path, fullPage: true });
  }
  assert(backgrounds[0] !== backgrounds[1]);
}
