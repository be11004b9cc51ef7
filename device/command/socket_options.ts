/** Options about access to the sockets that `serve` makes. */
import { parseNumber } from "../address.ts";
import { groupNumber, type SocketAccess } from "../host/mod.ts";
import { type OptionDefinition, type OptionValues, parsedOption } from "./options.ts";

/** How they are given. */
export const SOCKET_OPTIONS: readonly OptionDefinition[] = [{
  name: "socket-mode",
  value: "MODE",
  help:
    "permission bits, in octal, of the vhost-user sockets that are made here, those of devices behind the IOMMU " +
    "included (default: what the umask leaves; 660 with --socket-group)",
}, {
  name: "socket-group",
  value: "GROUP",
  help: "their group, by name or number",
}, {
  name: "api-socket-mode",
  value: "MODE",
  help: "likewise for the API socket (default 600; 660 with --api-socket-group)",
}, {
  name: "api-socket-group",
  value: "GROUP",
  help: "likewise for the API socket",
}];

/** Mode of a socket that a group is named for. */
const GROUP_MODE = 0o660;
/** Mode of the API socket: a client sees everything about the guest's memory map. */
const API_MODE = 0o600;

/** Who may connect to the vhost-user sockets. */
export function socketAccess(values: OptionValues): SocketAccess {
  return accessOf(values, "socket", undefined);
}

/** Who may connect to the API socket. */
export function apiSocketAccess(values: OptionValues): SocketAccess {
  return accessOf(values, "api-socket", API_MODE);
}

function accessOf(values: OptionValues, name: string, usual: number | undefined): SocketAccess {
  const group = parsedOption(
    values,
    `${name}-group`,
    parseGroup,
    "a group that this host has, by name or number",
  );
  const mode = parsedOption(values, `${name}-mode`, parseMode, "octal permissions such as 660") ??
    (group === undefined ? usual : GROUP_MODE);
  return {
    ...(mode === undefined ? {} : { mode }),
    ...(group === undefined ? {} : { group }),
  };
}

/** Permission bits in octal. */
function parseMode(text: string): number | undefined {
  return /^0?[0-7]{3}$/.test(text) ? parseInt(text, 8) : undefined;
}

/** A group's number, given so or by name. */
function parseGroup(text: string): number | undefined {
  return parseNumber(text, 0xfffffffe) ?? (text === "" ? undefined : groupNumber(text));
}
