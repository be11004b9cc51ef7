/** The command line: finds the command, deals with help, version and errors. */
import { VERSION } from "./version.ts";
import { build } from "./build.ts";
import { closestName } from "./closest_name.ts";
import { type Command, readArguments } from "./command.ts";
import { completionCommand } from "./completion.ts";
import { demo } from "./demo.ts";
import { demoGuest } from "./demo_guest.ts";
import { dtb } from "./dtb.ts";
import { dump } from "./dump.ts";
import { endpoint } from "./endpoint.ts";
import { UsageError } from "./errors.ts";
import { helpText } from "./help.ts";
import { hostErrorText } from "./host_error.ts";
import { inspect } from "./inspect.ts";
import { qemuArgs } from "./qemu_args.ts";
import { replay } from "./replay.ts";
import { serve } from "./serve.ts";
import { serveWorker } from "./serve_worker.ts";
import { manPage } from "./man_page.ts";
import { PROCESS_STREAMS, type Streams } from "./streams.ts";
import { viot } from "./viot.ts";
import { walk } from "./walk.ts";
import { web } from "./web.ts";

/** What the program is. */
const SUMMARY = "a virtio-iommu outside the VMM, on a vhost-user socket";

/** Every command, in the order of the overview. */
export const COMMANDS: readonly Command[] = [
  demo,
  serve,
  inspect,
  endpoint,
  replay,
  qemuArgs,
  viot,
  dtb,
  build,
  walk,
  dump,
  web,
  completionCommand(() => COMMANDS),
];
/** Commands that other commands start. */
const INNER_COMMANDS: readonly Command[] = [demoGuest, serveWorker];

/**
 * Runs the command line.
 *
 * @param args The arguments behind the program's name.
 * @param streams Standard input, output and error.
 * @returns The exit code: 0 for success, 1 for a failure while running, 2 for wrong arguments.
 */
export async function main(
  args: readonly string[],
  streams: Streams = PROCESS_STREAMS,
): Promise<number> {
  const [name, ...rest] = args;
  const command = [...COMMANDS, ...INNER_COMMANDS].find((candidate) => candidate.name === name);
  try {
    if (command === undefined) return await runWithoutCommand(args, streams);
    if (command.printing !== undefined && rest.includes(command.printing.option)) {
      await streams.write(`${command.printing.text()}\n`);
      return 0;
    }
    if (rest.includes("--help") || rest.includes("-h")) {
      await streams.write(helpText(command));
      return 0;
    }
    if (rest.includes("--version")) {
      await streams.write(`${VERSION}\n`);
      return 0;
    }
    return await command.run(readArguments(command, rest), streams);
  } catch (error) {
    // The reader of the output has all that it wants, as `head` does.
    if (error instanceof Deno.errors.BrokenPipe) return 0;
    if (error instanceof UsageError) {
      const help = command === undefined ? "viommu --help" : `viommu ${command.name} --help`;
      streams.writeError(`viommu: ${error.message} (see ${help})`);
      return 2;
    }
    const text = hostErrorText(error);
    if (text === undefined) throw error;
    streams.writeError(`viommu: ${text}`);
    return 1;
  }
}

/** `--help`, `--version`, or a name that is no command. */
async function runWithoutCommand(
  [name, ...rest]: readonly string[],
  streams: Streams,
): Promise<number> {
  if (name === "--version" || name === "-V") {
    await streams.write(`${VERSION}\n`);
    return 0;
  }
  if (name === "--help" || name === "-h" || name === "help") {
    await streams.write(help(rest));
    return 0;
  }
  const names = COMMANDS.map((command) => command.name);
  const all = `the commands are ${names.join(", ")}`;
  if (name === undefined) throw new UsageError(`Cannot run without a command: ${all}`);
  const meant = closestName(name, names);
  throw new UsageError(
    `Cannot run "${name}": ${meant === undefined ? all : `did you mean ${meant}?`}`,
  );
}

/** The overview, or the help of the command that is named. */
function help([name, ...more]: readonly string[]): string {
  if (name === undefined) return overview();
  if (name === "--man" && more.length === 0) return manPage(SUMMARY, COMMANDS);
  const command = COMMANDS.find((candidate) => candidate.name === name);
  if (command !== undefined && more.length === 0) return helpText(command);
  throw new UsageError(
    `Cannot explain "${[name, ...more].join(" ")}": it must be one of ${
      COMMANDS.map((each) => each.name).join(", ")
    }`,
  );
}

/** The text of `--help`. */
function overview(): string {
  return [
    `viommu: ${SUMMARY}`,
    "",
    "Usage: viommu COMMAND [options]",
    "",
    "Commands:",
    ...COMMANDS.map((command) => `  ${command.name.padEnd(12)}${command.summary}`),
    "",
    "viommu COMMAND --help says more, viommu help --man all of it as a man page;",
    "--version prints the version.",
    "",
  ].join("\n");
}
