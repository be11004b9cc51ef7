/**
 * The API socket: HTTP with JSON on a unix socket, in front of the routes.
 *
 * @module
 */
import { type ApiContext, ApiError, mappingsOf, stateOf, translate } from "./api_routes.ts";

/** A running API socket. */
export interface ApiServer {
  /** Stops listening and removes the socket. */
  close(): Promise<void>;
}

/**
 * Answers requests on a unix socket until closed.
 *
 * @param path Where the socket goes; nothing may be there.
 * @throws {Error} If the socket cannot be made.
 */
export function serveApi(path: string, context: ApiContext): ApiServer {
  const server = Deno.serve({ path, onListen: () => {} }, (request) => respond(request, context));
  return {
    async close() {
      await server.shutdown();
    },
  };
}

/** Answers one HTTP request. */
export function respond(request: Request, context: ApiContext): Response {
  try {
    return Response.json(route(request, context));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return Response.json({ error: error.message }, { status: error.status });
  }
}

/** The JSON value that answers a request. */
function route(request: Request, context: ApiContext): unknown {
  const url = new URL(request.url);
  const name = `${request.method} ${url.pathname}`;
  switch (name) {
    case "GET /v1/state":
      return stateOf(context);
    case "GET /v1/mappings":
      return mappingsOf(context, url.searchParams);
    case "GET /v1/translate":
      return translate(context, url.searchParams);
    default:
      throw new ApiError(
        404,
        `There is no ${name}: there are GET /v1/state, /v1/mappings and /v1/translate`,
      );
  }
}
