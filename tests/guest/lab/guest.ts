/**
 * A booted guest, driven through the agent on its serial console.
 *
 * @module
 */
import { hex } from "../../bytes.ts";
import { LineProcess } from "./line_process.ts";
import type { Qemu } from "./qemu.ts";

/** A piece of a mapping that is contiguous in I/O and in guest-physical addresses; bytes. */
export interface MappedRun {
  readonly iova: number;
  readonly phys: number;
  /** Pages of 4 KiB. */
  readonly pages: number;
}

/** Usable I/O addresses, bytes, inclusive. */
export interface AddressRange {
  readonly first: number;
  readonly last: number;
}

/**
 * The memory of a mapping: frames in no order, a transparent huge page, huge pages (to be reserved in
 * `/proc/sys/vm/nr_hugepages` before), or one frame for every page.
 */
export type Backing = "scattered" | "contiguous" | "huge" | "one";

/** The accesses that a mapping allows a device. */
export type Permission = "r" | "w" | "rw";

/** Milliseconds for a boot on a busy machine without hardware virtualisation. */
const BOOT_LIMIT = 240_000;

/** Milliseconds for one command. */
const COMMAND_LIMIT = 120_000;

/** A guest whose agent has said that it is ready. Dispose of it in every case. */
export class Guest implements AsyncDisposable {
  readonly #process: LineProcess;
  readonly #patience: number;

  private constructor(process: LineProcess, patience: number) {
    this.#process = process;
    this.#patience = patience;
  }

  /**
   * Starts QEMU with the arguments (serial console on standard input and output) and waits for the agent.
   *
   * @param patience How many times longer than usual everything may take.
   */
  static async boot(
    qemu: Qemu,
    args: readonly string[],
    patience = 1,
  ): Promise<Guest> {
    const process = new LineProcess({
      title: "guest",
      command: [...qemu.command, ...args],
      env: qemu.env,
    });
    try {
      const guest = new Guest(process, patience);
      await guest.ready();
      return guest;
    } catch (error) {
      await process[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Waits until the agent says that it is ready: after a boot, or after a `reboot`. */
  async ready(): Promise<void> {
    const end = Date.now() + this.#patience * BOOT_LIMIT;
    while (await this.#process.nextLine(end - Date.now(), "agent") !== "@ready");
  }

  /** The process id of its QEMU. */
  get pid(): number {
    return this.#process.pid;
  }

  /** All lines of the console so far. */
  get transcript(): readonly string[] {
    return this.#process.transcript;
  }

  /** Sends a command to the agent; its data lines without `@`, and the text after `@ok`. Throws on `@error`. */
  async command(
    text: string,
    milliseconds: number = this.#patience * COMMAND_LIMIT,
  ): Promise<{ readonly lines: readonly string[]; readonly result: string }> {
    await this.#process.send(text);
    const lines: string[] = [];
    const end = Date.now() + milliseconds;
    while (true) {
      const line = await this.#process.nextLine(end - Date.now(), `answer to "${text}"`);
      if (line === "@ok" || line.startsWith("@ok ")) return { lines, result: line.slice(4) };
      if (line.startsWith("@error")) throw this.#process.failure(`"${text}" failed: ${line}`);
      if (line.startsWith("@")) lines.push(line.slice(1));
    }
  }

  /** Runs a shell command; its output lines. Throws when its exit status is not 0. */
  async run(shell: string): Promise<readonly string[]> {
    const { lines, result } = await this.command(`run ${shell}`);
    const output = lines.map((line) => line.slice(2));
    if (result !== "0") throw this.#process.failure(`"${shell}" ended with status ${result}`);
    return output;
  }

  /** Binds a PCI device to VFIO and opens it; the ranges of I/O addresses that VFIO allows. */
  async openVfio(device: string): Promise<readonly AddressRange[]> {
    const { lines } = await this.command(`vfio ${device}`);
    return lines.map((line) => {
      const [, first, last] = line.split(" ");
      return { first: Number(first), last: Number(last) };
    });
  }

  /** Closes what `openVfio` opened, which removes all mappings. */
  async closeVfio(): Promise<void> {
    await this.command("close");
  }

  /** Maps new guest memory; the addresses of its pages as the guest reports them. Bytes. */
  async map(
    iova: number,
    bytes: number,
    permission: Permission,
    backing: Backing,
  ): Promise<readonly MappedRun[]> {
    const { lines } = await this.command(`map ${hex(iova)} ${bytes} ${permission} ${backing}`);
    return lines.map((line) => {
      const [, at, phys, pages] = line.split(" ");
      return { iova: Number(at), phys: Number(phys), pages: Number(pages) };
    });
  }

  /** Unmaps everything in the range; the bytes that VFIO reports as unmapped. */
  async unmap(iova: number, bytes: number): Promise<number> {
    return Number((await this.command(`unmap ${hex(iova)} ${bytes}`)).result);
  }

  /** Microseconds per call of `count` mappings of `bytes` each, and of as many unmappings. */
  async bench(
    iova: number,
    bytes: number,
    count: number,
  ): Promise<{ readonly map: number; readonly unmap: number }> {
    const { result } = await this.command(`bench ${hex(iova)} ${bytes} ${count}`, 600_000);
    const [map, unmap] = result.split(" ").map((text) => Number(text) / count / 1000);
    return { map, unmap };
  }

  /** Stops the QEMU process, so that it uses no processor time, until {@linkcode thaw}. */
  freeze(): void {
    this.#process.signal("SIGSTOP");
  }

  /** Continues the QEMU process. */
  thaw(): void {
    this.#process.signal("SIGCONT");
  }

  /** Restarts the guest and waits for its agent. */
  async reboot(): Promise<void> {
    await this.command("reboot");
    await this.ready();
  }

  /** Powers the guest off and waits for QEMU's end. Throws unless it ends with status 0. */
  async powerOff(): Promise<void> {
    await this.command("poweroff");
    const { code } = await this.#process.status(this.#patience * COMMAND_LIMIT);
    if (code !== 0) throw this.#process.failure(`QEMU ended with status ${code}`);
  }

  /** Ends QEMU, also if the guest hangs. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process[Symbol.asyncDispose]();
  }
}
