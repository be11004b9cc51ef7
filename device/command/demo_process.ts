import type { DemoAnswer, DemoOrder } from "./demo_guest.ts";
import { CommandError } from "./errors.ts";

/** The second process of the demo, seen from the first: started, given orders, ended. */
export class DemoProcess {
  readonly #process: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #output: ReadableStreamDefaultReader<string>;
  #rest = "";

  /**
   * Starts it.
   *
   * @param path The socket that it connects to.
   */
  constructor(path: string) {
    // In a bundle this module is the program itself.
    const { url } = import.meta;
    const main = url.endsWith("/demo_process.ts") ? new URL("../../main.ts", url).href : url;
    this.#process = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--allow-ffi", main, "demo-guest", path],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#process.stdin.getWriter();
    this.#output = this.#process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Waits until it has connected. */
  async ready(): Promise<void> {
    await this.#line();
  }

  /** Makes it do something, and waits for the answer. */
  async order(order: DemoOrder): Promise<DemoAnswer> {
    await this.#input.write(new TextEncoder().encode(`${JSON.stringify(order)}\n`));
    return JSON.parse(await this.#line());
  }

  /** Ends it, whatever it is doing. */
  async close(): Promise<void> {
    await this.#input.close().catch(() => {});
    try {
      this.#process.kill("SIGTERM");
    } catch (error) {
      // It has ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#output.cancel();
    await this.#process.status;
  }

  async #line(): Promise<string> {
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#output.read();
      if (done) throw new CommandError("Cannot go on with the demo: the second process has ended");
      this.#rest += value;
    }
    const end = this.#rest.indexOf("\n");
    const line = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end + 1);
    return line;
  }
}
