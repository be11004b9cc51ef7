/**
 * A child process with line-based input and output: a VMM's serial console, a daemon's log.
 *
 * @module
 */
import { deadline } from "@std/async";

/** How to start the process. */
export interface LineProcessOptions {
  /** Its name in messages. */
  readonly title: string;
  /** Program and arguments. */
  readonly command: readonly string[];
  /** Variables added to the caller's environment. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Milliseconds a process that was told to end may take before it is killed. */
const GRACE = 10_000;

/** Lines of the transcript that an error message shows, and of those of each other process. */
const SHOWN = 60;
const SHOWN_OF_OTHERS = 10;

/** All that have not been disposed of: when one fails, the output of the others may show the cause. */
const present = new Set<LineProcess>();

/** The process; standard output and standard error are read into one transcript as they come. */
export class LineProcess implements AsyncDisposable {
  readonly #title: string;
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #readers: Promise<unknown>;
  readonly #transcript: string[] = [];
  readonly #output: string[] = [];
  #taken = 0;
  #ended = false;
  #changed = Promise.withResolvers<void>();

  constructor(options: LineProcessOptions) {
    const [program, ...args] = options.command;
    this.#title = options.title;
    this.#transcript.push(`$ ${options.command.join(" ")}`);
    this.#child = new Deno.Command(program, {
      args,
      env: { RUST_BACKTRACE: "0", NO_COLOR: "1", ...options.env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#readers = Promise.all([
      this.#read(this.#child.stdout, this.#output),
      this.#read(this.#child.stderr, undefined),
    ]).finally(() => {
      this.#ended = true;
      this.#wake();
    });
    present.add(this);
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>, sink?: string[]): Promise<void> {
    let rest = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#keep(line, sink);
      this.#wake();
    }
    if (rest !== "") this.#keep(rest, sink);
  }

  #keep(line: string, sink: string[] | undefined): void {
    const text = printable(line);
    this.#transcript.push(sink === undefined ? `! ${text}` : text);
    sink?.push(text);
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  /** All lines so far, those of standard error marked with `!`, those sent marked with `>`. */
  get transcript(): readonly string[] {
    return this.#transcript;
  }

  /** Whether it has ended and all it wrote is in the transcript. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** An error with a message and the last lines of this process and of the others. */
  failure(message: string): Error {
    const others = [...present].filter((each) => each !== this)
      .map((each) => `\n${each.#title}, which ${each.#state()}:${each.#last(SHOWN_OF_OTHERS)}`);
    return new Error(`${this.#title}: ${message}${this.#last(SHOWN)}${others.join("")}`);
  }

  #state(): string {
    return this.#ended ? "has ended" : "is running";
  }

  #last(count: number): string {
    return this.#transcript.slice(-count).map((line) => `\n    ${line}`).join("");
  }

  /** Sends one line. */
  async send(line: string): Promise<void> {
    this.#transcript.push(`> ${line}`);
    await this.#input.write(new TextEncoder().encode(`${line}\n`));
  }

  /** The next line of standard output not yet taken, within `milliseconds`; `awaited` is for the message. */
  async nextLine(milliseconds: number, awaited: string): Promise<string> {
    const end = Date.now() + milliseconds;
    while (this.#taken === this.#output.length) {
      if (this.#ended) throw this.failure(`Ended while waiting for ${awaited}`);
      const left = end - Date.now();
      if (left <= 0) throw this.failure(`No ${awaited} within ${milliseconds} ms`);
      const timer = setTimeout(() => this.#wake(), left);
      await this.#changed.promise;
      clearTimeout(timer);
    }
    return this.#output[this.#taken++];
  }

  /** Waits for the process to end by itself; its exit status. Throws when it takes longer. */
  async status(milliseconds: number): Promise<Deno.CommandStatus> {
    try {
      return await deadline(this.#child.status, milliseconds);
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      throw this.failure(`Still running after ${milliseconds} ms`);
    }
  }

  /** Sends a signal, if the process is still there. */
  signal(name: Deno.Signal): void {
    try {
      this.#child.kill(name);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
  }

  /** Ends it, with SIGTERM and then SIGKILL; returns when it has ended and everything is read. */
  async [Symbol.asyncDispose](): Promise<void> {
    present.delete(this);
    this.signal("SIGTERM");
    const timer = setTimeout(() => this.signal("SIGKILL"), GRACE);
    await this.#child.status;
    clearTimeout(timer);
    await this.#readers;
    try {
      await this.#input.close();
    } catch {
      // The other end of the pipe is closed, as expected.
    }
  }
}

/** Without carriage returns and a terminal's control sequences, which firmware sends. */
function printable(line: string): string {
  const escape = String.fromCharCode(27);
  return line.replaceAll("\r", "").split(escape)
    .map((part, index) => index === 0 ? part : part.replace(/^(\[[0-9;?]*[A-Za-z]|c)/, ""))
    .join("");
}
