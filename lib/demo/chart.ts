/** Curves of accuracies from 0 to 1 as lines of text. */

export interface Curve {
  mark: string;
  /** An ANSI colour's number, such as 36 for cyan. */
  color: number;
  points: readonly { x: number; y: number }[];
}

export interface ChartOptions {
  /** The x of the right edge. */
  right: number;
  /** Characters across, the axis included; at least 20. */
  columns: number;
  /** Lines of the plot, without the axis below it. */
  rows: number;
  color: boolean;
  /** A y to mark with dots all along. */
  level?: number;
}

const MARGIN = 5;

/** The curve's y at x, straight between points; undefined beyond its ends. */
export function valueAt(points: Curve["points"], x: number): number | undefined {
  const next = points.findIndex((point) => point.x >= x);
  const b = points[next];
  if (b === undefined) return undefined;
  const a = points[next - 1];
  if (a === undefined) return b.x === x ? b.y : undefined;
  return a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x);
}

/** The chart's lines, top first, each at most `columns` wide; where curves meet, the first one is seen. */
export function drawChart(curves: readonly Curve[], options: ChartOptions): string[] {
  const { right, rows, color, level } = options;
  const columns = Math.max(20, options.columns) - MARGIN - 1;
  const rowOf = (y: number) => Math.round((1 - y) * (rows - 1));
  const cells = Array.from({ length: rows }, () => new Array<string>(columns).fill(" "));
  const put = (x: number, y: number, text: string) => {
    cells[rowOf(Math.min(1, Math.max(0, y)))]![x] = text;
  };
  for (let x = 0; x < columns; x++) {
    if (level !== undefined && x % 2 === 0) put(x, level, ".");
    for (const { mark, color: code, points } of [...curves].reverse()) {
      const y = valueAt(points, (x / (columns - 1)) * right);
      if (y !== undefined) put(x, y, color ? `\x1b[${code}m${mark}\x1b[0m` : mark);
    }
  }
  const labels = new Map([0, 0.5, 1].map((y) => [rowOf(y), y.toFixed(1)]));
  const lines = cells.map((row, i) => `${(labels.get(i) ?? "").padStart(MARGIN - 1)} |${row.join("")}`);
  const end = `${right.toLocaleString("en-US")} generations`;
  return [
    ...lines.map((line) => line.trimEnd()),
    `${" ".repeat(MARGIN)}+${"-".repeat(columns)}`,
    `${" ".repeat(MARGIN)}0${end.padStart(columns)}`,
  ];
}
