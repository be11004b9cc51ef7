/** The head of an HTTP/1 request (RFC 9112), and the head of an answer. */
import { ApiError } from "./context.ts";

/** What the head of a request says. */
export interface RequestHead {
  /** The method, such as `GET`. */
  readonly method: string;
  /** What is asked for: path and query, or a whole URL. */
  readonly target: string;
  /** Whether the client knows chunked answers: HTTP/1.1. */
  readonly knowsChunks: boolean;
  /** Whether the connection is to be closed after the answer. */
  readonly closes: boolean;
  /** Bytes of the body; -1 if it comes in chunks. */
  readonly bodyLength: number;
  /** Whether the client waits for a word before it sends the body. */
  readonly expectsContinue: boolean;
}

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  413: "Content Too Large",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  503: "Service Unavailable",
  505: "HTTP Version Not Supported",
};

/**
 * Parses the head of a request, without the empty line that ends it.
 *
 * @throws {ApiError} If it is malformed.
 */
export function parseHead(text: string): RequestHead {
  const lines = text.split("\r\n");
  const request = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP\/([0-9])\.([0-9])$/.exec(lines[0]);
  if (request === null) throw new ApiError(400, "Cannot read the request line");
  const [, method, target, major, minor] = request;
  if (major !== "1") throw new ApiError(505, `Cannot speak HTTP/${major}.${minor}: it is HTTP/1.1`);
  const fields = new Map<string, string>();
  for (const line of lines.slice(1)) {
    const field = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(line);
    if (field === null) throw new ApiError(400, "Cannot read a header field of the request");
    const name = field[1].toLowerCase();
    const before = fields.get(name);
    fields.set(name, before === undefined ? field[2] : `${before}, ${field[2]}`);
  }
  const connection = fields.get("connection")?.toLowerCase().split(/[ \t]*,[ \t]*/) ?? [];
  const isOld = minor === "0";
  return {
    method,
    target,
    knowsChunks: !isOld,
    closes: connection.includes("close") || (isOld && !connection.includes("keep-alive")),
    bodyLength: bodyLength(fields),
    expectsContinue: fields.get("expect")?.toLowerCase() === "100-continue",
  };
}

/** Bytes of the body; -1 for chunks. Both at once are refused: two readers could take them for two requests. */
function bodyLength(fields: ReadonlyMap<string, string>): number {
  const coding = fields.get("transfer-encoding");
  const length = fields.get("content-length");
  if (coding !== undefined) {
    if (length !== undefined) throw new ApiError(400, "Cannot take a body of two lengths");
    if (coding.toLowerCase() !== "chunked") {
      throw new ApiError(501, "Cannot decode the body: the only transfer coding is chunked");
    }
    return -1;
  }
  if (length === undefined) return 0;
  if (!/^[0-9]+$/.test(length)) throw new ApiError(400, "Cannot read the length of the body");
  return Number(length);
}

/** Index of the empty line that ends a head in `[from, to)`, or -1. */
export function headEnd(bytes: Uint8Array, from: number, to: number): number {
  for (let i = from; i + 3 < to; i++) {
    if (bytes[i] === 13 && bytes[i + 1] === 10 && bytes[i + 2] === 13 && bytes[i + 3] === 10) {
      return i;
    }
  }
  return -1;
}

/** What the head of an answer says. */
export interface AnswerHead {
  /** The HTTP status. */
  readonly status: number;
  /** Media type of the body; JSON by default. */
  readonly mediaType?: string;
  /** Bytes of the body; undefined for one in chunks, or that ends with the connection. */
  readonly length?: number;
  /** Whether the body comes in chunks. */
  readonly isChunked?: boolean;
  /** Whether the connection is closed after it. */
  readonly closes: boolean;
  /** Methods that the path takes (RFC 9110, 10.2.1). */
  readonly allow?: string;
}

/** The head of an answer, empty line included. */
export function answerHead(
  { status, mediaType, length, isChunked, closes, allow }: AnswerHead,
): string {
  return `HTTP/1.1 ${status} ${REASONS[status] ?? "Error"}\r\n` +
    `Content-Type: ${mediaType ?? "application/json"}\r\n` +
    (length === undefined ? "" : `Content-Length: ${length}\r\n`) +
    (isChunked === true ? "Transfer-Encoding: chunked\r\n" : "") +
    (allow === undefined ? "" : `Allow: ${allow}\r\n`) +
    (closes ? "Connection: close\r\n" : "") +
    "\r\n";
}
