/**
 * A process that does nothing but run, on one processor.
 *
 * @module
 */

/** Dispose of it in every case. */
export class BusyProcess implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  #hasEnded = false;

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
  }

  /** A process that is busy on its processor by now. */
  static async start(processor: number): Promise<BusyProcess> {
    const process = new Deno.Command("taskset", {
      args: ["-c", `${processor}`, "sh", "-c", "echo; while :; do :; done"],
      stdout: "piped",
    }).spawn();
    // Until it says something it may be anywhere.
    const reader = process.stdout.getReader();
    await reader.read();
    await reader.cancel();
    return new BusyProcess(process);
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
