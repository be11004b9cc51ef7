/**
 * Options of several parts, `HEAD,NAME=VALUE,NAME,…`: an option describes its parts, and is read here.
 *
 * What is wrong with a text is said in one line that names the option, the part and what would be right. Parts come in
 * any order, each once. A value is not empty and has no comma; it may have an equals sign.
 */
import { parseEndpoint, parseNumber } from "../address.ts";
import { LONGEST_SOCKET_PATH } from "../host/socket_address.ts";
import { closestName } from "./closest_name.ts";
import { UsageError } from "./errors.ts";

/** What a text must look like, and how it is read. */
export interface TextForm<T> {
  /** What it must look like, with an example where that helps; it is put behind "must be". */
  readonly form: string;
  /** Its value; undefined for a text of another form. */
  read(text: string): T | undefined;
}

/** One part. Without a form it is a name alone: true where it is given. */
export interface Part<T> {
  /** The form of its value. */
  readonly form?: TextForm<T>;
  /** Its value where it is not given; a part without this must be given. */
  readonly standard?: { readonly value: T };
}

/** The parts of an option, by name. */
export type Parts = Readonly<Record<string, Part<unknown>>>;

/** The values of parts, by name. */
export type PartValues<P extends Parts> = {
  readonly [N in keyof P]: P[N] extends Part<infer T> ? T : never;
};

/** An option of several parts. */
export interface PartedOption<H, P extends Parts> {
  /** Its name, dashes included. */
  readonly name: string;
  /** What it begins with. */
  readonly head: TextForm<H>;
  /** What may follow. */
  readonly parts: P;
}

/** A part that must be given. */
export function required<T>(form: TextForm<T>): Part<T> {
  return { form };
}

/** A part that has a value of its own where it is not given. */
export function optional<T, const S extends T | undefined>(
  form: TextForm<T>,
  standard: S,
): Part<T | S> {
  return { form, standard: { value: standard } };
}

/** A part that is a name alone. */
export const FLAG: Part<boolean> = { standard: { value: false } };

/** An endpoint. */
export const ENDPOINT: TextForm<number> = {
  form: "an endpoint such as 00:03.0",
  read: parseEndpoint,
};

/** A path of a socket. */
export const SOCKET_PATH: TextForm<string> = {
  form: `the path of a socket, of at most ${LONGEST_SOCKET_PATH} bytes`,
  read(text) {
    const bytes = new TextEncoder().encode(text);
    return bytes.length > LONGEST_SOCKET_PATH || bytes.includes(0) ? undefined : text;
  },
};

/** One of some words. */
export function oneOf<T extends string>(...words: readonly T[]): TextForm<T> {
  return {
    form: words.length > 2 ? `one of ${words.join(", ")}` : words.join(" or "),
    read: (text) => words.find((word) => word === text),
  };
}

/** A whole number of an inclusive range. */
export function numberFrom(first: number, last: number): TextForm<number> {
  return {
    form: `a number from ${first} to ${last}`,
    read(text) {
      const number = parseNumber(text, last);
      return number === undefined || number < first ? undefined : number;
    },
  };
}

/**
 * Reads the text of an option.
 *
 * @throws {UsageError} If it is wrong.
 */
export function parseParts<H, P extends Parts>(
  { name: option, head, parts }: PartedOption<H, P>,
  text: string,
): readonly [head: H, values: PartValues<P>] {
  function refuse(problem: string): never {
    throw new UsageError(`Cannot take ${option} ${text}: ${problem}`);
  }
  const [first, ...rest] = text.split(",");
  const begin = head.read(first);
  if (begin === undefined) refuse(`it must begin with ${head.form}`);
  const values = new Map<string, unknown>();
  for (const item of rest) {
    const [name] = item.split("=", 1);
    if (!Object.hasOwn(parts, name)) refuse(unknownPart(name, parts));
    if (values.has(name)) refuse(`${spelling(name, parts)} is given twice`);
    const value = item === name ? undefined : item.slice(name.length + 1);
    const { form } = parts[name];
    if (form === undefined && value !== undefined) refuse(`${name} takes no value`);
    if (form !== undefined && !value) refuse(`${name} has no value: it must be ${form.form}`);
    const read = form === undefined || value === undefined ? true : form.read(value);
    if (read === undefined) refuse(`${name} must be ${form?.form}`);
    values.set(name, read);
  }
  for (const [name, { form, standard }] of Object.entries(parts)) {
    if (values.has(name)) continue;
    if (standard === undefined) {
      refuse(`${spelling(name, parts)} is missing: it must be ${form?.form}`);
    }
    values.set(name, standard.value);
  }
  return [begin, Object.fromEntries(values) as PartValues<P>];
}

/** How a part is written: `readonly`, `socket=…`. */
function spelling(name: string, parts: Parts): string {
  return parts[name].form === undefined ? name : `${name}=…`;
}

/** What is wrong with a name that no part has. */
function unknownPart(name: string, parts: Parts): string {
  const names = Object.keys(parts);
  const meant = closestName(name, names);
  if (meant !== undefined) {
    return `there is no part "${name}", did you mean ${spelling(meant, parts)}?`;
  }
  const all = names.map((each) => spelling(each, parts)).join(", ");
  return name === ""
    ? `a part has no name, it must be one of ${all}`
    : `there is no part "${name}", only ${all}`;
}
