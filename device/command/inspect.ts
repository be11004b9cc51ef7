/** `inspect`: shows the live state of a running `serve`, as a client of its API socket. */
import { parseAddress, parseEndpoint, parseNumber } from "../address.ts";
import type { MappingState, State, TranslateAnswer } from "../api/mod.ts";
import { ApiClient } from "./api_client.ts";
import type { Command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { eventText } from "./event_text.ts";
import { mapLegend, SpaceMap } from "./map_text.ts";
import { mappingText, movedText, stateText, translationText } from "./inspect_text.ts";
import { type OptionValues, parsedOption, textOption } from "./options.ts";
import { numberFrom, SOCKET_PATH } from "./option_parts.ts";
import { printPieces } from "./output.ts";
import type { Streams } from "./streams.ts";
import { watch, type WatchOptions } from "./watch.ts";

/** Milliseconds to wait for an answer. */
const DEFAULT_LIMIT_MS = 10_000;

/** Milliseconds that stand for no limit: more than a timer takes. */
const NO_LIMIT_MS = 2 ** 31 - 1;

/** Shows what a running device holds. */
export const inspect: Command = {
  name: "inspect",
  summary: "show the domains, mappings and translations of a running device",
  usage: ["--api-socket PATH WHAT [options]"],
  description: 'Asks a running "viommu serve --api-socket PATH".',
  actions: {
    title: "What to show",
    list: [
      { word: "state", help: "domains, endpoints, requests, faults" },
      { word: "mappings", takes: "[--domain N]", help: "what is mapped, by address" },
      { word: "map", takes: "[--domain N]", help: "a picture of each domain's I/O address space" },
      {
        word: "translate",
        takes: "--endpoint ID (--iova ADDR | --ring N) [--access r|w]",
        help: "one address through the endpoint's tables, entry by entry, as hardware walks them",
      },
      {
        word: "events",
        takes: "[--follow]",
        help:
          "requests that were refused with the requirement that they do not meet, faults with " +
          "the path to the entry that refused, endpoints attached and detached",
      },
      {
        word: "moved",
        help: "with serve --frames host, pages that are in other host frames than they were",
      },
      {
        word: "watch",
        takes: "[--interval MS] [--count N]",
        help: "rates of requests and DMA, until Ctrl-C; drawn anew on a terminal, else as lines",
      },
    ],
  },
  options: [{
    title: "Options",
    options: [
      { name: "api-socket", value: "PATH", help: "where the device listens" },
      { name: "domain", value: "N", help: "one domain only", actions: ["mappings", "map"] },
      {
        name: "endpoint",
        value: "ID",
        help: "a number (24, 0x18) or a PCI address (00:03.0)",
        actions: ["translate"],
      },
      {
        name: "iova",
        value: "ADDR",
        help: "a byte address, hexadecimal (0x...) or decimal",
        actions: ["translate"],
      },
      {
        name: "ring",
        value: "N",
        help: "in place of an address, where ring N of the device that serve has there begins",
        actions: ["translate"],
      },
      {
        name: "follow",
        help: "go on with what happens, until Ctrl-C",
        actions: ["events"],
      },
      {
        name: "access",
        value: "r|w",
        help: "the access to try (default r)",
        actions: ["translate"],
      },
      {
        name: "json",
        help: "the JSON of the API instead of text; with watch, one state a line",
      },
      {
        name: "timeout",
        value: "MS",
        help:
          `milliseconds to wait for an answer, or for more of one (default ${DEFAULT_LIMIT_MS})`,
      },
      {
        name: "interval",
        value: "MS",
        help: "milliseconds between two looks (default 1000)",
        actions: ["watch"],
      },
      { name: "count", value: "N", help: "end after so many looks", actions: ["watch"] },
    ],
  }],
  ending: `
Examples:
  viommu inspect --api-socket api.sock state
  viommu inspect --api-socket api.sock translate --endpoint 32 --iova 0x1000

Exit code 1 if nothing answers; a translation that faults is an answer.
`,
  async run({ action, values }, streams) {
    const path = parsedOption(values, "api-socket", SOCKET_PATH.read, SOCKET_PATH.form);
    if (path === undefined) {
      throw new UsageError("Cannot inspect without --api-socket PATH, as given to serve");
    }
    const limit = parsedOption(
      values,
      "timeout",
      numberFrom(1, 3_600_000).read,
      "milliseconds from 1 to 3600000",
    ) ?? DEFAULT_LIMIT_MS;
    const look = watchOptions(values, streams);
    const question = action === "watch" ? undefined : questionOf(action, values);
    const isFollowing = values["follow"] === true;
    // Where nothing happens there is no answer.
    using client = new ApiClient(path, isFollowing ? NO_LIMIT_MS : limit);
    if (question === undefined) {
      await watch(client, look);
      return 0;
    }
    const isJson = values["json"] === true;
    if (action === "map" && !isJson) {
      await showMap(streams, client.lines(question.route));
      return 0;
    }
    if (question.text === undefined) {
      await showLines(streams, client.lines(question.route), question, isJson, isFollowing);
      return 0;
    }
    const answer = await client.get(question.route);
    await streams.write(`${isJson ? JSON.stringify(answer, null, 2) : question.text(answer)}\n`);
    return 0;
  },
};

/** How to watch. */
function watchOptions(values: OptionValues, streams: Streams): WatchOptions {
  const interval = parsedOption(
    values,
    "interval",
    (text) => parseNumber(text, 3_600_000),
    "milliseconds such as 1000",
  ) ?? 1000;
  const count = parsedOption(
    values,
    "count",
    (text) => parseNumber(text, 2 ** 53 - 1),
    "a number such as 10",
  );
  return {
    interval,
    ...(count === undefined ? {} : { count }),
    form: values["json"] === true ? "json" : streams.isTerminal ? "screen" : "lines",
    write: (text) => streams.write(text),
  };
}

/** Writes elements as they come: there may be more than would fit into memory. */
async function showLines(
  streams: Streams,
  lines: AsyncIterable<string>,
  { line: textOf, none }: Question,
  isJson: boolean,
  isFollowing: boolean,
): Promise<void> {
  async function* texts(): AsyncGenerator<string> {
    let isAny = false;
    for await (const line of lines) {
      if (isJson) yield `${line}\n`;
      else if (line.startsWith("{")) {
        yield `${textOf!(line.replace(/,$/, ""))}\n`;
        isAny = true;
      }
    }
    if (!isAny && !isJson) yield `${none}\n`;
  }
  if (!isFollowing) return await printPieces(streams, texts());
  // There is no end at which gathered lines would be written.
  for await (const text of texts()) await streams.write(text);
}

/** Draws each domain. Where there is a terminal, and nothing against it (NO_COLOR), in colours. */
async function showMap(streams: Streams, lines: AsyncIterable<string>): Promise<void> {
  const isColoured = streams.isTerminal && !Deno.noColor;
  const maps = new Map<number, SpaceMap>();
  for await (const line of lines) {
    if (!line.startsWith("{")) continue;
    const { domain, iova, last, flags } = JSON.parse(line.replace(/,$/, "")) as MappingState;
    let map = maps.get(domain);
    if (map === undefined) maps.set(domain, map = new SpaceMap());
    map.add(iova, last, flags);
  }
  if (maps.size === 0) return await streams.write("nothing is mapped\n");
  const drawn = [...maps].flatMap(([domain, map]) => map.lines(domain, isColoured));
  await streams.write([...drawn, mapLegend(isColoured), ""].join("\n"));
}

/** A route of the API and how its answer reads; mappings are shown as they come. */
interface Question {
  readonly route: string;
  readonly text?: (answer: unknown) => string;
  /** How a line of an answer of lines reads, and what is said of none. */
  readonly line?: (element: string) => string;
  readonly none?: string;
}

/** What was asked for. */
function questionOf(action: string, values: OptionValues): Question {
  switch (action) {
    case "state":
      return { route: "/v1/state", text: (answer) => stateText(answer as State) };
    case "map":
    case "mappings": {
      const domain = parsedOption(
        values,
        "domain",
        (text) => parseNumber(text, 0xffffffff),
        "a domain id such as 2",
      );
      return {
        route: domain === undefined ? "/v1/mappings" : `/v1/mappings?domain=${domain}`,
        line: (element) => mappingText(JSON.parse(element)),
        none: "nothing is mapped",
      };
    }
    case "events":
      return {
        route: `/v1/events?follow=${values["follow"] === true}`,
        line: (element) => eventText(JSON.parse(element)),
        none: "nothing was refused, attached or detached",
      };
    case "moved":
      return {
        route: "/v1/moved",
        line: (element) => movedText(JSON.parse(element)),
        none: "no page has moved",
      };
    case "translate": {
      const query = translateQuery(values);
      return {
        route: `/v1/translate?${query}`,
        text: (answer) => translationText(answer as TranslateAnswer),
      };
    }
    default:
      throw new Error(`Cannot show ${action}: it has no question`);
  }
}

/** The query of `translate`, its parts checked here so that the message names the option. */
function translateQuery(values: OptionValues): URLSearchParams {
  const form = "an endpoint such as 24, 0x18 or 00:03.0";
  const endpoint = parsedOption(values, "endpoint", parseEndpoint, form);
  const iova = parsedOption(values, "iova", parseAddress, "a byte address such as 0x1000");
  const ring = parsedOption(
    values,
    "ring",
    (text) => parseNumber(text, 0xffff),
    "a number such as 0",
  );
  const access = textOption(values, "access") ?? "r";
  if (endpoint === undefined || (iova === undefined) === (ring === undefined)) {
    throw new UsageError(
      "Cannot translate without --endpoint ID and one of --iova ADDR and --ring N",
    );
  }
  if (access !== "r" && access !== "w") {
    throw new UsageError(`Cannot take --access ${access}: it must be r or w`);
  }
  return new URLSearchParams({
    endpoint: String(endpoint),
    ...(ring === undefined ? { iova: textOption(values, "iova")! } : { ring: String(ring) }),
    access,
  });
}
