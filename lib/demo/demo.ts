import { Model } from "../models/model.js";
import { openDevice } from "../native/device.js";
import { type Baseline, heldOut, measureBaseline } from "./measure.js";
import { type Each, race } from "./race.js";
import {
  attemptLines,
  conclusion,
  type Measurement,
  NAMES,
  type Summary,
  summarizeRun,
  tableLines,
} from "./report.js";
import { CHART_COLUMNS, type DemoStream, Screen } from "./screen.js";
import { ALGORITHMS, GENERATIONS, MODEL_FOLDER, STEPS } from "./settings.js";

export interface DemoOptions {
  /** Draws the customers' house formats, the tasks and the samples. Default 0. */
  seed?: number;
  /** Training steps of each run. */
  steps?: number;
  signal?: AbortSignal | undefined;
  /** Where the demo is seen; the process's standard output by default. */
  out?: DemoStream;
  /** Lines without colours or cursor movements: by default where `out` is no wide terminal, or NO_COLOR or CI is set. */
  plain?: boolean;
}

/** The numbers that were shown. */
export interface DemoResult {
  seed: number;
  baseline: Pick<Baseline, "student" | "sampled" | "teacher">;
  curves: Each<Measurement[]>;
  summaries: Each<Summary>;
  /** Seconds of both runs with their measurements. */
  seconds: number;
}

/**
 * The two-minute demo: attempts and their feedback, the self-teacher beside the student, then SDPO and GRPO with
 * the same number of generations, side by side.
 * @throws ERR_SDPO_ABORTED once the signal fires
 */
export async function runDemo(options: DemoOptions = {}): Promise<DemoResult> {
  const { seed = 0, steps = STEPS, signal, out = process.stdout } = options;
  const screen = new Screen(out, options.plain ?? isPlain(out));
  using device = await openDevice("cpu");
  screen.print(
    "A model of 526,080 weights writes dates for customers whose house formats it does not know. The environment",
    `says which rules an answer breaks. Seed ${seed}; ${device.description}.`,
    "",
  );
  const baseline = await measure(seed, signal, device);
  screen.print(
    "Three attempts, and what the same model answers once it has read the feedback:",
    "",
    ...attemptLines(baseline.failed),
    `Right answers for ${baseline.tasks} dates that training never asks for:`,
    `  student                          ${baseline.student.toFixed(3)}`,
    `  self-teacher (after feedback)    ${baseline.teacher.toFixed(3)}`,
    "",
    "SDPO trains the student towards what the self-teacher says of each token, GRPO towards right answers;",
    `${(steps * GENERATIONS).toLocaleString("en-US")} generations each, from the same tasks and seed.`,
    "",
  );
  const start = performance.now();
  const curves = await train(screen, { seed, steps, signal, device }, baseline);
  const seconds = (performance.now() - start) / 1000;
  const summaries = { sdpo: summarizeRun(curves.sdpo), grpo: summarizeRun(curves.grpo) };
  const { student, sampled, teacher } = baseline;
  screen.print("", ...tableLines(student, summaries), "", ...conclusion(seed, teacher, summaries));
  return { seed, baseline: { student, sampled, teacher }, curves, summaries, seconds };
}

function isPlain(out: DemoStream): boolean {
  const { NO_COLOR, CI, TERM } = process.env;
  const narrow = (out.columns ?? CHART_COLUMNS) < CHART_COLUMNS;
  return !out.isTTY || narrow || Boolean(NO_COLOR) || Boolean(CI) || TERM === "dumb";
}

async function measure(seed: number, signal: AbortSignal | undefined, device: Model["device"]) {
  using model = await Model.load(MODEL_FOLDER, { device });
  return await measureBaseline(model, await heldOut(model, seed), { seed, signal });
}

/** Trains both, showing the curves as they grow. */
async function train(
  screen: Screen,
  options: Parameters<typeof race>[0],
  { student, teacher }: Baseline,
): Promise<Each<Measurement[]>> {
  const start = { generations: 0, accuracy: student };
  const curves: Each<Measurement[]> = { sdpo: [start], grpo: [start] };
  const right = options.steps * GENERATIONS;
  for await (const { step, generations, accuracy } of race(options)) {
    if (accuracy) {
      for (const name of ALGORITHMS) curves[name].push({ generations, accuracy: accuracy[name] });
      screen.line(
        `  ${generations.toLocaleString("en-US").padStart(7)} generations:  ` +
          ALGORITHMS.map((name) => `${NAMES[name]} ${accuracy[name].toFixed(3)}`).join("   "),
      );
    }
    screen.chart(curves, { right, teacher, step, steps: options.steps });
  }
  screen.endChart();
  return curves;
}
