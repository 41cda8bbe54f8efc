import { fileURLToPath } from "node:url";
import type { TrainerInput } from "../trainer/trainer.js";
import { ANSWER_TOKENS, PROMPT_TOKENS } from "./measure.js";

/** The shipped model's folder. Compiled code lies in dist/demo, two folders below the package's root as this file does. */
export const MODEL_FOLDER = fileURLToPath(new URL("../../lib/demo/model", import.meta.url));

export const STEPS = 80;
const TASKS = 16;
const ROLLOUTS = 8;
/** Generations of one step. */
export const GENERATIONS = TASKS * ROLLOUTS;
/** Steps between measurements on the held-out tasks. */
export const MEASURE_EVERY = 5;

export const ALGORITHMS = ["sdpo", "grpo"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** What both runs share: tasks, sampling, the optimizer but for its rates, and how they are measured. */
const shared = {
  model: MODEL_FOLDER,
  environment: "house-dates",
  data: "train",
  steps: STEPS,
  tasksPerBatch: TASKS,
  rolloutsPerTask: ROLLOUTS,
  generationBatch: GENERATIONS,
  temperature: 1,
  maxPromptTokens: PROMPT_TOKENS,
  maxCompletionTokens: ANSWER_TOKENS,
  aggregation: "token-mean",
  schedule: "constant",
  warmupSteps: 0,
  weightDecay: 0,
  clipNorm: 1,
  evaluationData: "test",
  evaluateEvery: MEASURE_EVERY,
  evaluationRollouts: 1,
  evaluationTemperature: 0,
} satisfies Partial<TrainerInput>;

/** Each algorithm's own settings, tuned for this task; docs/demo.md says how. */
const own = {
  sdpo: {
    learningRate: 7e-4,
    beta2: 0.95,
    alpha: 0.5,
    distillationTopK: null,
    teacher: "ema",
    teacherRate: 0.01,
    maxRepromptTokens: PROMPT_TOKENS,
  },
  grpo: {
    learningRate: 2e-4,
    beta2: 0.999,
    epochs: 4,
    clipLow: 0.2,
    clipHigh: 0.2,
    dualClip: null,
    normalizeByStd: true,
  },
} satisfies Record<Algorithm, Partial<TrainerInput>>;

/** The training configuration of one run. `seed` draws the house formats, the tasks' order and the samples. */
export function demoConfig(algorithm: Algorithm, seed: number, steps = STEPS): TrainerInput {
  return { ...shared, ...own[algorithm], algorithm, environmentOptions: { seed }, seed, steps };
}
