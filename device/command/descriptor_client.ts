/**
 * One request to the API socket with descriptors beside it (SCM_RIGHTS), which the runtime's own client cannot send.
 *
 * The connection is closed after the answer, so the answer is all that comes until then.
 */
import { CLOSED, OsError, PollSet, UnixStream, WOULD_BLOCK } from "../host/mod.ts";
import { CONNECT_PROBLEMS, NO_API } from "./api_client.ts";
import { CommandError } from "./errors.ts";

/** Bytes read at once. */
const PIECE = 16384;

/** A request. */
export interface DescriptorRequest {
  /** The API socket. */
  readonly path: string;
  /** Path and query. */
  readonly route: string;
  /** What is sent, as JSON. */
  readonly value: unknown;
  /** Numbers of the descriptors that go along; they stay the caller's. */
  readonly descriptors: readonly number[];
  /** Milliseconds for which the other side may make no progress. */
  readonly limit: number;
}

/**
 * Sends it as a POST, and takes one JSON value.
 *
 * @throws {CommandError} If nothing answers in time, or the answer is an error: one line.
 */
export async function postDescriptors<T>(request: DescriptorRequest): Promise<T> {
  const { path, route, value, descriptors } = request;
  const body = new TextEncoder().encode(JSON.stringify(value));
  const head = `POST ${route} HTTP/1.1\r\nHost: viommu\r\nConnection: close\r\n` +
    `Content-Length: ${body.length}\r\n\r\n`;
  const bytes = new Uint8Array([...new TextEncoder().encode(head), ...body]);
  using stream = connect(path);
  using poll = new PollSet();
  const sent = stream.send(bytes, 0, bytes.length, descriptors);
  // A socket that nothing was sent to has room for a request of this size.
  if (sent !== bytes.length) throw new CommandError(`Cannot ask ${path}: ${NO_API}`);
  return valueOf(path, await answer(stream, poll, request)) as T;
}

function connect(path: string): UnixStream {
  const stream = UnixStream.tryConnect(path);
  if (!(stream instanceof OsError)) return stream;
  const meaning = CONNECT_PROBLEMS[stream.code] ?? `${stream.call} failed: ${stream.code}`;
  throw new CommandError(`Cannot ask ${path}: ${meaning}`);
}

/** All that comes until the connection is closed. */
async function answer(
  stream: UnixStream,
  poll: PollSet,
  { path, limit }: DescriptorRequest,
): Promise<string> {
  const decoder = new TextDecoder();
  const piece = new Uint8Array(PIECE);
  let text = "";
  let last = performance.now();
  for (;;) {
    const count = stream.receive(piece, 0, PIECE, 0);
    if (count === CLOSED) return text;
    if (count !== WOULD_BLOCK) {
      text += decoder.decode(piece.subarray(0, count), { stream: true });
      last = performance.now();
      continue;
    }
    const left = limit - (performance.now() - last);
    if (left <= 0) {
      throw new CommandError(
        `Cannot ask ${path}: no answer within ${limit} ms; look whether serve is stopped`,
      );
    }
    poll.clear();
    poll.add(stream.descriptor.number);
    await poll.wait(Math.ceil(left));
  }
}

/** The JSON value of an answer that is no error. */
function valueOf(path: string, text: string): unknown {
  const end = text.indexOf("\r\n\r\n");
  const status = /^HTTP\/1\.1 ([0-9]{3}) /.exec(text)?.[1];
  if (status === undefined || end < 0) throw new CommandError(`Cannot ask ${path}: ${NO_API}`);
  let value: unknown;
  try {
    value = JSON.parse(text.slice(end + 4));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CommandError(
      `Cannot read the answer of ${path}: it ended early; has serve ended?`,
    );
  }
  if (status === "200") return value;
  const error = typeof value === "object" && value !== null && "error" in value
    ? `${value.error}`
    : `Cannot ask ${path}: ${NO_API}`;
  throw new CommandError(error);
}
