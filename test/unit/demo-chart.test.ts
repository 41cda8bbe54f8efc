import { describe, expect, test } from "vitest";
import { drawChart, valueAt } from "../../lib/demo/chart.js";
import { conclusion, summarizeRun, tableLines } from "../../lib/demo/report.js";
import { type DemoStream, Screen } from "../../lib/demo/screen.js";

const points = [
  { x: 0, y: 0 },
  { x: 10, y: 0.5 },
  { x: 20, y: 1 },
];

test("a curve is straight between its points and ends with them", () => {
  expect([0, 5, 10, 14, 20].map((x) => valueAt(points, x))).toEqual([0, 0.25, 0.5, 0.7, 1]);
  expect([valueAt(points, 20.1), valueAt([], 0), valueAt([{ x: 3, y: 1 }], 2)]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
});

describe("the chart", () => {
  const up = { mark: "*", color: 36, points };
  const half = {
    mark: "o",
    color: 33,
    points: [
      { x: 0, y: 0 },
      { x: 10, y: 0 },
    ],
  };
  const options = { right: 20, columns: 27, rows: 5, color: false };

  test("draws each curve as far as it goes, the first one on top", () => {
    expect(drawChart([up, half], options)).toEqual([
      " 1.0 |                  ***",
      "     |             *****",
      " 0.5 |        *****",
      "     |   *****",
      " 0.0 |***oooooooo",
      "     +---------------------",
      "     0       20 generations",
    ]);
  });

  test("marks a level, and colours marks where wanted", () => {
    const [top] = drawChart([], { ...options, level: 1 });
    expect(top).toBe(" 1.0 |. . . . . . . . . . .");
    expect(drawChart([up], { ...options, color: true })[4]).toBe(` 0.0 |${"\x1b[36m*\x1b[0m".repeat(3)}`);
  });

  test("values beyond 0 and 1, and few columns, stay inside", () => {
    const wild = {
      ...up,
      points: [
        { x: 0, y: -3 },
        { x: 20, y: 7 },
      ],
    };
    const lines = drawChart([wild], { ...options, columns: 1 });
    expect(lines).toHaveLength(7);
    expect(Math.max(...lines.map((line) => line.length))).toBe(20);
  });
});

test("a run is summed up by its last three measurements and by when it first got there", () => {
  const curve = [0, 0.5, 0.4, 0.92, 0.88, 0.84].map((accuracy, i) => ({ generations: 640 * i, accuracy }));
  const summary = summarizeRun(curve);
  expect(summary).toEqual({ final: expect.closeTo(0.88, 10), to50: 640, to90: 1920 });
  const poor = summarizeRun(curve.slice(0, 1));
  expect(poor).toEqual({ final: 0, to50: null, to90: null });
  expect(tableLines(0.01, { sdpo: summary, grpo: poor })).toEqual([
    "         before   generations to .5   to .9   at the end",
    "  SDPO    0.010                 640   1,920        0.880",
    "  GRPO    0.010               never   never        0.000",
  ]);
  expect(conclusion(3, 0.98, { sdpo: summary, grpo: poor })).toEqual([
    expect.stringMatching(
      /0\.980 .*SDPO reached 0\.9 after 1,920 generations and ended at 0\.880; GRPO did not/s,
    ),
    expect.stringContaining("--seed 4"),
  ]);
});

describe("the screen", () => {
  const curves = { sdpo: [{ generations: 0, accuracy: 0 }], grpo: [{ generations: 0, accuracy: 0 }] };
  const state = { right: 1280, teacher: 0.98, step: 1, steps: 10 };
  const show = (plain: boolean) => {
    let text = "";
    const out: DemoStream = { write: (more) => (text += more), isTTY: true, columns: 80 };
    const screen = new Screen(out, plain);
    screen.print("first");
    screen.line("a line");
    screen.chart(curves, state);
    screen.chart(curves, { ...state, step: 2 });
    screen.endChart();
    screen.print("last");
    return text;
  };

  test("draws the chart again in its place on a terminal, each line cleared", () => {
    const text = show(false);
    const lines = text.split("\n").length - 1;
    const height = (lines - 2) / 2;
    expect(text.split(`\x1b[${height}A`)).toHaveLength(2);
    expect(text.split("\x1b[2K")).toHaveLength(2 * height + 1);
    expect(text).toMatch(/step 2\/10\n.*last\n$/s);
    expect(text).not.toContain("a line");
    const widest = text
      .replace(/\x1b\[\d*[A-Za-z]/g, "")
      .split(/[\r\n]/)
      .map((line) => line.length);
    expect(Math.max(...widest)).toBeLessThan(80);
  });

  test("has lines alone where it is plain", () => expect(show(true)).toBe("first\na line\nlast\n"));
});
