/** Parameters of requests: from text to values, or the error that says what is wrong. */
import { READ, WRITE } from "../../pagetable/mod.ts";
import { ApiError } from "./context.ts";

/** Characters of a wrong value that an error shows. */
const SHOWN = 100;

/** A query parameter, parsed, or the error that says what it must be. */
export function parameter<T>(
  name: string,
  text: string | null,
  parse: (text: string) => T | undefined,
  form: string,
): T {
  if (text === null) throw new ApiError(400, `Parameter ${name} is missing: it must be ${form}`);
  const value = parse(text);
  if (value === undefined) {
    const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}...` : text;
    throw new ApiError(400, `Cannot take ${name}=${shown}: it must be ${form}`);
  }
  return value;
}

/** `r` or `w` as a protection bit. */
export function parseAccess(text: string): number | undefined {
  return text === "r" ? READ : text === "w" ? WRITE : undefined;
}
