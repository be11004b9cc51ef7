import { parseSize } from "../address.ts";
import type { Command } from "./command.ts";
import { ENDPOINT_DEFINITIONS, parseEndpointChoices } from "./endpoint_control.ts";
import { UsageError } from "./errors.ts";
import { oneOf, SOCKET_PATH } from "./option_parts.ts";
import { parsedOption } from "./options.ts";
import {
  ARCHITECTURES,
  DEFAULT_GUEST_MEMORY,
  qemuCommands,
  qemuEndpoints,
} from "./qemu_arguments.ts";

const ARCHITECTURE = oneOf(...ARCHITECTURES);

/** `qemu-args`: prints the command lines that attach a QEMU guest to `serve`. */
export const qemuArgs: Command = {
  name: "qemu-args",
  summary: "print the command lines that attach a QEMU guest to serve",
  usage: ["--socket-path PATH [options]"],
  description:
    `Prints what to type for a guest on the IOMMU of "viommu serve --socket-path PATH", with
    the devices behind it that serve is given. QEMU 10.2 or later has the device that these lines name. A kernel
    is added with QEMU's -kernel, -initrd and -append.`,
  options: [{
    title: "Options",
    options: [
      { name: "socket-path", value: "PATH", help: "the socket of serve" },
      {
        name: "arch",
        value: ARCHITECTURES.join("|"),
        help: "for this architecture alone (default: for both)",
      },
      { name: "memory", value: "SIZE", help: "guest memory (default 512M)" },
    ],
  }, { title: "Devices behind the IOMMU, as serve takes them", options: ENDPOINT_DEFINITIONS }],
  ending: `
Example:
  viommu qemu-args --socket-path /run/viommu.sock --arch x86_64
`,
  async run({ values }, streams) {
    const socketPath = parsedOption(values, "socket-path", SOCKET_PATH.read, SOCKET_PATH.form);
    if (socketPath === undefined) {
      throw new UsageError(
        "Cannot print command lines without --socket-path PATH, as given to serve",
      );
    }
    const only = parsedOption(values, "arch", ARCHITECTURE.read, ARCHITECTURE.form);
    const memory = parsedOption(values, "memory", parseSize, "a size such as 2G") ??
      DEFAULT_GUEST_MEMORY;
    const behind = qemuEndpoints(parseEndpointChoices(values));
    const blocks = ARCHITECTURES.filter((each) => only === undefined || each === only).map(
      (architecture) => qemuCommands(architecture, { socketPath, ...behind, memory }).join("\n"),
    );
    await streams.write(`${blocks.join("\n\n")}\n`);
    return 0;
  },
};
