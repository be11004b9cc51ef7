/**
 * The I/O address space as a map that can be zoomed.
 *
 * It is drawn on a canvas, for 1024 elements a frame are too many; what is under the cursor is said in text below it, and
 * every mapping is in the list, so nothing depends on seeing the picture.
 */
/// <reference lib="dom" />
import type { VNode } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { MMIO, PAGE_SIZE, READ, WRITE } from "../../../pagetable/mod.ts";
import { addressText, rangeText, sizeText } from "../../address.ts";
import {
  cellFirst,
  cellOf,
  cellPages,
  CELLS,
  cells,
  COLUMNS,
  type MapCell,
  type Mapping,
  mappingAt,
  type MapView as View,
  ROWS,
  SPACE_PAGES,
  viewAround,
  viewOf,
  WHOLE,
} from "./address_map.ts";

/** Size of a cell in CSS pixels. */
const CELL_WIDTH = 12;
const CELL_HEIGHT = 14;
/** How much closer a step of zooming is. */
const ZOOM = 4;
/** Mappings in the list at most. */
const LISTED = 100;

/** The map of `mappings`. `onWalk` is called with a page that was chosen. */
export function MapView(
  { mappings, reserved, onWalk }: {
    readonly mappings: readonly Mapping[];
    readonly reserved: { readonly firstPage: number; readonly lastPage: number };
    readonly onWalk: (page: number) => void;
  },
): VNode {
  const [view, setView] = useState<View>(() => {
    const last = mappings.at(-1);
    return last === undefined ? WHOLE : viewOf(mappings[0].first, last.last);
  });
  const [cursor, setCursor] = useState(0);
  const canvas = useRef<HTMLCanvasElement>(null);
  const found = cells(view, mappings, reserved);

  useLayoutEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const paint = () => draw(canvas.current!, found, cellPages(view), cursor);
    paint();
    dark.addEventListener("change", paint);
    return () => dark.removeEventListener("change", paint);
  });

  /** Shows a part of the space that holds a page, with the cursor on it. */
  function show(page: number, next: View): void {
    setView(next);
    setCursor(Math.max(0, cellOf(next, page)));
  }
  function zoom(cell: number, factor: number): void {
    const page = cellFirst(view, cell);
    show(page, viewAround(page, view.pages * factor));
  }
  function choose(cell: number): void {
    setCursor(cell);
    const first = cellFirst(view, cell);
    const last = first + cellPages(view) - 1;
    const within = mappings.find((each) => each.last >= first && each.first <= last);
    onWalk(within === undefined ? first : Math.max(first, within.first));
  }
  function showAll(): void {
    if (mappings.length === 0) return;
    show(mappings[0].first, viewOf(mappings[0].first, mappings[mappings.length - 1].last));
  }
  function onKeyDown(event: KeyboardEvent): void {
    const steps: Readonly<Record<string, number>> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -COLUMNS,
      ArrowDown: COLUMNS,
    };
    const step = steps[event.key];
    if (step !== undefined) setCursor(Math.min(Math.max(cursor + step, 0), CELLS - 1));
    else if (event.key === "+" || event.key === "=") zoom(cursor, 1 / ZOOM);
    else if (event.key === "-") zoom(cursor, ZOOM);
    else if (event.key === "Home") show(0, WHOLE);
    else if (event.key === "Enter" || event.key === " ") choose(cursor);
    else return;
    event.preventDefault();
  }
  /** The cell under the pointer. */
  function cellAt(event: MouseEvent): number {
    const { left, top, width, height } = canvas.current!.getBoundingClientRect();
    const column = Math.floor((event.clientX - left) / width * COLUMNS);
    const row = Math.floor((event.clientY - top) / height * ROWS);
    return Math.min(Math.max(row * COLUMNS + column, 0), CELLS - 1);
  }

  return (
    <>
      <p class="tools">
        <button type="button" onClick={() => show(0, WHOLE)}>Whole space</button>
        <button type="button" onClick={showAll}>All mappings</button>
        <button type="button" onClick={() => zoom(cursor, 1 / ZOOM)}>Zoom in</button>
        <button type="button" onClick={() => zoom(cursor, ZOOM)}>Zoom out</button>
        <span>
          <code>{rangeText(view.first, view.first + view.pages - 1)}</code>, a cell is{" "}
          {sizeText(cellPages(view) * PAGE_SIZE)}
        </span>
      </p>
      <canvas
        ref={canvas}
        width={COLUMNS * CELL_WIDTH}
        height={ROWS * CELL_HEIGHT}
        tabIndex={0}
        role="application"
        aria-label="Map of the I/O address space. Arrow keys move, plus and minus zoom, Enter walks."
        aria-describedby="cell"
        onKeyDown={onKeyDown}
        onClick={(event) => choose(cellAt(event))}
        onDblClick={(event) => zoom(cellAt(event), 1 / ZOOM)}
        onMouseMove={(event) => {
          // A browser reports a move, too, where the page has moved below a pointer that rests.
          if (event.movementX !== 0 || event.movementY !== 0) setCursor(cellAt(event));
        }}
        onWheel={(event) => {
          event.preventDefault();
          zoom(cellAt(event), event.deltaY < 0 ? 1 / ZOOM : ZOOM);
        }}
      />
      <p id="cell" aria-live="polite">{cellText(view, cursor, found[cursor], mappings)}</p>
      <p class="legend" aria-hidden="true">
        <i class="read" /> read <i class="write" /> write <i class="both" /> read, write{" "}
        <i class="reserved" /> reserved
      </p>
      {mappings.length === 0
        ? <p>Nothing is mapped.</p>
        : (
          <ul class="mappings" aria-label="Mappings">
            {mappings.slice(0, LISTED).map((each) => (
              <li key={each.first}>
                <button
                  type="button"
                  class="link"
                  onClick={() => {
                    show(each.first, viewOf(each.first, each.last));
                    onWalk(each.first);
                  }}
                >
                  {mappingText(each)}
                </button>
              </li>
            ))}
            {mappings.length > LISTED && <li>and {mappings.length - LISTED} more</li>}
          </ul>
        )}
    </>
  );
}

function mappingText({ first, last, frame, protection }: Mapping): string {
  return `${rangeText(first, last)} to ${addressText(frame)} ${protectionText(protection)}`;
}

function protectionText(protection: number): string {
  return ((protection & READ) !== 0 ? "r" : "") + ((protection & WRITE) !== 0 ? "w" : "") +
    ((protection & MMIO) !== 0 ? "m" : "");
}

/** What is in a cell, in words. */
function cellText(view: View, at: number, cell: MapCell, mappings: readonly Mapping[]): string {
  const first = cellFirst(view, at);
  const pages = cellPages(view);
  const range = rangeText(first, first + pages - 1);
  const reserved = cell.reserved === 0 ? "" : `, ${cell.reserved} of ${pages} pages reserved`;
  if (cell.mappings === 0) return `${range}: nothing mapped${reserved}`;
  const one = cell.mappings === 1 ? mappingAt(mappings, first) : undefined;
  if (one !== undefined && cell.mapped === pages) {
    const frame = addressText(one.frame + first - one.first);
    return `${range}: mapped to ${frame} ${protectionText(one.protection)}${reserved}`;
  }
  const count = cell.mappings === 1 ? "1 mapping" : `${cell.mappings} mappings`;
  return `${range}: ${count}, ${cell.mapped} of ${pages} pages, ` +
    `${protectionText(cell.protection)}${reserved}`;
}

/** Draws the cells in the colours of the style sheet. */
function draw(
  canvas: HTMLCanvasElement,
  found: readonly MapCell[],
  pages: number,
  cursor: number,
): void {
  const context = canvas.getContext("2d");
  if (context === null) return;
  const style = getComputedStyle(canvas);
  const colour = (name: string) => style.getPropertyValue(name);
  const byProtection = ["", colour("--read"), colour("--write"), colour("--both")];
  context.clearRect(0, 0, canvas.width, canvas.height);
  found.forEach(({ mapped, protection, reserved }, at) => {
    const x = at % COLUMNS * CELL_WIDTH;
    const y = Math.floor(at / COLUMNS) * CELL_HEIGHT;
    context.fillStyle = colour("--hole");
    context.fillRect(x, y, CELL_WIDTH - 1, CELL_HEIGHT - 1);
    // A part that is smaller than a pixel is drawn as one.
    const bars = [[reserved, colour("--reserved")], [
      mapped,
      byProtection[protection & 3],
    ]] as const;
    for (const [part, fill] of bars) {
      if (part === 0) continue;
      const height = Math.max(2, Math.round(part / pages * (CELL_HEIGHT - 1)));
      context.fillStyle = fill;
      context.fillRect(x, y + CELL_HEIGHT - 1 - height, CELL_WIDTH - 1, height);
    }
    if (at !== cursor) return;
    context.strokeStyle = colour("--cursor");
    context.lineWidth = 2;
    context.strokeRect(x, y, CELL_WIDTH - 1, CELL_HEIGHT - 1);
  });
}

/** Bytes of the whole space as text, for the heading. */
export const SPACE_TEXT: string = `${sizeText(SPACE_PAGES * PAGE_SIZE)}iB`;
