import type { TrainInput } from "../config.js";
import { nearestName, SdpoError, show } from "../errors.js";

/** A recipe by name: values that come before the defaults of a configuration. */
export interface Preset {
  /** One line. */
  description: string;
  /** Where the values come from. */
  source: string;
  /** The models that it was made for. */
  models: string;
  /** What it takes to run it as it is. */
  hardware: string;
  values: Partial<TrainInput>;
}

const PAPER = "arXiv 2601.20802";

const EIGHT_BILLION =
  "As it is, out of reach of this version, which computes on the CPU: an 8B model takes about 165 GB for weights, " +
  "teacher, gradient and moments in float32 and 3 GB of cache for each rollout of full length, and a step is 256 " +
  "rollouts. It is the recipe to scale down: a small model, fewer tasks, shorter completions.";

const paperBatch: Partial<TrainInput> = {
  tasksPerBatch: 32,
  rolloutsPerTask: 8,
  maxPromptTokens: 2048,
  maxCompletionTokens: 8192,
  aggregation: "seq-mean-token-mean",
  rolloutWeightClip: 2,
  weightDecay: 0.01,
  clipNorm: 1,
  schedule: "constant",
  evaluationTemperature: 0.6,
  evaluationTopP: 0.95,
  thinking: false,
};

const paperDistillation: Partial<TrainInput> = {
  ...paperBatch,
  algorithm: "sdpo",
  distillation: "logit",
  tail: true,
  isClip: 2,
  normalizer: "paper-micro-batch",
  teacher: "ema",
  maxRepromptTokens: 10240,
};

const withoutFeedback: Partial<TrainInput> = {
  ...paperDistillation,
  alpha: 0.5,
  distillationTopK: 100,
  teacherRate: 0.05,
  learningRate: 1e-5,
  warmupSteps: 10,
  miniBatchTasks: 32,
  environmentFeedback: false,
  evaluationRollouts: 16,
};

const grpo: Partial<TrainInput> = {
  ...paperBatch,
  algorithm: "grpo",
  clipHigh: 0.28,
  normalizeByStd: false,
  learningRate: 1e-6,
  warmupSteps: 10,
  miniBatchTasks: 8,
  evaluationRollouts: 4,
};

const presets: Record<string, Preset> = {
  "rich-feedback": {
    description: "SDPO where the environment says what went wrong: errors, failing tests",
    source: `${PAPER}, LiveCodeBench v6`,
    models: "Qwen3-8B",
    hardware: EIGHT_BILLION,
    values: {
      ...paperDistillation,
      alpha: 1,
      distillationTopK: 20,
      teacherRate: 0.01,
      learningRate: 1e-6,
      warmupSteps: 0,
      miniBatchTasks: 1,
      environmentFeedback: true,
      evaluationRollouts: 4,
    },
  },
  "no-feedback": {
    description: "SDPO where there is only a reward: successes of the group are the demonstrations",
    source: `${PAPER}, SciKnowEval and ToolAlpaca`,
    models: "Qwen3-8B, Olmo-3-7B-Instruct",
    hardware: EIGHT_BILLION,
    values: withoutFeedback,
  },
  "test-time": {
    description: "SDPO on one hard task, sixteen attempts a step, from feedback; give it data of one row",
    source: `${PAPER}, test-time self-distillation`,
    models: "Qwen3-8B",
    hardware: EIGHT_BILLION.replace("256 rollouts", "16 rollouts"),
    values: {
      ...paperDistillation,
      tasksPerBatch: 1,
      rolloutsPerTask: 16,
      alpha: 1,
      distillationTopK: 20,
      advantageClip: 5,
      teacherRate: 0.01,
      learningRate: 1e-6,
      warmupSteps: 0,
      miniBatchTasks: 1,
      environmentFeedback: true,
    },
  },
  grpo: {
    description: "the GRPO baseline: four updates a step, clip-higher, no division by the standard deviation",
    source: `${PAPER}, GRPO baseline`,
    models: "Qwen3-8B, Olmo-3-7B-Instruct",
    hardware: EIGHT_BILLION,
    values: grpo,
  },
  "grpo-on-policy": {
    description: "the GRPO baseline with one update a step",
    source: `${PAPER}, on-policy GRPO baseline`,
    models: "Qwen3-8B, Olmo-3-7B-Instruct",
    hardware: EIGHT_BILLION,
    values: { ...grpo, learningRate: 1e-5, miniBatchTasks: 32 },
  },
  "smollm2-cpu": {
    description:
      "no-feedback scaled to SmolLM2-135M and two cores: four tasks, eight rollouts, short answers",
    source: "no-feedback with smaller batches; the model needs a warm start (sdpo sft) on SciKnowEval",
    models: "SmolLM2-135M-Instruct",
    hardware: "Any x86-64 or arm64 processor and 6 GB of memory; no GPU.",
    values: {
      ...withoutFeedback,
      tasksPerBatch: 4,
      miniBatchTasks: 4,
      maxPromptTokens: 330,
      maxCompletionTokens: 32,
      maxRepromptTokens: 512,
      microBatchTokens: 4096,
      steps: 30,
      warmupSteps: 3,
      environment: "mcq",
      environmentOptions: { omitReasoningRequest: true },
      evaluationRollouts: 4,
    },
  },
};

/** The names of all presets. */
export const presetNames: readonly string[] = Object.keys(presets);

/** A preset. Throws ERR_SDPO_CONFIG for an unknown name, with the nearest one. */
export function findPreset(name: string): Preset {
  if (Object.hasOwn(presets, name)) return presets[name]!;
  const near = nearestName(name, presetNames);
  const remedy = near ? `did you mean ${near}?` : `there are ${presetNames.join(", ")}`;
  throw new SdpoError("ERR_SDPO_CONFIG", `preset: unknown name ${show(name)}; ${remedy}`);
}
