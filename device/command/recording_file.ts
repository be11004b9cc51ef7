/**
 * The file of a recording: opened before anything is served, and written on a thread of the runtime while guests are.
 *
 * A write that fails or does not end never delays what is served: the buffer fills, and the recording is over.
 */
import type { Log } from "../log.ts";
import type { RecordBuffer } from "../recording/record_buffer.ts";
import { END_TEXTS, ENDED } from "../recording/wire.ts";
import { attempt, hostErrorText } from "./host_error.ts";

/** Milliseconds between two writes. */
const WRITE_MS = 100;
/** Owner only: a recording shows what a guest's kernel does. */
const MODE = 0o600;

/** A file that a recording is written to. */
export class RecordingFile implements Disposable {
  readonly #file: Deno.FsFile;
  readonly #path: string;
  #buffer: RecordBuffer | undefined;
  #log: Log | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #writing: Promise<void> | undefined;
  #isClosed = false;

  private constructor(file: Deno.FsFile, path: string) {
    this.#file = file;
    this.#path = path;
  }

  /**
   * Makes a new file, or opens a pipe or a device.
   *
   * @throws {CommandError} If that cannot be, or there is such a file already: a recording is not written over.
   */
  static async open(path: string): Promise<RecordingFile> {
    const file = await attempt(`record to ${path}`, async () => {
      try {
        return await Deno.open(path, { write: true, createNew: true, mode: MODE });
      } catch (error) {
        if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
        // Opened for reading as well: opening a pipe only for writing waits until it has a reader.
        const there = await Deno.open(path, { read: true, write: true });
        if (!(await there.stat()).isFile) return there;
        there.close();
        throw error;
      }
    });
    return new RecordingFile(file, path);
  }

  /** Begins to write what a buffer holds, and goes on until it is over. */
  start(buffer: RecordBuffer, log: Log): void {
    this.#buffer = buffer;
    this.#log = log;
    this.#timer = setInterval(() => void this.#write(), WRITE_MS);
  }

  /**
   * Writes what is left, for as long as a time in milliseconds at most. The recording must be over.
   *
   * @returns Whether all of it is written.
   */
  async finish(milliseconds: number): Promise<boolean> {
    if (this.#isClosed) return true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), milliseconds);
    });
    const done = this.#writeAll().then(() => true);
    const isWritten = await Promise.race([done, timeout]);
    clearTimeout(timer);
    if (!isWritten) {
      this.#log?.warn(
        `The end of the recording is not in ${this.#path}: it cannot be written in time`,
      );
    }
    return isWritten;
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    if (!this.#isClosed) this.#file.close();
    this.#isClosed = true;
  }

  async #writeAll(): Promise<void> {
    while (this.#buffer?.isEmpty === false && !this.#isClosed) await this.#write();
  }

  async #write(): Promise<void> {
    this.#writing ??= this.#writePieces();
    await this.#writing;
    this.#writing = undefined;
  }

  async #writePieces(): Promise<void> {
    const buffer = this.#buffer!;
    try {
      for (let piece = buffer.take(); piece !== undefined; piece = buffer.take()) {
        for (let done = 0; done < piece.length;) {
          done += await this.#file.write(piece.subarray(done));
        }
        if (this.#isClosed) return;
        buffer.written();
      }
    } catch (error) {
      const text = hostErrorText(error, `write ${this.#path}`);
      if (text === undefined) throw error;
      // A file that was closed while it was written fails, too.
      if (this.#isClosed) return;
      buffer.drop();
      this.#end(text);
      return;
    }
    if (buffer.over === undefined || buffer.over === ENDED) return;
    this.#end(END_TEXTS[buffer.over]);
  }

  /** Says why the recording is over, and closes the file. */
  #end(why: string): void {
    this.#log?.warn(`The recording in ${this.#path} has ended: ${why}`);
    this[Symbol.dispose]();
  }
}
