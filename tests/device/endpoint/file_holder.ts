/**
 * Another process that has files open, as a VMM has those of its devices.
 *
 * @module
 */
import { PeerProcess } from "../../../device/host/mod.ts";

/** A process that has files of a folder open from number 20 on, as a VMM has those of its devices. */
export class FileHolder implements AsyncDisposable {
  readonly process: PeerProcess;
  readonly #child: Deno.ChildProcess;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.process = PeerProcess.ofProcess(child.pid)!;
  }

  /** @param names Paths in the folder; made if they are not there. */
  static async start(folder: string, names: readonly string[]): Promise<FileHolder> {
    for (const name of names) {
      const path = `${folder}/${name}`;
      await Deno.mkdir(path.replace(/\/[^/]*$/, ""), { recursive: true });
      await Deno.writeTextFile(path, "");
    }
    const opens = names.map((name, i) => `${20 + i}<>${folder}/${name}`).join(" ");
    const child = new Deno.Command("bash", {
      args: ["-c", `exec ${opens}; echo; exec cat`],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    await reader.cancel();
    return new FileHolder(child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.close();
    await this.#child.stdin.close();
    await this.#child.status;
  }
}
