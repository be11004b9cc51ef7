/** Fields of forms: addresses, choices, and what is wrong with a text. */
/// <reference lib="dom" />
import type { VNode } from "preact";
import { PAGE_SIZE } from "../../../pagetable/mod.ts";
import { type Address, endpointText, parseAddress } from "../../address.ts";

/** What can be chosen, in the order in which it is shown; the first is chosen at the start. */
export type Options = readonly (readonly [value: string, text: string])[];

/** A field for text with its label. */
export function TextField(
  { name, label, value }: { readonly name: string; readonly label: string; readonly value: string },
): VNode {
  return (
    <label>
      {label}
      <input name={name} defaultValue={value} autocomplete="off" spellcheck={false} size={14} />
    </label>
  );
}

/** A choice of one with its label; values are texts. */
export function Choice(
  { name, label, options, value, onChange }: {
    readonly name: string;
    readonly label: string;
    readonly options: Options;
    readonly value?: string;
    readonly onChange?: (value: string) => void;
  },
): VNode {
  return (
    <label>
      {label}
      <select
        name={name}
        {...(value === undefined ? {} : { value })}
        onChange={(event) => onChange?.(event.currentTarget.value)}
      >
        {options.map(([key, text]) => <option key={key} value={key}>{text}</option>)}
      </select>
    </label>
  );
}

/** What a form holds: the text of a field. */
export function textOf(form: HTMLFormElement, name: string): string {
  return String(new FormData(form).get(name) ?? "");
}

/**
 * A byte address.
 *
 * @throws {RangeError} If the text is none, in a line.
 */
export function addressOf(text: string): Address {
  const address = parseAddress(text.trim());
  if (address !== undefined) return address;
  throw new RangeError(`"${text}" is no address: give 0x… or decimal digits, below 2^64`);
}

/** A byte address as a `bigint`, as requests have it; throws as {@linkcode addressOf}. */
export function bytesOf(text: string): bigint {
  const { page, offset } = addressOf(text);
  return BigInt(page) * BigInt(PAGE_SIZE) + BigInt(offset);
}

/** Endpoints as options of a {@linkcode Choice}. */
export function endpointOptions(
  endpoints: readonly { readonly id: number; readonly name: string }[],
): Options {
  return endpoints.map(({ id, name }) => [`${id}`, `${endpointText(id)} (${name})`]);
}
