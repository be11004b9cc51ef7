/**
 * A process that does nothing but run, on one processor.
 *
 * @module
 */

/** Started at once; dispose of it in every case. */
export class BusyProcess implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  #hasEnded = false;

  constructor(processor: number) {
    this.#process = new Deno.Command("taskset", {
      args: ["-c", `${processor}`, "sh", "-c", "while :; do :; done"],
    }).spawn();
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Ends it; does nothing the second time. */
  async end(): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#process.kill("SIGKILL");
    await this.#process.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}
