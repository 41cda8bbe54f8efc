import type { Environment } from "../environments/types.js";
import type { Model } from "../models/model.js";
import { collectRollouts } from "../rollouts/collect.js";
import type { PromptedTask, RolloutGroup } from "../rollouts/types.js";
import { environmentMetrics, fraction, type Metrics, mean } from "./metrics.js";

export interface EvaluateOptions {
  /** k: rollouts of each task; 4 by default. */
  rollouts?: number;
  /** 0.6 by default; 0 takes the most probable token. */
  temperature?: number;
  /** 0.95 by default. */
  topP?: number;
  /** At most this many tokens a completion; 256 by default. */
  maxTokens?: number;
  seed?: number;
  /** Rollouts computed at the same time; 64 by default. */
  batchSize?: number;
  /** Which weights: "weight" by default, or "teacher". */
  slot?: string;
  /** A reward from which a rollout is a success, for pass@k; 1 by default. */
  successThreshold?: number;
  signal?: AbortSignal | undefined;
  onProgress?: (finished: number, total: number) => void;
}

/** One rollout of an evaluation. */
export interface EvaluationRow {
  taskId: string;
  completion: string;
  reward: number;
  feedback: string | undefined;
  tokens: number;
  truncated: boolean;
}

export interface EvaluationReport {
  tasks: number;
  /** k. */
  rollouts: number;
  /** The mean reward, tasks weighted alike. */
  "avg@k": number;
  /** The share of tasks with at least one success among k rollouts. */
  "pass@k": number;
  /** For n = 1, 2, 4, ... up to k the chance that n rollouts hold a success, without bias. */
  passAt: Record<number, number>;
  /** Of avg@k, over tasks; 0 for a single task. */
  standardError: number;
  /** Means of the environment's own metrics. */
  metrics: Metrics;
  /** Shares of rollouts that the length limit cut, and that could not be verified. */
  truncated: number;
  dropped: number;
  /** Mean tokens of a completion. */
  completionTokens: number;
  rows: EvaluationRow[];
}

/**
 * The chance that k of n rollouts, drawn without putting back, hold one of the c successes:
 * 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374).
 */
export function passAtK(n: number, c: number, k: number): number {
  let miss = 1;
  for (let i = 0; i < k; i++) miss *= Math.max(0, n - c - i) / (n - i);
  return 1 - miss;
}

function passes(groups: readonly RolloutGroup[], k: number, threshold: number): Record<number, number> {
  const sizes = new Set([k]);
  for (let n = 1; n < k; n *= 2) sizes.add(n);
  const successes = groups.map(({ rollouts }) => ({
    n: rollouts.length,
    c: rollouts.filter(({ verdict }) => verdict.reward >= threshold).length,
  }));
  const at = (size: number) =>
    mean(successes.filter(({ n }) => n >= size).map(({ n, c }) => passAtK(n, c, size)));
  return Object.fromEntries(
    [...sizes].sort((a, b) => a - b).flatMap((size) => (at(size) === undefined ? [] : [[size, at(size)!]])),
  );
}

/** The report of verified groups, `wanted` rollouts having been asked of each. */
export function summarize(
  groups: readonly RolloutGroup[],
  wanted: number,
  successThreshold = 1,
): EvaluationReport {
  const judged = groups.filter(({ rollouts }) => rollouts.length > 0);
  const rollouts = judged.flatMap((group) => group.rollouts);
  const means = judged.map((group) => mean(group.rollouts.map(({ verdict }) => verdict.reward))!);
  const average = mean(means) ?? 0;
  const variance = means.reduce((sum, x) => sum + (x - average) ** 2, 0) / Math.max(1, means.length - 1);
  const passAt = passes(judged, wanted, successThreshold);
  const truncated = rollouts.filter(({ finishReason }) => finishReason === "length").length;
  return {
    tasks: groups.length,
    rollouts: wanted,
    "avg@k": average,
    "pass@k": passAt[wanted] ?? 0,
    passAt,
    standardError: Math.sqrt(variance / Math.max(1, means.length)),
    metrics: environmentMetrics(judged),
    truncated: fraction(truncated, rollouts.length),
    dropped: fraction(groups.length * wanted - rollouts.length, groups.length * wanted),
    completionTokens: mean(rollouts.map(({ ids }) => ids.length)) ?? 0,
    rows: rollouts.map(({ taskId, text, verdict, ids, finishReason }) => ({
      taskId,
      completion: text,
      reward: verdict.reward,
      feedback: verdict.feedback,
      tokens: ids.length,
      truncated: finishReason === "length",
    })),
  };
}

/**
 * Samples k completions of each task and scores them. The same seed gives the same completions of a task,
 * whatever the other tasks are. Throws as {@link collectRollouts}.
 */
export async function evaluate(
  model: Model,
  environment: Environment,
  tasks: readonly PromptedTask[],
  options: EvaluateOptions = {},
): Promise<EvaluationReport> {
  const { rollouts = 4, temperature = 0.6, topP = 0.95, successThreshold = 1, ...rest } = options;
  const { groups } = await collectRollouts(model, tasks, environment, {
    ...rest,
    rollouts,
    temperature,
    topP,
    step: 0,
  });
  return summarize(groups, rollouts, successThreshold);
}

/** An evaluation as numbers of a training step. */
export function evaluationMetrics(report: EvaluationReport): Metrics {
  const { rollouts: k, standardError, truncated, completionTokens, metrics } = report;
  return {
    [`evaluation.avg@${k}`]: report["avg@k"],
    ...Object.fromEntries(Object.entries(report.passAt).map(([n, x]) => [`evaluation.pass@${n}`, x])),
    "evaluation.standard_error": standardError,
    "evaluation.truncated": truncated,
    "evaluation.completion.mean": completionTokens,
    ...Object.fromEntries(Object.entries(metrics).map(([name, x]) => [`evaluation.${name}`, x])),
  };
}
