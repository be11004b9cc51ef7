/**
 * A bar chart as SVG: one bar for each value, with its text.
 *
 * @module
 */

/** One bar. */
export interface Bar {
  readonly label: string;
  readonly value: number;
  /** The text behind the bar. */
  readonly text: string;
  /** Whether to highlight it. */
  readonly isOurs: boolean;
}

/** Pixels. */
const LABEL_WIDTH = 300;
const BAR_WIDTH = 320;
const ROW_HEIGHT = 26;
const TOP = 40;

/** Draws bars below a title, on one scale from 0. */
export function barChart(title: string, bars: readonly Bar[]): string {
  const largest = Math.max(...bars.map((bar) => bar.value));
  const width = LABEL_WIDTH + BAR_WIDTH + 120;
  const height = TOP + bars.length * ROW_HEIGHT + 10;
  const rows = bars.map((bar, i) => {
    const y = TOP + i * ROW_HEIGHT;
    const length = Math.max(1, bar.value / largest * BAR_WIDTH).toFixed(1);
    return [
      `<text x="${LABEL_WIDTH - 8}" y="${y + 15}" text-anchor="end">${escape(bar.label)}</text>`,
      `<rect x="${LABEL_WIDTH}" y="${y + 2}" width="${length}" height="18" fill="${
        bar.isOurs ? "#2f6fb0" : "#a9a9a9"
      }"/>`,
      `<text x="${LABEL_WIDTH + Number(length) + 6}" y="${y + 15}">${escape(bar.text)}</text>`,
    ].join("\n");
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
    `font-family="sans-serif" font-size="13">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    `<text x="10" y="22" font-size="15" font-weight="bold">${escape(title)}</text>`,
    ...rows,
    "</svg>",
    "",
  ].join("\n");
}

/** Escapes text for SVG. */
function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
