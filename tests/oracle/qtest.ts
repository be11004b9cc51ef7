/**
 * A QEMU machine without a guest, driven over QEMU's qtest protocol: every access to its memory, its ports
 * and its clock is a command of ours.
 *
 * The protocol is one command a line and one answer a line, in order, so commands may be sent ahead.
 *
 * @module
 */
import { hex } from "../bytes.ts";
import type { Qemu } from "../guest/lab/mod.ts";

/** Milliseconds for the answers to all that was sent ahead; a machine that needs longer is stuck. */
const ANSWER_LIMIT = 60_000;

/** Lines of the conversation that an error message shows. */
const SHOWN = 30;

interface Waiter {
  readonly command: string;
  readonly resolve: (answer: string) => void;
  readonly reject: (error: Error) => void;
}

/** The machine. Dispose of it in every case. */
export class Qtest implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #readers: Promise<unknown>;
  readonly #waiting: Waiter[] = [];
  readonly #recent: string[] = [];
  readonly #encoder = new TextEncoder();
  #unsent = "";
  #watchdog: ReturnType<typeof setTimeout> | undefined;

  /** Starts QEMU with the machine's arguments. */
  constructor(qemu: Qemu, args: readonly string[]) {
    const [program, ...first] = qemu.command;
    const own = ["-accel", "qtest", "-qtest", "stdio", "-qtest-log", "none"];
    const quiet = ["-nodefaults", "-display", "none", "-run-with", "exit-with-parent=on"];
    this.#child = new Deno.Command(program, {
      args: [...first, ...own, ...quiet, ...args],
      env: { ...qemu.env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#readers = Promise.all([
      this.#read(this.#child.stdout, (line) => this.#answered(line)),
      this.#read(this.#child.stderr, (line) => this.#remember(`! ${line}`)),
    ]).then(() => this.#abandon("QEMU ended"));
  }

  async #read(
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    take: (line: string) => void,
  ): Promise<void> {
    const decoder = new TextDecoder();
    const reader = stream.getReader();
    let rest = "";
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      lines.forEach(take);
    }
  }

  #remember(line: string): void {
    this.#recent.push(line.slice(0, 200));
    if (this.#recent.length > SHOWN) this.#recent.shift();
  }

  #answered(line: string): void {
    this.#remember(line);
    const waiter = this.#waiting.shift();
    if (this.#waiting.length === 0) this.#calm();
    if (waiter === undefined) return;
    if (line.startsWith("OK")) waiter.resolve(line.slice(3));
    else waiter.reject(this.#failure(`"${waiter.command.slice(0, 80)}" answered ${line}`));
  }

  #calm(): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = undefined;
  }

  #abandon(reason: string): void {
    this.#calm();
    for (const waiter of this.#waiting.splice(0)) waiter.reject(this.#failure(reason));
  }

  #failure(message: string): Error {
    return new Error(`qtest: ${message}\n    ${this.#recent.join("\n    ")}`);
  }

  /** Sends one command; what stands behind `OK` in its answer. */
  command(command: string): Promise<string> {
    this.#remember(`> ${command}`);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.#waiting.push({ command, resolve, reject });
    if (this.#unsent === "") queueMicrotask(() => this.#send());
    this.#unsent += `${command}\n`;
    this.#watchdog ??= setTimeout(
      () => this.#abandon(`No answer in ${ANSWER_LIMIT} ms`),
      ANSWER_LIMIT,
    );
    return promise;
  }

  /** Writes what was asked for in one turn of the event loop at once. */
  #send(): void {
    const bytes = this.#encoder.encode(this.#unsent);
    this.#unsent = "";
    this.#input.write(bytes).catch(() => this.#abandon("QEMU takes no commands"));
  }

  /** Reads 4 bytes of physical memory or of a device's registers. */
  async readl(address: number): Promise<number> {
    return Number(await this.command(`readl ${hex(address)}`));
  }

  /** Reads 8 bytes. */
  async readq(address: number): Promise<bigint> {
    return BigInt(await this.command(`readq ${hex(address)}`));
  }

  /** Writes 4 bytes. */
  async writel(address: number, value: number): Promise<void> {
    await this.command(`writel ${hex(address)} ${hex(value)}`);
  }

  /** Writes 8 bytes. */
  async writeq(address: number, value: bigint): Promise<void> {
    await this.command(`writeq ${hex(address)} ${hex(value)}`);
  }

  /** Reads 4 bytes of an x86 machine's I/O port. */
  async inl(port: number): Promise<number> {
    return Number(await this.command(`inl ${hex(port)}`));
  }

  /** Writes 4 bytes to an x86 machine's I/O port. */
  async outl(port: number, value: number): Promise<void> {
    await this.command(`outl ${hex(port)} ${hex(value)}`);
  }

  /** Writes bytes into physical memory. */
  async write(address: number, bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return;
    const text = bytes.toBase64();
    await this.command(`b64write ${hex(address)} ${hex(bytes.length)} ${text}`);
  }

  /** Reads bytes of physical memory. */
  async read(address: number, length: number): Promise<Uint8Array> {
    return Uint8Array.fromBase64(await this.command(`b64read ${hex(address)} ${hex(length)}`));
  }

  /** Moves the machine's clock on by nanoseconds; what was due by then happens. */
  async step(nanoseconds: number): Promise<void> {
    await this.command(`clock_step ${nanoseconds}`);
  }

  /** Ends QEMU; returns when it is gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#child.status;
    await this.#readers;
    try {
      await this.#input.close();
    } catch {
      // The other end of the pipe is gone, as it should be.
    }
  }
}
