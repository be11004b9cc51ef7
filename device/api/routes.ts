/** From a request to the route that answers it. */
import { addEndpoint, endpoints, removeEndpoint } from "./endpoints.ts";
import { type ApiContext, ApiError, type RouteAnswer, type RouteRequest } from "./context.ts";
import { dmaPieces } from "./dma.ts";
import { events } from "./events.ts";
import { health, version } from "./health.ts";
import { mappings } from "./mappings.ts";
import { metrics } from "./metrics.ts";
import { moved } from "./moved.ts";
import { state } from "./state.ts";
import { translate } from "./translate.ts";
import type { Work } from "./work.ts";

/** A method of a path. */
export interface Route {
  /** `GET`, `POST` or `DELETE`; a `HEAD` is answered like a `GET`. */
  readonly method: string;
  /** The path; a segment in braces stands for any text. */
  readonly path: string;
  /** Names of the query parameters that it takes. */
  readonly parameters: readonly string[];
  /** Begins the answer. */
  readonly serve: (context: ApiContext, request: RouteRequest, work: Work) => RouteAnswer;
}

/** What a client has sent besides the method. */
export interface SentRequest extends Pick<RouteRequest, "body" | "descriptors"> {
  /** What the request line names: path and query, or a whole URL. */
  readonly target: string;
}

/** Every route of the API; `docs/openapi.yaml` describes them. */
export const ROUTES: readonly Route[] = [
  get("/v1/state", [], (context, _, work) => state(context, work)),
  get(
    "/v1/mappings",
    ["domain", "after", "limit"],
    (context, { query }, work) => mappings(context, query, work),
  ),
  get(
    "/v1/translate",
    ["endpoint", "iova", "ring", "access"],
    (context, { query }) => json(translate(context, query)),
  ),
  get("/v1/moved", ["after", "limit"], (context, { query }, work) => moved(context, query, work)),
  get(
    "/v1/events",
    ["after", "limit", "follow"],
    (context, { query }, work) => events(context, query, work),
  ),
  get("/v1/version", [], (context) => json(version(context))),
  get("/v1/health", [], (context) => json(health(context))),
  get("/v1/endpoints", ["after", "limit"], (context, { query }) => endpoints(context, query)),
  get("/metrics", [], (context, _, work) => metrics(context, work)),
  {
    method: "POST",
    path: "/v1/endpoints",
    parameters: [],
    serve: (context, { body, descriptors }) => json(addEndpoint(context, body(), descriptors)),
  },
  {
    method: "DELETE",
    path: "/v1/endpoints/{endpoint}",
    parameters: ["timeout-ms"],
    serve: (context, { segment, query }) => removeEndpoint(context, segment, query),
  },
  {
    method: "POST",
    path: "/v1/dma",
    parameters: [],
    serve: (context, { body }, work) => dmaPieces(context, body(), work),
  },
];

/**
 * The answer to a request.
 *
 * @param method The method.
 * @param sent What the client has sent.
 * @throws {ApiError} If there is no such route, or a parameter is wrong.
 */
export function route(
  context: ApiContext,
  method: string,
  { target, body, descriptors }: SentRequest,
  work: Work,
): RouteAnswer {
  const url = parseTarget(target);
  const ofPath = ROUTES.filter(({ path }) => segmentOf(path, url.pathname) !== undefined);
  if (ofPath.length === 0) {
    throw new ApiError(404, `There is no ${shown(url.pathname)}: there are ${PATHS}`);
  }
  const found = ofPath.find((each) => each.method === (method === "HEAD" ? "GET" : method));
  if (found === undefined) {
    const methods = ofPath.flatMap((each) =>
      each.method === "GET" ? ["GET", "HEAD"] : [each.method]
    );
    throw new ApiError(
      405,
      `Cannot ${shown(method)} ${shown(url.pathname)}: it takes ${methods.join(", ")}`,
      methods.join(", "),
    );
  }
  checkParameters(found, url.searchParams);
  const segment = decoded(segmentOf(found.path, url.pathname)!);
  return found.serve(context, { segment, query: url.searchParams, body, descriptors }, work);
}

const PATHS = [...new Set(ROUTES.map(({ path }) => path))].join(", ");

function get(path: string, parameters: readonly string[], serve: Route["serve"]): Route {
  return { method: "GET", path, parameters, serve };
}

function json(value: unknown): RouteAnswer {
  return [`${JSON.stringify(value)}\n`].values();
}

/** What stands in a path for the segment in braces: empty where the pattern has none; undefined if it is another path. */
function segmentOf(pattern: string, path: string): string | undefined {
  const brace = pattern.indexOf("{");
  if (brace < 0) return path === pattern ? "" : undefined;
  const segment = path.slice(brace);
  const isOne = path.startsWith(pattern.slice(0, brace)) && segment !== "" &&
    !segment.includes("/");
  return isOne ? segment : undefined;
}

/** A segment of a path without its percent signs (RFC 3986, 2.1). */
function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    throw new ApiError(400, `Cannot read the path: ${shown(segment)} is not percent-encoded UTF-8`);
  }
}

/** A misspelt parameter would change nothing, and the answer would look right. */
function checkParameters({ method, path, parameters }: Route, query: URLSearchParams): void {
  const seen = new Set<string>();
  for (const name of query.keys()) {
    if (!parameters.includes(name)) {
      const known = parameters.length === 0 ? "none" : parameters.join(", ");
      throw new ApiError(
        400,
        `Cannot take parameter ${shown(name)}: ${method} ${path} takes ${known}`,
      );
    }
    if (seen.has(name)) throw new ApiError(400, `Cannot take parameter ${name} twice`);
    seen.add(name);
  }
}

/** Path and query of a request target, in the forms that begin with a path or a scheme (RFC 9112, 3.2). */
function parseTarget(target: string): URL {
  const url = URL.parse(target.startsWith("/") ? `http://viommu${target}` : target);
  if (url !== null) return url;
  throw new ApiError(400, `Cannot read the request target: ${shown(target)} is no URL`);
}

/** A text of the client in an error. */
function shown(text: string): string {
  return text.slice(0, 100);
}
