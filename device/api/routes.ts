/**
 * From a request to the route that answers it.
 *
 * @module
 */
import { type ApiContext, ApiError, type RouteAnswer } from "./context.ts";
import { dmaPieces } from "./dma.ts";
import { addEndpoint, endpoints, removeEndpoint } from "./endpoints.ts";
import { mappings } from "./mappings.ts";
import { moved } from "./moved.ts";
import { state } from "./state.ts";
import { translate } from "./translate.ts";
import type { Work } from "./work.ts";

/** A path below which the objects are endpoints. */
const ENDPOINTS = "/v1/endpoints/";

/**
 * The answer to a request.
 *
 * @param target What the request line names: path and query, or a whole URL.
 * @param body What came along, parsed.
 * @throws {ApiError} If there is no such route, or a parameter is wrong.
 */
export function route(
  context: ApiContext,
  method: string,
  target: string,
  body: () => Readonly<Record<string, unknown>>,
  work: Work,
): RouteAnswer {
  const url = parseTarget(target);
  const name = `${method} ${url.pathname}`;
  if (name.startsWith(`DELETE ${ENDPOINTS}`)) {
    return removeEndpoint(context, url.pathname.slice(ENDPOINTS.length), url.searchParams);
  }
  switch (name) {
    case "GET /v1/state":
      return state(context, work);
    case "GET /v1/mappings":
      return mappings(context, url.searchParams, work);
    case "GET /v1/translate":
      return [`${JSON.stringify(translate(context, url.searchParams))}\n`].values();
    case "GET /v1/moved":
      return moved(context, work);
    case "GET /v1/endpoints":
      return endpoints(context);
    case "POST /v1/endpoints":
      return [`${JSON.stringify(addEndpoint(context, body()))}\n`].values();
    case "POST /v1/dma":
      return dmaPieces(context, body(), work);
    default:
      throw new ApiError(
        404,
        `There is no ${name}: there are GET /v1/state, /v1/mappings, /v1/translate, /v1/moved and /v1/endpoints, ` +
          "POST /v1/dma and /v1/endpoints, and DELETE /v1/endpoints/ID",
      );
  }
}

/** Path and query of a request target, in the forms that begin with a path or a scheme (RFC 9112, 3.2). */
function parseTarget(target: string): URL {
  const url = URL.parse(target.startsWith("/") ? `http://viommu${target}` : target);
  if (url !== null) return url;
  throw new ApiError(400, `Cannot read the request target: ${target.slice(0, 100)} is no URL`);
}
