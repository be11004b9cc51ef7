/**
 * The I/O address space as a map: a grid of cells, each of which stands for the same number of pages.
 *
 * The whole space is too large to be drawn: 2^36 pages. A view shows a part of it that is a power of two, from
 * {@linkcode CELLS} pages, one in each cell, up to all of it. What a cell shows is counted from the mappings, so a mapping
 * of one page in 2^36 is seen, too.
 */
/** Cells in a row. */
export const COLUMNS = 64;
/** Rows. */
export const ROWS = 16;
/** Cells of the map. */
export const CELLS: number = COLUMNS * ROWS;
/** Pages of the whole space: 48 bits of addresses. */
export const SPACE_PAGES: number = 2 ** 36;

/** A mapping, in pages, both ends inclusive. */
export interface Mapping {
  readonly first: number;
  readonly last: number;
  /** Guest-physical frame of the first page. */
  readonly frame: number;
  /** An OR of `READ`, `WRITE` and `MMIO`. */
  readonly protection: number;
}

/** The part of the space that is shown. */
export interface MapView {
  /** First page, a multiple of {@linkcode MapView.pages}. */
  readonly first: number;
  /** How many pages, a power of two from {@linkcode CELLS} to {@linkcode SPACE_PAGES}. */
  readonly pages: number;
}

/** What is in a cell. */
export interface MapCell {
  /** Pages of it that are mapped. */
  mapped: number;
  /** An OR of the protections of its mappings. */
  protection: number;
  /** Mappings that reach into it. */
  mappings: number;
  /** Pages of it that the device reserves. */
  reserved: number;
}

/** The whole space. */
export const WHOLE: MapView = { first: 0, pages: SPACE_PAGES };

/** Pages that a cell stands for. */
export function cellPages(view: MapView): number {
  return view.pages / CELLS;
}

/** First page of a cell. */
export function cellFirst(view: MapView, cell: number): number {
  return view.first + cell * cellPages(view);
}

/** The cell of a page, or -1 if it is not in the view. */
export function cellOf(view: MapView, page: number): number {
  const cell = Math.floor((page - view.first) / cellPages(view));
  return cell >= 0 && cell < CELLS ? cell : -1;
}

/**
 * The view around a page.
 *
 * @param pages How many pages to show; taken to the nearest that a view can have.
 */
export function viewAround(page: number, pages: number): MapView {
  const shown = Math.min(Math.max(pages, CELLS), SPACE_PAGES);
  return { first: page - page % shown, pages: shown };
}

/** The smallest view that shows all of an inclusive range of pages. */
export function viewOf(first: number, last: number): MapView {
  let view = viewAround(first, CELLS);
  while (last >= view.first + view.pages) view = viewAround(first, view.pages * 2);
  return view;
}

/**
 * What is in each cell of a view.
 *
 * @param mappings By ascending address.
 * @param reserved An inclusive range of pages that cannot be mapped.
 */
export function cells(
  view: MapView,
  mappings: readonly Mapping[],
  reserved: { readonly firstPage: number; readonly lastPage: number },
): readonly MapCell[] {
  const found = Array.from(
    { length: CELLS },
    (): MapCell => ({ mapped: 0, protection: 0, mappings: 0, reserved: 0 }),
  );
  for (const { first, last, protection } of mappings) {
    eachCell(view, first, last, (cell, pages) => {
      found[cell].mapped += pages;
      found[cell].protection |= protection;
      found[cell].mappings++;
    });
  }
  eachCell(view, reserved.firstPage, reserved.lastPage, (cell, pages) => {
    found[cell].reserved += pages;
  });
  return found;
}

/** Calls `take` with each cell that an inclusive range of pages reaches into, and with how many of its pages. */
function eachCell(
  view: MapView,
  first: number,
  last: number,
  take: (cell: number, pages: number) => void,
): void {
  const size = cellPages(view);
  const from = Math.max(first, view.first);
  const to = Math.min(last, view.first + view.pages - 1);
  for (let page = from; page <= to;) {
    const cell = cellOf(view, page);
    const end = Math.min(to, cellFirst(view, cell) + size - 1);
    take(cell, end - page + 1);
    page = end + 1;
  }
}

/** The mapping that holds a page; of `mappings`, which are by ascending address. */
export function mappingAt(
  mappings: readonly Mapping[],
  page: number,
): Mapping | undefined {
  let low = 0;
  let high = mappings.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (mappings[middle].last < page) low = middle + 1;
    else high = middle;
  }
  const found = mappings[low];
  return found !== undefined && found.first <= page ? found : undefined;
}
