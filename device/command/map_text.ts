/**
 * The I/O address space of a domain as a picture for a terminal: rows of 64 cells, each cell the same number of pages.
 *
 * A row covers as few pages as possible so that all rows in which something is mapped fit; rows without mappings are left
 * out, and the gap is named. A cell says how much of it is mapped, and in colour how.
 */
import { addressText, PAGE_SIZE, parseAddress } from "../address.ts";

/** Cells of a row, and the power of two that this is. */
const CELLS = 64;
const CELLS_SHIFT = 6;
/** Rows of a picture at most. */
const ROWS = 24;
/** Bits of a page number. */
const PAGE_BITS = 52;
/** Cells of which nothing, less than half, more, or all is mapped. */
const SHADES = "·░▒█";
/** Colours of what a cell may be used for: read, write, both, and device memory. */
const COLOURS: Readonly<Record<string, number>> = { r: 32, w: 33, rw: 36, m: 35 };
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** What is mapped in a row. */
interface Row {
  readonly number: number;
  /** Mapped pages of each cell. */
  readonly pages: Float64Array;
  /** Flags of the last mapping in each cell. */
  readonly flags: string[];
}

/** The mappings of one domain, by ascending address. */
export class SpaceMap {
  readonly #firsts: number[] = [];
  readonly #lasts: number[] = [];
  readonly #flags: string[] = [];
  #mappings = 0;

  /** Adds a mapping behind those there are: first and last byte, and flags, as the API gives them. */
  add(iova: string, last: string, flags: string): void {
    const first = parseAddress(iova)!.page;
    const end = parseAddress(last)!.page;
    this.#mappings++;
    const at = this.#lasts.length - 1;
    if (at >= 0 && this.#lasts[at] === first - 1 && this.#flags[at] === flags) {
      this.#lasts[at] = end;
      return;
    }
    this.#firsts.push(first);
    this.#lasts.push(end);
    this.#flags.push(flags);
  }

  /** The picture, a line each. */
  lines(domain: number, isColoured: boolean): readonly string[] {
    const shift = this.#shift();
    const cell = 2 ** (shift - CELLS_SHIFT);
    const rows = this.#rows(shift, cell);
    const width = Math.max(0, ...rows.map(({ number }) => addressText(number * 2 ** shift).length));
    const lines = [
      `domain ${domain}: ${this.#mappings} mapping${this.#mappings === 1 ? "" : "s"}, a row is ${
        spanText(2 ** shift)
      }, ` +
      `a cell ${spanText(cell)}`,
    ];
    let next = 0;
    for (const row of rows) {
      if (row.number > next) lines.push(`  ${spanText((row.number - next) * 2 ** shift)} free`);
      next = row.number + 1;
      const cells = Array.from(
        row.pages,
        (pages, i) => cellText(pages / cell, row.flags[i], isColoured),
      );
      lines.push(`${addressText(row.number * 2 ** shift).padStart(width)} ${cells.join("")}`);
    }
    return lines;
  }

  /** The least power of two of pages in a row with which the picture has no more rows than fit. */
  #shift(): number {
    for (let shift = CELLS_SHIFT; shift < PAGE_BITS; shift++) {
      let count = 0;
      let last = -1;
      for (let i = 0; i < this.#firsts.length && count <= ROWS; i++) {
        const from = Math.max(last + 1, Math.floor(this.#firsts[i] / 2 ** shift));
        const to = Math.floor(this.#lasts[i] / 2 ** shift);
        count += Math.max(0, to - from + 1);
        last = Math.max(last, to);
      }
      if (count <= ROWS) return shift;
    }
    return PAGE_BITS;
  }

  #rows(shift: number, cell: number): readonly Row[] {
    const rows: Row[] = [];
    this.#firsts.forEach((first, i) => {
      for (let page = first; page <= this.#lasts[i];) {
        const number = Math.floor(page / 2 ** shift);
        if (rows.at(-1)?.number !== number) {
          rows.push({ number, pages: new Float64Array(CELLS), flags: new Array(CELLS).fill("") });
        }
        const row = rows.at(-1)!;
        const at = Math.floor(page / cell) % CELLS;
        const end = Math.min(this.#lasts[i], (Math.floor(page / cell) + 1) * cell - 1);
        row.pages[at] += end - page + 1;
        row.flags[at] = this.#flags[i];
        page = end + 1;
      }
    });
    return rows;
  }
}

/** What the shades and colours mean. */
export function mapLegend(isColoured: boolean): string {
  const shades = `${SHADES[0]} free, ${SHADES[1]} less than half mapped, ${SHADES[2]} more, ${
    SHADES[3]
  } all`;
  if (!isColoured) return shades;
  const colours = Object.entries(COLOURS).map(([flags, colour]) =>
    `\x1b[${colour}m${flags}\x1b[0m`
  );
  return `${shades}; ${colours.join(" ")}`;
}

/** A cell of which a part is mapped. */
function cellText(part: number, flags: string, isColoured: boolean): string {
  const shade = SHADES[part === 0 ? 0 : part < 0.5 ? 1 : part < 1 ? 2 : 3];
  if (!isColoured || part === 0) return shade;
  return `\x1b[${COLOURS[flags.includes("m") ? "m" : flags] ?? 0}m${shade}\x1b[0m`;
}

/** Pages as a size with a unit. */
function spanText(pages: number): string {
  let size = pages;
  let unit = 1;
  size *= PAGE_SIZE / 1024;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${Number.isInteger(size) ? size : size.toFixed(1)} ${UNITS[unit]}`;
}
