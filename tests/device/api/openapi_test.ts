import { assert, assertEquals } from "@std/assert";
import { Ajv2020 } from "ajv/dist/2020.js";
import { parse } from "yaml";
import { ROUTES } from "../../../device/api/routes.ts";
import { attachRequest, mapRequest } from "../../../device/iommu/driver_requests.ts";
import { DEFAULT_OPTIONS, InProcessGuest } from "../in_process_guest.ts";
import { ApiWorld } from "./api_world.ts";

/** A parameter of an operation. */
interface Parameter {
  readonly $ref?: string;
  readonly name: string;
  readonly in: string;
}

/** An operation, as far as it is used here. */
interface Operation {
  readonly parameters?: readonly Parameter[];
  readonly responses: Readonly<
    Record<string, { readonly content: Readonly<Record<string, unknown>> }>
  >;
}

const TEXT = await Deno.readTextFile(new URL("../../../docs/openapi.yaml", import.meta.url));
const DOCUMENT = parse(TEXT) as {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly parameters: Readonly<Record<string, Parameter>> };
};

/** Names of an operation's query parameters. */
function queryParameters({ parameters = [] }: Operation): readonly string[] {
  return parameters
    .map((each) =>
      each.$ref === undefined ? each : DOCUMENT.components.parameters[each.$ref.split("/").at(-1)!]
    )
    .filter((each) => each.in === "query")
    .map(({ name }) => name);
}

Deno.test("docs/openapi.yaml describes every route with its parameters, and nothing else", () => {
  const described = Object.entries(DOCUMENT.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) =>
      `${method.toUpperCase()} ${path} ${queryParameters(operation)}`
    )
  );
  const served = ROUTES.map(({ method, path, parameters }) => `${method} ${path} ${parameters}`);
  assertEquals(described.sort(), served.sort());
});

/** A world whose guest has a domain, a mapping, a refused request and an endpoint that is attached to nothing. */
function world(): ApiWorld {
  const guest = new InProcessGuest({ ...DEFAULT_OPTIONS, bypass: false });
  guest.request(attachRequest(2, 8), 4);
  const page = { domain: 2, virtStart: 0x5000n, virtEnd: 0x5fffn, physStart: 0x9000n, flags: 3 };
  guest.request(mapRequest(page), 4);
  guest.request(mapRequest(page), 4);
  guest.request(attachRequest(2, 0x7fffffff), 4);
  guest.device.refused(8, 9, 0, 1);
  guest.device.reset("device");
  guest.request(attachRequest(2, 8), 4);
  guest.request(mapRequest(page), 4);
  return new ApiWorld(guest);
}

Deno.test("every answer is of the form that docs/openapi.yaml gives it", async () => {
  const ajv = new Ajv2020({ strict: false, formats: { "date-time": true } });
  ajv.addSchema(DOCUMENT, "openapi");
  using served = world();
  const asked: readonly (readonly [request: string, path: string, status: number])[] = [
    ["GET /v1/state", "/v1/state", 200],
    ["GET /v1/mappings", "/v1/mappings", 200],
    ["GET /v1/mappings?domain=9", "/v1/mappings", 404],
    ["GET /v1/translate?endpoint=8&iova=0x5123", "/v1/translate", 200],
    ["GET /v1/translate?endpoint=8&iova=0x9123", "/v1/translate", 200],
    ["GET /v1/translate?endpoint=8", "/v1/translate", 400],
    ["GET /v1/moved", "/v1/moved", 404],
    ["GET /v1/events", "/v1/events", 200],
    ["GET /v1/version", "/v1/version", 200],
    ["GET /v1/health", "/v1/health", 200],
    ["GET /v1/endpoints", "/v1/endpoints", 200],
    ["POST /v1/endpoints", "/v1/endpoints", 400],
    ["DELETE /v1/endpoints/8", "/v1/endpoints/{endpoint}", 403],
    ['POST /v1/dma {"endpoint":8,"iova":"0x5000","length":16}', "/v1/dma", 200],
    ['POST /v1/dma {"endpoint":8,"iova":"0x5000","access":"w","data":"00"}', "/v1/dma", 200],
    ['POST /v1/dma {"endpoint":8,"iova":"0xf000","length":16}', "/v1/dma", 200],
  ];
  for (const [request, path, status] of asked) {
    const [method, target, body = ""] = request.split(" ");
    const answer = await served.ask(
      `${method} ${target} HTTP/1.1\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    assertEquals(answer.status, status, `${request}: ${answer.body}`);
    const { responses } = DOCUMENT.paths[path][method.toLowerCase()];
    const where = [
      "paths",
      path.replaceAll("/", "~1").replaceAll("{", "%7B").replaceAll("}", "%7D"),
      method.toLowerCase(),
      "responses",
      "200",
      "content",
      "application~1json",
      "schema",
    ];
    const pointer = status === 200
      ? `openapi#/${where.join("/")}`
      : "openapi#/components/schemas/Error";
    assert("200" in responses && "default" in responses);
    assert(
      ajv.validate(pointer, JSON.parse(answer.body)),
      `${request}: ${ajv.errorsText()} ${answer.body}`,
    );
  }
});
