/** `--record` of `serve`, from its text to a device that is recorded. */
import { parseSize } from "../address.ts";
import type { DeviceOptions, IommuDevice } from "../iommu/iommu_device.ts";
import type { Log } from "../log.ts";
import { configurationText } from "../recording/configuration.ts";
import { RecordBuffer } from "../recording/record_buffer.ts";
import { RecordedDevice } from "../recording/recorded_device.ts";
import { Recorder } from "../recording/recorder.ts";
import { asUsageError } from "./open_device.ts";
import { optional, parseParts, type TextForm } from "./option_parts.ts";
import { type OptionDefinition, type OptionValues, parseSwitch, textOption } from "./options.ts";
import { RecordingFile } from "./recording_file.ts";
import { VERSION } from "./version.ts";

/** Bytes of a file unless `size` says otherwise, and at least. */
const DEFAULT_LIMIT = 2 ** 30;
const LEAST_LIMIT = 2 ** 16;

const RECORD_OPTION = {
  name: "--record",
  head: { form: "the path of a file", read: (text: string) => text === "" ? undefined : text },
  parts: {
    size: optional(
      {
        form: "a size from 64K on, such as 100M",
        read: (text) => atLeast(parseSize(text), LEAST_LIMIT),
      } satisfies TextForm<number>,
      DEFAULT_LIMIT,
    ),
    dma: optional({ form: "on or off", read: parseSwitch }, false),
  },
};

/** How it is given. */
export const RECORD_DEFINITION: OptionDefinition = {
  name: "record",
  value: "FILE[,size=LIMIT][,dma=on|off]",
  help:
    'records what happens to the device into a new file, for "replay"; ends at LIMIT bytes (default 1G), or where ' +
    "writing is too slow; with dma=on also translations of endpoints that serve itself makes; see docs/recording.md",
};

/** What the option says. */
export interface RecordChoice {
  /** Where to. */
  readonly path: string;
  /** Most bytes. */
  readonly limit: number;
  /** Whether DMA translations are recorded. */
  readonly dma: boolean;
}

/** Reads the option. Throws a UsageError if it is wrong. */
export function recordChoice(values: OptionValues): RecordChoice | undefined {
  const text = textOption(values, "record");
  if (text === undefined) return undefined;
  const [path, { size, dma }] = parseParts(RECORD_OPTION, text);
  return { path, limit: size, dma };
}

/** A recording that is being made. */
export class Recording implements AsyncDisposable {
  /** The device whose life it is. */
  readonly device: IommuDevice;
  readonly #recorder: Recorder;
  readonly #buffer: RecordBuffer;
  readonly #path: string;
  #file: RecordingFile | undefined;

  /**
   * Makes the device. Nothing is written before {@linkcode start}.
   *
   * @throws {UsageError} If the options of the device contradict each other.
   */
  constructor({ path, limit, dma }: RecordChoice, options: DeviceOptions) {
    this.#path = path;
    this.#buffer = new RecordBuffer(limit);
    const head = { program: VERSION, began: Date.now(), dma };
    const text = asUsageError(() => configurationText(head, options));
    this.#recorder = new Recorder(this.#buffer, text, performance.now());
    this.device = asUsageError(() => new RecordedDevice(options, this.#recorder, dma));
  }

  /**
   * Makes the file, and begins to write it.
   *
   * @throws {CommandError} If it cannot be made.
   */
  async start(log: Log): Promise<void> {
    this.#file = await RecordingFile.open(this.#path);
    this.#file.start(this.#buffer, log);
    log.info(`Recording to ${this.#path}`);
  }

  /** Ends it: what is recorded has a second to be written. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#recorder.setTime(performance.now());
    this.#recorder.end();
    await this.#file?.finish(LAST_WRITE_MS);
    this.#file?.[Symbol.dispose]();
  }
}

/** Milliseconds that the last records have to be written. */
const LAST_WRITE_MS = 1000;

function atLeast(size: number | undefined, least: number): number | undefined {
  return size === undefined || size < least ? undefined : size;
}
