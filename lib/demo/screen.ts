import { type Curve, drawChart } from "./chart.js";
import type { Each } from "./race.js";
import { type Measurement, NAMES } from "./report.js";
import { ALGORITHMS } from "./settings.js";

/** Where the demo is seen: a terminal or any stream. */
export interface DemoStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

export interface ChartState {
  /** Generations at the right edge. */
  right: number;
  /** The self-teacher's accuracy. */
  teacher: number;
  step: number;
  steps: number;
}

const STYLE = { sdpo: { mark: "*", color: 36 }, grpo: { mark: "o", color: 33 } };
const ROWS = 13;
const WIDEST = 78;
/** Narrower terminals would break the chart's lines. */
export const CHART_COLUMNS = 72;

/** A stream that holds lines, and on a terminal one chart that is drawn again in its place. */
export class Screen {
  readonly #out: DemoStream;
  readonly #plain: boolean;
  #drawn = 0;

  constructor(out: DemoStream, plain: boolean) {
    this.#out = out;
    this.#plain = plain;
  }

  /** Lines that stay, on every kind of stream. */
  print(...lines: string[]): void {
    this.#out.write(`${lines.join("\n")}\n`);
  }

  /** A line for streams without a chart. */
  line(text: string): void {
    if (this.#plain) this.print(text);
  }

  /** Draws the chart over the one before. */
  chart(curves: Each<readonly Measurement[]>, state: ChartState): void {
    if (this.#plain) return;
    const columns = Math.min(WIDEST, (this.#out.columns ?? 80) - 1);
    const drawn = ALGORITHMS.map(
      (name): Curve => ({
        ...STYLE[name],
        points: curves[name].map(({ generations, accuracy }) => ({ x: generations, y: accuracy })),
      }),
    );
    const { right, teacher, step, steps } = state;
    const chart = drawChart(drawn, { right, columns, rows: ROWS, color: true, level: teacher });
    const lines = ["held-out accuracy without feedback  (.... the self-teacher)", ...chart];
    const status = `${legend(curves)}   step ${step}/${steps}`;
    const back = this.#drawn > 0 ? `\x1b[${this.#drawn}A` : "";
    const all = [...lines, status];
    this.#out.write(`${back}${all.map((line) => `\r\x1b[2K${line}\n`).join("")}`);
    this.#drawn = all.length;
  }

  /** Leaves the chart as it is; what follows stands below it. */
  endChart(): void {
    this.#drawn = 0;
  }
}

function legend(curves: Each<readonly Measurement[]>): string {
  return ALGORITHMS.map((name) => {
    const { mark, color } = STYLE[name];
    return `\x1b[${color}m${mark} ${NAMES[name]} ${curves[name].at(-1)!.accuracy.toFixed(3)}\x1b[0m`;
  }).join("   ");
}
