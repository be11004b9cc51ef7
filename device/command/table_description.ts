/**
 * Descriptions in JSON, looked through before anything is built from them or walked: what is wrong is named by its place,
 * such as `domains[0].mappings[7].iova`.
 */
import { PAGE_SIZE } from "../address.ts";
import { closestName } from "./closest_name.ts";
import { CommandError } from "./errors.ts";

/** What is wrong, and the place of it below the value that was looked at. */
interface Problem {
  readonly place: string;
  readonly text: string;
}

/** Looks at a value; undefined if nothing is wrong with it. */
type Check = (value: unknown) => Problem | undefined;

/** The members of an object. */
interface Members {
  /** Those that must be there. */
  readonly needed: Readonly<Record<string, Check>>;
  /** Those that may be. */
  readonly optional?: Readonly<Record<string, Check>>;
  /** Whether others may be there, too. */
  readonly isOpen?: boolean;
}

const LIMIT = 1n << 64n;

/** Anything. */
const anything: Check = () => undefined;
const number: Check = (value) => numberProblem(value, 1);
const pages: Check = (value) => numberProblem(value, PAGE_SIZE);
const flag: Check = (value) =>
  typeof value === "boolean" ? undefined : wrong(value, "it must be true or false");

const MAPPING = object({
  needed: { iova: pages, phys: pages, length: pages, prot: oneOf("r", "w", "rw") },
  optional: { mmio: flag },
});
const ENDPOINT = object({
  needed: { sid: number },
  optional: { pasid: number, domain: number, bypass: flag },
});
const DOMAIN = object({
  needed: { id: number },
  optional: { mappings: list(MAPPING), stage2: list(MAPPING) },
});
const REGISTERS = { rtaddr: number, strtab_base: number, strtab_cfg: number, devtab: number };
const PARAMETERS = {
  mode: oneOf("legacy", "scalable"),
  levels: number,
  granule: oneOf("4K", "16K", "64K"),
  iaBits: number,
  oaBits: number,
  streamTable: oneOf("linear", "2-level"),
};
/** What `build` reads; what it has written, and questions, may be in it. */
const DESCRIPTION = object({
  needed: { format: anything, base: pages },
  optional: {
    ...PARAMETERS,
    ...REGISTERS,
    domains: list(DOMAIN),
    endpoints: list(ENDPOINT),
    mem: anything,
    queries: anything,
  },
});
const QUERY = object({
  needed: { iova: number, sid: number, access: oneOf("r", "w") },
  optional: { pasid: number },
  isOpen: true,
});
/** What `walk` and `dump` read of a description. */
const TABLES = object({
  needed: { format: anything },
  optional: { ...REGISTERS, queries: list(QUERY) },
  isOpen: true,
});

/**
 * Looks through what `build` reads.
 *
 * @throws {CommandError} If something is wrong with it.
 */
export function checkDescription(value: unknown): void {
  check(DESCRIPTION, value, "Cannot build");
}

/**
 * Looks through what `walk` and `dump` read; the tables themselves excepted.
 *
 * @param action Such as "Cannot walk".
 * @throws {CommandError} If something is wrong with it.
 */
export function checkTables(value: unknown, action: string): void {
  check(TABLES, value, action);
  const { format } = value as { readonly format: unknown };
  for (const register of registersOf(format)) {
    if (Object.hasOwn(value as object, register)) continue;
    throw new CommandError(
      `${action}: ${register} is missing, which tables of ${format} begin with`,
    );
  }
}

/** The registers that lead to the tables of a format. */
function registersOf(format: unknown): readonly string[] {
  if (typeof format !== "string") return [];
  if (format.startsWith("vtd")) return ["rtaddr"];
  if (format.startsWith("smmuv3")) return ["strtab_base", "strtab_cfg"];
  return format === "amdv1" ? ["devtab"] : [];
}

function check(form: Check, value: unknown, action: string): void {
  const problem = form(value);
  if (problem === undefined) return;
  const place = problem.place === "" ? "the input" : problem.place.replace(/^\./, "");
  throw new CommandError(`${action}: ${place} ${problem.text}`);
}

/** An object of some members. */
function object({ needed, optional = {}, isOpen = false }: Members): Check {
  const all: Readonly<Record<string, Check>> = { ...needed, ...optional };
  const names = Object.keys(needed);
  return (value) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return wrong(value, "it must be a JSON object");
    }
    const members = value as Readonly<Record<string, unknown>>;
    for (const name of names) {
      if (Object.hasOwn(members, name)) continue;
      const other = isOpen
        ? undefined
        : Object.keys(members).find((each) => !Object.hasOwn(all, each));
      if (other !== undefined) return unknownName(other, Object.keys(all));
      return { place: `.${name}`, text: "is missing" };
    }
    for (const name of Object.keys(members)) {
      if (Object.hasOwn(all, name)) {
        const problem = all[name](members[name]);
        if (problem !== undefined) return { ...problem, place: `.${name}${problem.place}` };
      } else if (!isOpen) {
        return unknownName(name, Object.keys(all));
      }
    }
    return undefined;
  };
}

/** A list of the same. */
function list(form: Check): Check {
  return (value) => {
    if (!Array.isArray(value)) return wrong(value, "it must be a list");
    for (const [i, item] of value.entries()) {
      const problem = form(item);
      if (problem !== undefined) return { ...problem, place: `[${i}]${problem.place}` };
    }
    return undefined;
  };
}

/** One of some words. */
function oneOf(...words: readonly string[]): Check {
  return (value) =>
    words.some((word) => word === value)
      ? undefined
      : wrong(value, `it must be ${words.slice(0, -1).join(", ")} or ${words.at(-1)}`);
}

/** What is wrong with a value that must be a number, a multiple of another. */
function numberProblem(value: unknown, unit: number): Problem | undefined {
  const isNumber = typeof value === "number"
    ? Number.isSafeInteger(value) && value >= 0
    : typeof value === "string" && /^(0x[0-9a-f]+|[0-9]+)$/i.test(value);
  if (!isNumber) return wrong(value, 'it must be a number, or a text such as "0x1000"');
  const read = Number(value);
  // What a number does not hold exactly is read as a bigint, which takes longer.
  const isExact = Number.isSafeInteger(read);
  const exact = isExact ? 0n : BigInt(value as number | string);
  if (exact >= LIMIT) return wrong(value, "it must be below 2^64");
  return (isExact ? read % unit === 0 : exact % BigInt(unit) === 0n)
    ? undefined
    : wrong(value, `it must be a multiple of ${unit}`);
}

/** What is wrong with a name that no member has. */
function unknownName(name: string, names: readonly string[]): Problem {
  const meant = closestName(name, names);
  const right = meant === undefined ? `only ${names.join(", ")}` : `did you mean ${meant}?`;
  return { place: "", text: `has no ${JSON.stringify(name)}: ${right}` };
}

/** A value and what would be right; a long one is cut. */
function wrong(value: unknown, right: string): Problem {
  const text = JSON.stringify(value);
  return { place: "", text: `is ${text.length > 40 ? `${text.slice(0, 40)}…` : text}: ${right}` };
}
