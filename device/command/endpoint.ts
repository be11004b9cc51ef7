/**
 * `endpoint`: adds devices behind the IOMMU to a running `serve`, removes and lists them, as a client of its API socket.
 */
import { endpointText, parseEndpoint, parseNumber } from "../address.ts";
import { DRAIN_MS_MAX, type RemovalState, type ServedEndpointState } from "../api/mod.ts";
import { ApiClient } from "./api_client.ts";
import type { Command } from "./command.ts";
import { postDescriptors } from "./descriptor_client.ts";
import { InheritedDescriptors } from "./descriptor_source.ts";
import type { EndpointChoice, SentChoice } from "./endpoint_choices.ts";
import { ENDPOINT_DEFINITIONS, parseEndpointChoices } from "./endpoint_control.ts";
import { CommandError, UsageError } from "./errors.ts";
import { hostDeviceText } from "./host_device_text.ts";
import { SOCKET_PATH } from "./option_parts.ts";
import { type OptionValues, parsedOption, parseText, textOptions } from "./options.ts";

/** Options that say what is to be added. */
const ADDED = ENDPOINT_DEFINITIONS.map(({ name }) => name);
const ENDPOINT_FORM = "an endpoint such as 24, 0x18 or 01:00.0";

/** Milliseconds for an answer besides those that a removal may wait. */
const REST_MS = 10_000;
/** Milliseconds for an answer. */
const LIMIT_MS = DRAIN_MS_MAX + REST_MS;
const ROUTE = "/v1/endpoints";
/** Of a device that is taken from a VMM. */
const NO_DEVICE = "no device of the host yet";

/** Changes what is behind the IOMMU. */
export const endpoint: Command = {
  name: "endpoint",
  summary: "add devices behind the IOMMU of a running serve, remove and list them",
  usage: [
    "list --api-socket PATH [--json]",
    "add --api-socket PATH OPTION",
    "remove --api-socket PATH ENDPOINT [--timeout-ms N]",
  ],
  description: `Asks a running "viommu serve --api-socket PATH"; "add" and "remove" need its
    --api-access full. What the guest is told of the IOMMU stays as it is: an endpoint is a
    place for a device, as a slot is.`,
  actions: {
    title: "What to do",
    list: [
      { word: "list", help: "what is served behind the IOMMU" },
      {
        word: "add",
        takes: "OPTION",
        help:
          "serve one more, and print what QEMU's monitor has to be told; OPTION is what serve takes, one of " +
          "those below, once; paths are as serve sees them, relative ones from where it was started",
      },
      {
        word: "remove",
        takes: "ENDPOINT",
        operand: "ENDPOINT",
        help:
          "take nothing more from its guest, wait for what it has taken, at most so long, then close its " +
          "connections and remove its sockets; let the guest give the device back first (QEMU's device_del)",
      },
    ],
  },
  options: [{
    title: "What to add",
    options: ENDPOINT_DEFINITIONS.map((definition) => ({ ...definition, actions: ["add"] })),
  }, {
    title: "Options",
    options: [
      { name: "api-socket", value: "PATH", help: "where serve answers" },
      {
        name: "timeout-ms",
        value: "N",
        help: `milliseconds to wait for what is under way, 0 to ${DRAIN_MS_MAX} (default 5000)`,
        actions: ["remove"],
      },
      { name: "json", help: "the JSON of the API instead of text" },
    ],
  }],
  ending: `
Examples:
  viommu endpoint add --api-socket api.sock \\
    --endpoint-device blk:01:00.0,socket=/tmp/blk.sock,file=/tmp/disk.img
  viommu endpoint remove --api-socket api.sock 01:00.0

Exit code 1 if nothing answers, or it is refused.
`,
  async run({ action, operand, values }, streams) {
    const path = parsedOption(values, "api-socket", SOCKET_PATH.read, SOCKET_PATH.form);
    if (path === undefined) {
      throw new UsageError("Cannot ask without --api-socket PATH, as given to serve");
    }
    const act = actionOf(action, operand, values);
    using client = new ApiClient(path, LIMIT_MS);
    const { answer, text } = await act(client, path);
    await streams.write(`${values["json"] === true ? JSON.stringify(answer, null, 2) : text}\n`);
    return 0;
  },
};

/** What a running device answers, and how that reads. */
interface Outcome {
  readonly answer: unknown;
  readonly text: string;
}

/** What is asked, of whom, by the path of its socket. */
type Action = (client: ApiClient, path: string) => Promise<Outcome>;

/** What is to be done. All that is wrong with the arguments is found here. */
function actionOf(action: string, operand: string, values: OptionValues): Action {
  if (action === "add") return adding(values);
  return action === "remove" ? removing(operand, values) : list;
}

async function list(client: ApiClient): Promise<Outcome> {
  const answer = await client.get<readonly ServedEndpointState[]>(ROUTE);
  const text = answer.length === 0 ? "nothing is served behind the IOMMU" : answer.map(lineOf);
  return { answer, text: typeof text === "string" ? text : text.join("\n") };
}

/** `blk    00:05.0  /tmp/blk.sock, connected`, `vfio   00:04.0  0000:01:00.0 of the host, bound by the VMM, in bypass`. */
function lineOf(state: ServedEndpointState): string {
  const { endpoint, kind, listen, backEnd, connected, hostDevice, leaving } = state;
  return `${kind.padEnd(6)} ${endpointText(endpoint)}  ` +
    (listen === undefined
      ? hostDevice === undefined ? NO_DEVICE : hostDeviceText(hostDevice)
      : listen + (backEnd === undefined ? "" : `, back end ${backEnd}`) +
        (connected ? ", connected" : ", not connected")) +
    (leaving === true ? ", being removed" : "");
}

/** The one that the options name. */
function adding(values: OptionValues): Action {
  const given = ADDED.flatMap((name) =>
    textOptions(values, name).map((text) => [name, text] as const)
  );
  if (given.length !== 1) {
    throw new UsageError(
      `Cannot add ${given.length} endpoints: give one of ${
        ADDED.map((each) => `--${each}`).join(", ")
      }`,
    );
  }
  const [name, text] = given[0];
  const [choice] = parseEndpointChoices(values);
  const { sent } = choice;
  if (sent === undefined) {
    return async (client) => {
      const answer = await client.post<ServedEndpointState>(ROUTE, { [name]: text });
      return { answer, text: addedText(answer, choice) };
    };
  }
  return async (_, path) => {
    const answer = await postDescriptors<ServedEndpointState>({
      path,
      route: ROUTE,
      value: { [name]: sent.text },
      descriptors: inheritedNumbers(sent),
      limit: LIMIT_MS,
    });
    return { answer, text: addedText(answer, choice) };
  };
}

/** Sees that there are such descriptors. */
function inheritedNumbers({ numbers }: SentChoice): readonly number[] {
  const inherited = new InheritedDescriptors();
  try {
    return numbers.map((each) => inherited.numberOf(each));
  } catch (error) {
    if (error instanceof RangeError) throw new CommandError(error.message);
    throw error;
  }
}

/** What was added, and how a running QEMU gets it. */
function addedText(state: ServedEndpointState, { qemuArguments }: EndpointChoice): string {
  const { kind, endpoint, listen, hostDevice } = state;
  const what = `${kind} ${endpointText(endpoint)}`;
  // A running QEMU has a device of the host before it is added here.
  if (listen === undefined) {
    return `${what} is added: ${hostDevice === undefined ? NO_DEVICE : hostDeviceText(hostDevice)}`;
  }
  const served = `${what} is served on ${listen}`;
  if (qemuArguments.length === 0) return served;
  const bus = endpoint >>> 8 & 0xff;
  const commands = qemuArguments.map((line) =>
    line.replace(/^-chardev /, "chardev-add ").replace(/^-device /, "device_add ")
      .replace(/,addr=/, `,id=dev${endpoint}${bus === 0 ? "" : ",bus=PORT"},addr=`)
  );
  return [
    `${served}; for QEMU's monitor${
      bus === 0 ? "" : `, PORT being the port above bus ${bus.toString(16).padStart(2, "0")}`
    }:`,
    ...commands.map((line) => `  ${line}`),
  ].join("\n");
}

/** The removal of one. */
function removing(which: string, values: OptionValues): Action {
  const id = parseText("ENDPOINT", which, parseEndpoint, ENDPOINT_FORM);
  const milliseconds = parsedOption(
    values,
    "timeout-ms",
    (text) => parseNumber(text, DRAIN_MS_MAX),
    `milliseconds from 0 to ${DRAIN_MS_MAX}`,
  );
  const query = milliseconds === undefined ? "" : `?timeout-ms=${milliseconds}`;
  return async (client) => {
    const answer = await client.delete<RemovalState>(`${ROUTE}/${id}${query}`);
    const end = answer.drained ? "" : " before all that it had taken was done";
    return { answer, text: `${endpointText(id)} is removed${end}` };
  };
}
