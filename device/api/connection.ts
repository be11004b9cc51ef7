/**
 * One connection of an API client: HTTP/1.1, one request after another, a small step at a time.
 *
 * No step waits. What a client may cost is limited: a head of {@linkcode HEAD_MAX} bytes, a body of
 * {@linkcode BODY_MAX}, {@linkcode DESCRIPTORS_MAX} descriptors, and of an answer no more is put together than the socket
 * takes.
 *
 * Descriptors that have arrived (SCM_RIGHTS) when a request is complete belong to that request, so a client that sends
 * any waits for the answer before it sends another request. What the route has not taken is closed.
 */
import { closeAll, CLOSED, type UnixStream, WOULD_BLOCK } from "../host/mod.ts";
import { BODY_MAX, BodyReader } from "./body.ts";
import { ChunkDecoder } from "./chunks.ts";
import { type ApiContext, ApiError, type RouteAnswer } from "./context.ts";
import { type AnswerHead, answerHead, headEnd, parseHead, type RequestHead } from "./http_head.ts";
import { descriptorProblem, DESCRIPTORS_MAX } from "./sent_descriptors.ts";
import { route } from "./routes.ts";
import { collect, type Work } from "./work.ts";

/** Bytes that the head of a request has at most; also how much is read at once. */
const HEAD_MAX = 16384;
/** Bytes of a refused body that are read and thrown away, so that the client gets to read why. */
const DRAIN_MAX = 16 << 20;

/** What a byte of a body counts as work: 128 of them are a unit. */
const BYTES_SHIFT = 7;

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("latin1");

/** A head is awaited, or the rest of one. */
const HEAD = 0;
/** A body is awaited, or the rest of one. */
const BODY = 1;
/** An answer is put together and sent. */
const ANSWER = 2;
/** The last answer has been given: what is left of it is sent, then the connection is closed. */
const LAST = 3;
/** The same, and what still comes is thrown away before that. */
const DRAIN = 4;
/** The connection is closed. */
const GONE = 5;

/** A connection. */
export class ApiConnection {
  /** When the client last sent or took something, in milliseconds of `performance.now()`. */
  lastProgress: number = performance.now();
  readonly #stream: UnixStream;
  readonly #context: ApiContext;
  readonly #input = new Uint8Array(new ArrayBuffer(HEAD_MAX));
  /** What was read and not used yet is at `[#from, #filled)`. */
  #from = 0;
  #filled = 0;
  /** Where to go on looking for the end of the head. */
  #searched = 0;
  #phase = HEAD;
  /** Whether there may be something to read: the last read did not find the socket empty. */
  #isReadable = true;
  /** What is to be sent, from `#sent` on. */
  #output: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  #length = 0;
  #sent = 0;
  #isBlocked = false;
  #head: RequestHead | undefined;
  #body: BodyReader | undefined;
  #chunks: ChunkDecoder | undefined;
  /** Bytes of the body that have come, chunks not decoded; then those that were thrown away. */
  #bodyBytes = 0;
  #pieces: RouteAnswer | undefined;
  /** An answer that has not begun, since what it tells of has yet to happen. */
  #awaited: RouteAnswer | undefined;

  /** Of a client that has just connected. */
  constructor(stream: UnixStream, context: ApiContext) {
    this.#stream = stream;
    this.#context = context;
  }

  /** The socket, to be polled. */
  get descriptor(): number {
    return this.#stream.descriptor.number;
  }

  /** Whether it is over. */
  get isGone(): boolean {
    return this.#phase === GONE;
  }

  /** Whether the client has to send something before anything happens. */
  get awaitsInput(): boolean {
    return this.#phase !== ANSWER && this.#phase !== LAST && !this.#hasOutput && !this.#isReadable;
  }

  /** Whether the client has to take something before anything happens. */
  get awaitsOutput(): boolean {
    return this.#isBlocked;
  }

  /** Whether a step would do something. */
  get canStep(): boolean {
    const answer = this.#awaited ?? this.#pieces;
    if (answer?.isWaiting === true && !this.#hasOutput) return false;
    return this.#phase !== GONE && !this.awaitsInput && !this.awaitsOutput;
  }

  get #hasOutput(): boolean {
    return this.#sent < this.#length;
  }

  /** There is something to read, or room to send. */
  ready(): void {
    this.#isReadable = true;
    this.#isBlocked = false;
  }

  /** Does a small piece of work. */
  step(work: Work): void {
    if (this.#hasOutput) {
      this.#send();
      return;
    }
    try {
      if (this.#phase === ANSWER && this.#pieces === undefined) this.#begin(work);
      else if (this.#phase === ANSWER) this.#answer(work);
      else if (this.#phase === LAST) this.close();
      else this.#read(work);
    } catch (error) {
      if (!(error instanceof ApiError) || this.#pieces !== undefined) throw error;
      this.refuse(error.status, error.message, this.#phase !== ANSWER, error.allow);
    }
    if (this.#hasOutput) this.#send();
  }

  /**
   * Answers with an error.
   *
   * @param closes Whether that is the last answer: the client may be in the middle of a request.
   * @param allow Methods that the path takes.
   */
  refuse(status: number, message: string, closes: boolean, allow?: string): void {
    this.#pieces = undefined;
    const text = `${JSON.stringify({ error: message })}\n`;
    this.#put(this.#whole({ status, closes, ...(allow === undefined ? {} : { allow }) }, text));
    this.#bodyBytes = 0;
    this.#phase = closes ? DRAIN : this.#phaseAfter();
  }

  /** Answers with an error of our own, unless an answer has begun. */
  fail(): void {
    if (this.#pieces !== undefined || this.#phase === GONE) this.close();
    else this.refuse(500, "Cannot answer: the log of viommu says why", true);
  }

  /** Closes the connection, whatever was under way. */
  close(): void {
    if (this.#phase === GONE) return;
    this.#phase = GONE;
    this.#pieces = undefined;
    this.#awaited = undefined;
    this.#stream.close();
  }

  #send(): void {
    const count = this.#stream.send(this.#output, this.#sent, this.#length - this.#sent);
    if (count === CLOSED) return this.close();
    if (count === WOULD_BLOCK) {
      this.#isBlocked = true;
      return;
    }
    this.lastProgress = performance.now();
    this.#sent += count;
  }

  /** Puts a text out to be sent. A new array for each piece would make the collector stop everything more often. */
  #put(text: string): void {
    // UTF-8 takes three bytes at most for what is one unit of a text.
    if (this.#output.length < text.length * 3) this.#output = new Uint8Array(text.length * 3);
    this.#length = ENCODER.encodeInto(text, this.#output).written;
    this.#sent = 0;
  }

  #read(work: Work): void {
    if (this.#from === this.#filled) {
      this.#from = 0;
      this.#filled = 0;
      this.#searched = 0;
    }
    if (this.#filled === 0 || (this.#phase === HEAD && !this.#takeHead())) this.#receive();
    if (this.#phase === DRAIN) this.#drain();
    if (this.#phase === BODY) this.#takeBody(work);
  }

  /** Reads more, behind what is there. */
  #receive(): void {
    if (this.#from > 0) {
      this.#input.copyWithin(0, this.#from, this.#filled);
      this.#filled -= this.#from;
      this.#searched -= this.#from;
      this.#from = 0;
    }
    const room = this.#input.subarray(this.#filled);
    if (room.length === 0) throw new ApiError(431, `The head has more than ${HEAD_MAX} bytes`);
    const most = this.#context.access === "full" ? DESCRIPTORS_MAX : 0;
    const count = this.#stream.receive(this.#input, this.#filled, room.length, most);
    if (count === WOULD_BLOCK) {
      this.#isReadable = false;
      return;
    }
    if (count === CLOSED) return this.close();
    this.lastProgress = performance.now();
    this.#filled += count;
    const problem = this.#phase === DRAIN ? undefined : descriptorProblem(this.#stream, most);
    if (this.#phase === DRAIN || problem !== undefined) closeAll(this.#stream.received);
    if (problem !== undefined) throw problem;
  }

  /** Takes the head out of what was read. Returns whether it is whole. */
  #takeHead(): boolean {
    const end = headEnd(this.#input, Math.max(this.#from, this.#searched - 3), this.#filled);
    this.#searched = this.#filled;
    if (end < 0) return false;
    const head = parseHead(DECODER.decode(this.#input.subarray(this.#from, end)));
    this.#from = end + 4;
    this.#searched = this.#from;
    this.#head = head;
    if (head.bodyLength > BODY_MAX) throw tooLarge();
    this.#bodyBytes = 0;
    this.#body = head.bodyLength === 0 ? undefined : new BodyReader();
    this.#chunks = head.bodyLength < 0 ? new ChunkDecoder() : undefined;
    this.#phase = BODY;
    if (head.expectsContinue && head.bodyLength !== 0) {
      this.#put("HTTP/1.1 100 Continue\r\n\r\n");
    }
    return true;
  }

  /** Takes the body out of what was read. The answer behind it is a piece of work of its own. */
  #takeBody(work: Work): void {
    const head = this.#head!;
    const before = this.#from;
    if (this.#chunks !== undefined) {
      this.#takeChunks(this.#chunks);
      work.add((this.#filled - before) >>> BYTES_SHIFT);
      if (!this.#chunks.isDone) return;
    } else if (this.#body !== undefined) {
      const count = Math.min(this.#filled - this.#from, head.bodyLength - this.#bodyBytes);
      this.#body.add(this.#input, this.#from, this.#from + count);
      work.add(count >>> BYTES_SHIFT);
      this.#from += count;
      this.#bodyBytes += count;
      if (this.#bodyBytes < head.bodyLength) return;
    }
    this.#phase = ANSWER;
  }

  #takeChunks(chunks: ChunkDecoder): void {
    const before = this.#from;
    while (this.#from < this.#filled && !chunks.isDone) {
      this.#from = chunks.next(this.#input, this.#from, this.#filled);
      this.#body!.add(this.#input, chunks.start, chunks.end);
    }
    this.#bodyBytes += this.#from - before;
    if (this.#bodyBytes > BODY_MAX) throw tooLarge();
  }

  /** Begins the answer, as soon as it can; one that is done in a piece has its length in front. */
  #begin(work: Work): void {
    const head = this.#head!;
    const pieces = this.#awaited ?? this.#route(head, work);
    if (pieces.isWaiting) {
      this.#awaited = pieces;
      return;
    }
    this.#awaited = undefined;
    const type = pieces.mediaType === undefined ? {} : { mediaType: pieces.mediaType };
    if (head.method === "HEAD") {
      // The length of an answer is not known before it is put together (RFC 9110, 9.3.2 lets it be left out).
      this.#put(answerHead({ status: 200, closes: head.closes, ...type }));
      this.#phase = this.#phaseAfter();
      return;
    }
    const [text, isDone] = collect(pieces, work);
    if (isDone) {
      this.#put(this.#whole({ status: 200, closes: head.closes, ...type }, text));
      this.#phase = this.#phaseAfter();
      return;
    }
    this.#pieces = pieces;
    const isChunked = head.knowsChunks;
    const closes = head.closes || !isChunked;
    const front = answerHead({ status: 200, isChunked, closes, ...type });
    this.#put(front + this.#framed(text));
  }

  #route({ method, target }: RequestHead, work: Work): RouteAnswer {
    const body = this.#body ?? new BodyReader();
    this.#body = undefined;
    const descriptors = this.#stream.received;
    try {
      return route(
        this.#context,
        method,
        { target, body: () => body.finish(), descriptors },
        work,
      );
    } finally {
      closeAll(descriptors);
    }
  }

  /** Puts the next piece of the answer together. */
  #answer(work: Work): void {
    const [text, isDone] = collect(this.#pieces!, work);
    const end = isDone && this.#head!.knowsChunks ? "0\r\n\r\n" : "";
    this.#put(this.#framed(text) + end);
    if (!isDone) return;
    this.#pieces = undefined;
    this.#phase = this.#head!.knowsChunks ? this.#phaseAfter() : LAST;
  }

  /** A piece as a chunk. An empty one would end the body. */
  #framed(text: string): string {
    if (text === "" || !this.#head!.knowsChunks) return text;
    return `${text.length.toString(16)}\r\n${text}\r\n`;
  }

  /** A whole answer. */
  #whole(head: AnswerHead, text: string): string {
    const front = answerHead({ ...head, length: ENCODER.encode(text).length });
    return this.#head?.method === "HEAD" ? front : front + text;
  }

  #phaseAfter(): number {
    return this.#head === undefined || this.#head.closes ? LAST : HEAD;
  }

  /** Throws away what the client still sends. */
  #drain(): void {
    this.#bodyBytes += this.#filled - this.#from;
    this.#from = this.#filled;
    if (this.#bodyBytes > DRAIN_MAX) this.close();
  }
}

function tooLarge(): ApiError {
  return new ApiError(413, `The body has more than ${BODY_MAX} bytes`);
}
