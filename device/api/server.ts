/**
 * The API socket: HTTP with JSON on a unix socket, in front of the routes.
 *
 * @module
 */
import { type ApiContext, ApiError } from "./context.ts";
import { dma } from "./dma.ts";
import { mappingsOf } from "./mappings.ts";
import { stateOf } from "./state.ts";
import { translate } from "./translate.ts";

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
export async function respond(request: Request, context: ApiContext): Promise<Response> {
  try {
    return Response.json(await route(request, context));
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return Response.json({ error: error.message }, { status: error.status });
  }
}

/** The JSON value that answers a request. */
async function route(request: Request, context: ApiContext): Promise<unknown> {
  const url = new URL(request.url);
  const name = `${request.method} ${url.pathname}`;
  switch (name) {
    case "GET /v1/state":
      return stateOf(context);
    case "GET /v1/mappings":
      return mappingsOf(context, url.searchParams);
    case "GET /v1/translate":
      return translate(context, url.searchParams);
    case "POST /v1/dma":
      return dma(context, await jsonObject(request));
    default:
      throw new ApiError(
        404,
        `There is no ${name}: there are GET /v1/state, /v1/mappings, /v1/translate and POST /v1/dma`,
      );
  }
}

/** The body of a request as a JSON object. */
async function jsonObject(request: Request): Promise<object> {
  let value: unknown;
  try {
    value = await request.json();
  } catch {
    value = undefined;
  }
  if (typeof value !== "object" || value === null) {
    throw new ApiError(400, "Cannot read the body: it must be a JSON object");
  }
  return value;
}
