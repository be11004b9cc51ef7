/**
 * QEMU's monitor: commands for a running machine, over a QMP socket.
 *
 * @module
 */

/** A connection to a machine that was started with `Monitor.arguments`. */
export class Monitor implements Disposable {
  readonly #connection: Deno.UnixConn;
  #rest = "";

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
  }

  /** The QEMU arguments that open a monitor at a path. */
  static arguments(path: string): readonly string[] {
    return ["-qmp", `unix:${path},server=on,wait=off`];
  }

  /** Connects and ends the negotiation. */
  static async connect(path: string): Promise<Monitor> {
    const monitor = new Monitor(await Deno.connect({ transport: "unix", path }));
    await monitor.#next();
    await monitor.#execute({ execute: "qmp_capabilities" });
    return monitor;
  }

  /** Runs a command of the human monitor; what it prints. */
  async command(line: string): Promise<string> {
    const answer = await this.#execute({
      execute: "human-monitor-command",
      arguments: { "command-line": line },
    });
    return String(answer);
  }

  /** The 8 bytes at a physical address, registers of devices included. */
  async readq(address: number): Promise<bigint> {
    const text = await this.command(`xp /1gx 0x${address.toString(16)}`);
    const found = /: (0x[0-9a-f]+)/.exec(text);
    if (found === null) throw new Error(`Cannot read 0x${address.toString(16)}: ${text}`);
    return BigInt(found[1]);
  }

  async #execute(request: unknown): Promise<unknown> {
    await this.#write(new TextEncoder().encode(`${JSON.stringify(request)}\n`));
    while (true) {
      const answer = await this.#next();
      if ("return" in answer) return answer.return;
      if ("error" in answer) throw new Error(`Monitor refused: ${JSON.stringify(answer.error)}`);
    }
  }

  async #write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
  }

  async #next(): Promise<Record<string, unknown>> {
    const buffer = new Uint8Array(65536);
    while (!this.#rest.includes("\n")) {
      const length = await this.#connection.read(buffer);
      if (length === null) throw new Error("Monitor closed the connection");
      this.#rest += new TextDecoder().decode(buffer.subarray(0, length));
    }
    const end = this.#rest.indexOf("\n");
    const line = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end + 1);
    return JSON.parse(line) as Record<string, unknown>;
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.#connection.close();
  }
}
