/** One training step: a generation batch, its updates, the teacher. */
import type { TrainConfig } from "../config.js";
import type { Environment } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import { groupAdvantages } from "../losses/group-advantages.js";
import type { Model } from "../models/model.js";
import { type Collected, collectRollouts } from "../rollouts/collect.js";
import type { PromptedTask, RolloutGroup } from "../rollouts/types.js";
import { type PlannedSample, planBatch, type Sample } from "./batch.js";
import type { TaskOrder } from "./data.js";
import { fraction, type Metrics, mean, RowStatistics, rolloutMetrics, rowMetrics } from "./metrics.js";
import { samplerDiffers, scoreOldLogprobs } from "./old-logprobs.js";
import { learningRateAt, type Optimizer } from "./optimizer.js";
import { type Gradient, type GradientOptions, noTokens, type PassCount } from "./part.js";
import { type TeacherPrompt, teacherPrompts } from "./teacher.js";
import { miniBatchGradient } from "./update.js";

/** A factor of each completion token's loss, one float a token of rollout `index` of the group. */
export type TokenWeights = (group: RolloutGroup, index: number) => Float32Array | undefined;

/** What steps go on from, and change. */
export interface TrainState {
  readonly config: TrainConfig;
  readonly model: Model;
  readonly environment: Environment;
  readonly order: TaskOrder<PromptedTask>;
  readonly optimizer: Optimizer;
  readonly tokenWeights?: TokenWeights | undefined;
  readonly onPhase?: ((phase: string, done: number, total: number) => void) | undefined;
  /** Steps done. */
  step: number;
  /** Steps in a row without anything to learn from. */
  emptySteps: number;
  /** Updates in a row whose loss or gradient was not finite. */
  nonFinite: number;
}

export interface StepOutcome {
  metrics: Metrics;
  warnings: string[];
  groups: RolloutGroup[];
  /** By group and rollout; none for GRPO. */
  prompts: TeacherPrompt[][];
}

/** Updates in a row that may be skipped before the run ends. */
export const MOST_NON_FINITE = 3;
const EMPTY_STEPS_TO_WARN = 3;

/** What the updates of a step add up to. */
interface Updates {
  losses: number[];
  norms: number[];
  rows: RowStatistics;
  passes: Pick<Gradient, "score" | "train">;
  /** In the optimizer. */
  seconds: number;
  taken: number;
  skipped: number;
  empty: number;
}

/** Thrown where losses or gradients stayed non-finite; `samples` are those of the last mini-batch. */
export class NumericsError extends SdpoError {
  readonly samples: readonly Sample[];

  constructor(message: string, samples: readonly Sample[]) {
    super("ERR_SDPO_NUMERICS", message);
    this.samples = samples;
  }
}

function samplesOf(
  state: TrainState,
  groups: readonly RolloutGroup[],
  prompts: TeacherPrompt[][],
): Sample[][] {
  const { config } = state;
  const rollouts = groups.flatMap((group) => group.rollouts);
  const rewards = rollouts.map(({ verdict }) => verdict.reward);
  const ids = rollouts.map(({ group }) => group);
  const { normalizeByStd } = config;
  const advantages = config.algorithm === "sdpo" ? [] : groupAdvantages(rewards, ids, { normalizeByStd });
  let at = 0;
  return groups.map((group, g) =>
    group.rollouts.map((rollout, i) => {
      const tokenWeights = state.tokenWeights?.(group, i);
      if (tokenWeights && tokenWeights.length !== rollout.ids.length) {
        throw new SdpoError(
          "ERR_SDPO_ARGUMENT",
          `tokenWeights: expected ${rollout.ids.length} numbers for rollout ${i} of task ${rollout.taskId}, got ${tokenWeights.length}`,
        );
      }
      return { rollout, teacherPrompt: prompts[g]?.[i]?.ids, advantage: advantages[at++] ?? 0, tokenWeights };
    }),
  );
}

/** Samples of an update, and those of them that there is something to learn from. */
interface MiniBatch {
  samples: readonly Sample[];
  planned: PlannedSample[];
}

function miniBatches(groups: readonly Sample[][], config: TrainConfig): MiniBatch[] {
  const each = config.miniBatchTasks ?? groups.length;
  return Array.from({ length: Math.ceil(groups.length / each) }, (_, i) => {
    const samples = groups.slice(i * each, (i + 1) * each).flat();
    return { samples, planned: planBatch(samples, config) };
  });
}

function addTokens(total: PassCount, pass: PassCount): void {
  for (const key of ["computed", "withoutSharing", "seconds"] as const) total[key] += pass[key];
}

function addGradient(updates: Updates, gradient: Gradient, isFirst: boolean): void {
  // Only the first update sees the weights that sampled.
  updates.rows.merge(gradient.rows, isFirst ? [] : ["samplerGap"]);
  for (const side of ["score", "train"] as const) addTokens(updates.passes[side], gradient[side]);
}

/** One update from a mini-batch; `updates` is told what came of it. */
async function takeUpdate(
  state: TrainState,
  { samples, planned }: MiniBatch,
  updates: Updates,
  options: GradientOptions & { learningRate: number },
): Promise<void> {
  const { config, model, optimizer } = state;
  if (planned.length === 0) {
    updates.empty++;
    return;
  }
  const gradient = await miniBatchGradient(model, planned, config, options);
  const start = performance.now();
  const norm = await optimizer.gradientNorm();
  if (!Number.isFinite(gradient.loss) || !Number.isFinite(norm)) {
    updates.skipped++;
    if (++state.nonFinite < MOST_NON_FINITE) return;
    throw new NumericsError(
      `step ${state.step + 1}: loss ${gradient.loss}, gradient norm ${norm}: not finite in ${state.nonFinite} updates in a row; lower learningRate, or take dtype f32`,
      samples,
    );
  }
  addGradient(updates, gradient, updates.losses.length === 0 && updates.skipped === 0);
  state.nonFinite = 0;
  updates.losses.push(gradient.loss);
  updates.norms.push(norm);
  const distils = config.algorithm !== "grpo";
  const fused = !options.importance && distils && config.teacher === "ema" ? config.teacherRate : undefined;
  await optimizer.update(options.learningRate, norm, fused);
  updates.seconds += (performance.now() - start) / 1000;
  updates.taken++;
}

async function takeUpdates(
  state: TrainState,
  samples: readonly Sample[][],
  signal: AbortSignal | undefined,
): Promise<Updates> {
  const { config, model, optimizer } = state;
  const passes = { score: noTokens(), train: noTokens() };
  const rows = new RowStatistics();
  const counts = { seconds: 0, taken: 0, skipped: 0, empty: 0 };
  const updates: Updates = { losses: [], norms: [], rows, passes, ...counts };
  const batches = miniBatches(samples, config);
  const total = batches.length * config.epochs;
  const learningRate = learningRateAt(config, state.step + 1);
  const importance = total > 1;
  const options = { importance, samplerDiffers: samplerDiffers(model), learningRate, signal };
  if (importance && options.samplerDiffers) {
    for (const { planned } of batches)
      addTokens(passes.score, await scoreOldLogprobs(model, planned, config, options));
  }
  for (let i = 0; i < total; i++) {
    await takeUpdate(state, batches[i % batches.length]!, updates, options);
    state.onPhase?.("update", i + 1, total);
  }
  const follows = config.algorithm !== "grpo" && config.teacher === "ema" && importance;
  if (follows && updates.taken > 0) await optimizer.updateTeacher(config.teacherRate);
  return updates;
}

function nothingLearnt(state: TrainState): string {
  const reason =
    state.config.algorithm === "grpo"
      ? "in every group all rewards were the same"
      : "no rollout had a successful attempt of its group or feedback to learn from";
  return (
    `nothing could be learnt in ${state.emptySteps} steps in a row: ${reason}. Warm the model start with ` +
    "`sdpo sft`, choose easier tasks, raise rolloutsPerTask, or use an environment with feedback"
  );
}

function warningsOf(state: TrainState, updates: Updates, collected: Collected): string[] {
  const warnings: string[] = [];
  const { failures } = collected;
  if (failures.length > 0) {
    const { taskId, error } = failures[0]!;
    const reason = error instanceof Error ? error.message : String(error);
    warnings.push(
      `${failures.length} rollouts could not be verified and are left out; the first, task ${taskId}: ${reason}`,
    );
  }
  if (updates.skipped > 0) {
    warnings.push(`${updates.skipped} updates were skipped: their loss or gradient was not finite`);
  }
  const { emptySteps } = state;
  if (emptySteps >= EMPTY_STEPS_TO_WARN && (emptySteps - EMPTY_STEPS_TO_WARN) % 10 === 0)
    warnings.push(nothingLearnt(state));
  return warnings;
}

const perSecond = (tokens: number, seconds: number) => (seconds > 0 ? tokens / seconds : 0);

function stepMetrics(
  state: TrainState,
  collected: Collected,
  prompts: TeacherPrompt[][],
  updates: Updates,
  seconds: { rollout: number; teacher_prompt: number; step: number },
): Metrics {
  const { config } = state;
  const all = prompts.flat();
  const shareOf = (test: (prompt: TeacherPrompt) => boolean) => fraction(all.filter(test).length, all.length);
  const { sampled, prompt, promptWithoutSharing } = collected.tokens;
  const { score, train } = updates.passes;
  const saved = promptWithoutSharing - prompt + score.withoutSharing - score.computed;
  const separate = promptWithoutSharing + sampled + score.withoutSharing + train.withoutSharing;
  return {
    loss: mean(updates.losses) ?? 0,
    ...rolloutMetrics(collected.groups, config.successThreshold),
    "demonstration.fraction": shareOf(({ usesDemonstration }) => usesDemonstration),
    "feedback.fraction": shareOf(({ usesFeedback }) => usesFeedback),
    "distilled.fraction": shareOf(({ ids }) => ids !== undefined),
    ...rowMetrics(updates.rows),
    grad_norm: mean(updates.norms) ?? 0,
    learning_rate: learningRateAt(config, state.step),
    updates: updates.taken,
    skipped_steps: updates.skipped,
    empty_updates: updates.empty,
    "verify.failed": collected.failures.length,
    "tokens.rollout": sampled,
    "tokens.prompt": prompt,
    "tokens.score": score.computed,
    "tokens.train": train.computed,
    "sharing.saved": fraction(saved + train.withoutSharing - train.computed, separate),
    ...Object.fromEntries(Object.entries(seconds).map(([name, x]) => [`seconds.${name}`, x])),
    "seconds.score": score.seconds,
    "seconds.train": train.seconds,
    "seconds.optimizer": updates.seconds,
    "tokens_per_second.rollout": perSecond(sampled, seconds.rollout),
    "tokens_per_second.score": perSecond(score.computed, score.seconds),
    "tokens_per_second.train": perSecond(train.computed, train.seconds),
    "memory.peak": state.model.device.memory().peak,
  };
}

/**
 * Runs the next step and counts it. Everything drawn depends on the seed, the step and the data alone.
 * @throws NumericsError (ERR_SDPO_NUMERICS) after several non-finite updates in a row, ERR_SDPO_ABORTED
 */
export async function trainStep(state: TrainState, signal?: AbortSignal): Promise<StepOutcome> {
  const { config, model, environment, onPhase } = state;
  model.device.resetPeakMemory();
  const start = performance.now();
  const since = (from: number) => (performance.now() - from) / 1000;
  const tasks = state.order.draw(config.tasksPerBatch);
  const collected = await collectRollouts(model, tasks, environment, {
    ...{ temperature: config.temperature, topP: config.topP, topK: config.topK, minP: config.minP },
    ...{ maxTokens: config.maxCompletionTokens, seed: config.seed, signal },
    step: state.step + 1,
    rollouts: config.rolloutsPerTask,
    batchSize: config.generationBatch,
    weightVersion: state.optimizer.updates,
    onProgress: (done, total) => onPhase?.("rollout", done, total),
  });
  const rollout = since(start);
  const { groups } = collected;
  const promptStart = performance.now();
  const prompts = config.algorithm === "grpo" ? [] : await teacherPromptsOf(state, groups);
  const teacher_prompt = since(promptStart);
  const updates = await takeUpdates(state, samplesOf(state, groups, prompts), signal);
  state.step++;
  state.emptySteps = updates.taken + updates.skipped > 0 ? 0 : state.emptySteps + 1;
  const seconds = { rollout, teacher_prompt, step: since(start) };
  const metrics = stepMetrics(state, collected, prompts, updates, seconds);
  return { metrics, warnings: warningsOf(state, updates, collected), groups, prompts };
}

function teacherPromptsOf({ config, environment, model }: TrainState, groups: readonly RolloutGroup[]) {
  const { maxPositions } = model.config;
  const { repromptTemplate, solutionTemplate, feedbackTemplate, ...rest } = config;
  return teacherPrompts(groups, environment, model.tokenizer, {
    ...rest,
    repromptTemplate: repromptTemplate ?? undefined,
    solutionTemplate: solutionTemplate ?? undefined,
    feedbackTemplate: feedbackTemplate ?? undefined,
    maxRepromptTokens: Math.min(config.maxRepromptTokens, maxPositions - config.maxCompletionTokens),
  });
}
