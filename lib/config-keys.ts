import * as v from "valibot";
import {
  boolean,
  choice,
  integer,
  key,
  number,
  options,
  orNull,
  positive,
  required,
  seed,
  text,
} from "./config-values.js";

const TOKENS = 1 << 24;
const COUNT = 1 << 20;

/** Keys of every kind of training: where things are, and how they are computed. */
export const runEntries = {
  model: required(text, "a model: Hugging Face folder, .safetensors or .gguf file"),
  environment: required(text, "the kind of task: mcq, exact, house-dates"),
  environmentOptions: key(options, {}, 'options of the environment, such as {"formatFeedback": true}'),
  data: required(text, "training tasks: a file of rows, or what else the environment takes"),
  output: key(orNull(text), null, "the run folder; null: nothing is written"),
  seed: key(seed, 0, "of every random number of the run"),
  device: key(text, "auto", "auto, cpu, cuda, cuda:<index> or simt"),
  dtype: key(choice("auto", "f32", "bf16"), "auto", "of the weights in memory; auto: as they are stored"),
  microBatchTokens: key(
    integer(1, TOKENS),
    16384,
    "tokens in one forward and backward pass; changes no result beyond rounding",
  ),
  recompute: key(
    boolean,
    false,
    "compute activations again in the backward pass: the same bits, less memory, more time",
  ),
  thinking: key(boolean, false, "let the chat template open a thinking block"),
};

/** Keys of the optimizer: AdamW with decoupled decay (of matrices only) and clipping by the global norm. */
export const optimizerEntries = {
  learningRate: key(positive(1), 1e-5, "after the warm-up"),
  schedule: key(
    choice("constant", "linear", "cosine"),
    "constant",
    "after the warm-up; linear and cosine go to 0 at the last step",
  ),
  warmupSteps: key(integer(0, COUNT), 10, "steps in which the learning rate grows from 0"),
  weightDecay: key(number(0, 1), 0.01, "of matrices; vectors have none"),
  beta1: key(number(0, 0.9999999), 0.9, "decay of the first moment"),
  beta2: key(number(0, 0.9999999), 0.999, "decay of the second moment"),
  clipNorm: key(orNull(positive(1e9)), 1, "the greatest norm of the gradient; null: no clipping"),
};

const batchEntries = {
  algorithm: key(
    choice("sdpo", "grpo", "blend"),
    "sdpo",
    "self-distillation, GRPO, or a weighted sum of both",
  ),
  lambda: key(number(0, 1), 0.9, "weight of GRPO in the blend"),
  steps: key(integer(1, 1 << 30), 100, "generation batches in all"),
  tasksPerBatch: key(integer(1, COUNT), 32, "tasks in a generation batch"),
  rolloutsPerTask: key(integer(1, 65536), 8, "the size of a group"),
  miniBatchTasks: key(orNull(integer(1, COUNT)), null, "tasks in one update; null: all of the batch"),
  epochs: key(integer(1, 1000), 1, "passes over a generation batch"),
  maxPromptTokens: key(integer(1, TOKENS), 2048, "tasks with longer prompts are left out"),
  maxCompletionTokens: key(integer(1, TOKENS), 8192, "longer completions are cut off"),
  temperature: key(positive(100), 1, "of rollouts and losses"),
  topP: key(positive(1), 1, "rollouts: keep the most probable tokens with this mass"),
  topK: key(integer(0, 2 ** 31 - 1), 0, "rollouts: keep this many tokens; 0: all"),
  minP: key(number(0, 1), 0, "rollouts: keep tokens with this share of the best one's probability"),
  generationBatch: key(integer(1, 65536), 64, "rollouts generated at the same time; changes no result"),
  successThreshold: key(number(0, 1), 1, "the reward from which a rollout is a success"),
  rolloutWeightClip: key(
    orNull(positive(1e9)),
    2,
    "cap of the weights p_trainer / p_sampler of tokens, with bf16 weights (f32 needs none); null: no such weights",
  ),
  aggregation: key(
    choice("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"),
    "token-mean",
    "from the tokens' losses to one",
  ),
};

const distillationEntries = {
  alpha: key(number(0, 1), 0.5, "0: forward KL, 1: reverse KL, between: generalised JSD"),
  distillation: key(
    choice("logit", "token", "sequence"),
    "logit",
    "credit: whole distribution, sampled token, sampled sequence",
  ),
  distillationTopK: key(
    orNull(integer(1, 1 << 24)),
    100,
    "compare the student's K most probable tokens; null: all tokens",
  ),
  tail: key(boolean, true, "compare the rest of the distribution as one more token"),
  isClip: key(orNull(positive(1e9)), 2, "cap of the importance ratio; null: no ratio"),
  advantageClip: key(
    orNull(positive(1e9)),
    null,
    "bound of the log-ratio of teacher and student; null: none",
  ),
  normalizer: key(
    choice("distilled", "paper-micro-batch"),
    "distilled",
    "mean over what is distilled, or over all rollouts as in the paper's runs",
  ),
  teacher: key(choice("ema", "trust-region", "live", "frozen"), "ema", "whose distribution is learnt"),
  teacherRate: key(
    number(0, 1),
    0.05,
    "weight of the student in the teacher, each step (0.01 by default for trust-region)",
  ),
};

const teacherPromptEntries = {
  maxRepromptTokens: key(integer(1, TOKENS), 10240, "of the teacher's prompt; feedback is shortened first"),
  environmentFeedback: key(boolean, true, "show the teacher the environment's feedback"),
  feedbackOnlyWithoutSolution: key(boolean, true, "show feedback only where there is no demonstration"),
  demonstrateOwnSuccess: key(boolean, false, "may a success be its own demonstration?"),
  removeThinking: key(boolean, true, "take <think> blocks out of demonstrations"),
  repromptTemplate: key(orNull(text), null, "takes {prompt}, {solution} and {feedback}; null: the paper's"),
  solutionTemplate: key(orNull(text), null, "takes {successful_previous_attempt}; null: the paper's"),
  feedbackTemplate: key(orNull(text), null, "takes {feedback_raw}; null: the paper's"),
};

const policyEntries = {
  clipLow: key(number(0, 1), 0.2, "PPO clip: the ratio's lower bound is 1 - clipLow"),
  clipHigh: key(number(0, 1e9), 0.28, "PPO clip: the ratio's upper bound is 1 + clipHigh"),
  dualClip: key(orNull(number(1, 1e9)), 3, "bound of the ratio where the advantage is negative; null: none"),
  normalizeByStd: key(boolean, false, "divide advantages by their group's standard deviation"),
  klCoefficient: key(number(0, 1e9), 0, "weight of the KL divergence from the initial model"),
  klKind: key(choice("k1", "k2", "k3"), "k3", "its estimator"),
};

const reportEntries = {
  evaluationData: key(orNull(text), null, "tasks to evaluate on"),
  evaluationTasks: key(orNull(integer(1, 1 << 30)), null, "only the first so many of them; null: all"),
  evaluateEvery: key(integer(0, 1 << 30), 0, "steps between evaluations; 0: none"),
  evaluationRollouts: key(integer(1, 65536), 4, "rollouts for each task: avg@k and pass@k"),
  evaluationTemperature: key(number(0, 100), 0.6, "0: the most probable token"),
  evaluationTopP: key(positive(1), 0.95, "as topP, in evaluations"),
  checkpointEvery: key(integer(0, 1 << 30), 10, "steps between checkpoints; 0: only at the end"),
  keepCheckpoints: key(integer(1, 1 << 20), 2, "older ones are removed"),
  dumpRollouts: key(boolean, true, "write every rollout to rollouts/step-N.jsonl"),
  tensorboard: key(boolean, false, "write a TensorBoard event file too"),
  resume: key(boolean, false, "go on from the newest checkpoint in the run folder"),
};

/** Every key of a training configuration: type, range, default and description. */
export const trainEntries = {
  ...runEntries,
  ...batchEntries,
  ...distillationEntries,
  ...teacherPromptEntries,
  ...policyEntries,
  ...optimizerEntries,
  ...reportEntries,
};

/** Every key of a supervised warm start. */
export const sftEntries = {
  ...runEntries,
  output: key(orNull(text), null, "where the model is written, a Hugging Face folder; null: nowhere"),
  rows: key(orNull(integer(1, 1 << 30)), null, "only the first so many tasks that fit; null: all"),
  rowsPerBatch: key(integer(1, COUNT), 8, "rows in one update"),
  epochs: key(integer(1, 1 << 20), 1, "passes over the rows"),
  maxPromptTokens: key(integer(1, TOKENS), 2048, "rows with longer prompts are left out"),
  maxCompletionTokens: key(integer(1, TOKENS), 8192, "rows with longer answers are left out"),
  ...optimizerEntries,
  learningRate: key(positive(1), 5e-5, "after the warm-up"),
  warmupSteps: key(integer(0, COUNT), 0, "updates in which the learning rate grows from 0"),
};

const trainSchema = v.strictObject(trainEntries);
const sftSchema = v.strictObject(sftEntries);

/** A complete training configuration; `sdpo train --keys` says what each key is. */
export type TrainConfig = v.InferOutput<typeof trainSchema>;
/** What a user gives of it. */
export type TrainInput = v.InferInput<typeof trainSchema>;
/** A complete configuration of a supervised warm start; `sdpo sft --keys` says what each key is. */
export type SftConfig = v.InferOutput<typeof sftSchema>;
/** What a user gives of it. */
export type SftInput = v.InferInput<typeof sftSchema>;

const distillationKeys = [...Object.keys(distillationEntries), ...Object.keys(teacherPromptEntries)];
const policyKeys = Object.keys(policyEntries);
const outputKeys = ["checkpointEvery", "keepCheckpoints", "dumpRollouts", "tensorboard", "resume"];
const evaluationKeys = Object.keys(reportEntries).filter((name) => /^evaluation/.test(name));

/** Under what condition keys are used, the first that fails being the reason why one is not. */
export const conditions: { keys: readonly string[]; when: string; holds(config: TrainConfig): boolean }[] = [
  { keys: ["lambda"], when: 'algorithm is "blend"', holds: (c) => c.algorithm === "blend" },
  { keys: ["normalizer"], when: 'algorithm is "sdpo"', holds: (c) => c.algorithm === "sdpo" },
  { keys: distillationKeys, when: 'algorithm is "sdpo" or "blend"', holds: (c) => c.algorithm !== "grpo" },
  { keys: policyKeys, when: 'algorithm is "grpo" or "blend"', holds: (c) => c.algorithm !== "sdpo" },
  { keys: ["rolloutWeightClip"], when: 'dtype is not "f32"', holds: (c) => c.dtype !== "f32" },
  { keys: ["klKind"], when: "klCoefficient is above 0", holds: (c) => c.klCoefficient > 0 },
  {
    keys: ["distillationTopK", "tail"],
    when: 'distillation is "logit"',
    holds: (c) => c.distillation === "logit",
  },
  { keys: ["tail"], when: "distillationTopK is a number", holds: (c) => c.distillationTopK !== null },
  {
    keys: ["teacherRate"],
    when: 'teacher is "ema" or "trust-region"',
    holds: (c) => c.teacher === "ema" || c.teacher === "trust-region",
  },
  {
    keys: ["feedbackOnlyWithoutSolution", "feedbackTemplate"],
    when: "environmentFeedback is true",
    holds: (c) => c.environmentFeedback,
  },
  { keys: outputKeys, when: "output names a run folder", holds: (c) => c.output !== null },
  { keys: evaluationKeys, when: "evaluateEvery is above 0", holds: (c) => c.evaluateEvery > 0 },
];
