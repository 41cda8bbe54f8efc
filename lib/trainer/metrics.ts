/** The numbers that a run reports of each step; undefined ones are left out. */
import type { RolloutGroup } from "../rollouts/types.js";

export type Metrics = Record<string, number>;

/** Values of the rows of a step's updates, in chunks as they came from the device. */
export class RowStatistics {
  readonly #chunks = new Map<string, ArrayLike<number>[]>();

  add(name: string, values: ArrayLike<number>): void {
    const chunks = this.#chunks.get(name);
    if (chunks) chunks.push(values);
    else this.#chunks.set(name, [values]);
  }

  /** Adds what another one holds, but for the names in `without`. */
  merge(other: RowStatistics, without: readonly string[] = []): void {
    for (const [name, chunks] of other.#chunks) {
      if (!without.includes(name)) for (const chunk of chunks) this.add(name, chunk);
    }
  }

  /** All values of a name; empty where there are none. */
  values(name: string): Float64Array {
    const chunks = this.#chunks.get(name) ?? [];
    const all = new Float64Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let at = 0;
    for (const chunk of chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return all;
  }
}

export function mean(values: ArrayLike<number>): number | undefined {
  if (values.length === 0) return undefined;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}

/** The value that a share `q` of the values does not exceed (nearest rank); undefined for no values. */
export function quantile(values: ArrayLike<number>, q: number): number | undefined {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)];
}

/** The share of the sum that the largest 1% of the values (at least one) make. */
export function topShare(values: ArrayLike<number>): number | undefined {
  const sorted = Float64Array.from(values).sort().reverse();
  const total = sorted.reduce((a, b) => a + b, 0);
  if (sorted.length === 0 || total === 0) return undefined;
  return sorted.subarray(0, Math.max(1, Math.round(sorted.length / 100))).reduce((a, b) => a + b, 0) / total;
}

function spread(values: readonly number[]): number | undefined {
  const center = mean(values);
  if (center === undefined) return undefined;
  return Math.sqrt(values.reduce((sum, x) => sum + (x - center) ** 2, 0) / values.length);
}

export const fraction = (count: number, total: number) => (total === 0 ? 0 : count / total);

export function defined(values: Record<string, number | undefined>): Metrics {
  return Object.fromEntries(Object.entries(values).filter(([, x]) => x !== undefined)) as Metrics;
}

/** Means of an environment's own metrics over rollouts, as `environment.<name>`. */
export function environmentMetrics(groups: readonly RolloutGroup[]): Metrics {
  const own = new Map<string, number[]>();
  for (const { rollouts } of groups) {
    for (const { verdict } of rollouts) {
      for (const [name, value] of Object.entries(verdict.metrics ?? {}))
        own.set(name, [...(own.get(name) ?? []), value]);
    }
  }
  return defined(Object.fromEntries([...own].map(([name, values]) => [`environment.${name}`, mean(values)])));
}

/** Rewards, successes and lengths of a batch's rollouts. */
export function rolloutMetrics(groups: readonly RolloutGroup[], successThreshold: number): Metrics {
  const rollouts = groups.flatMap((group) => group.rollouts);
  const rewards = rollouts.map(({ verdict }) => verdict.reward);
  const lengths = rollouts.map(({ ids }) => ids.length);
  const isSuccess = (reward: number) => reward >= successThreshold;
  const solved = groups.filter((group) => group.rollouts.some(({ verdict }) => isSuccess(verdict.reward)));
  return defined({
    "reward.mean": mean(rewards),
    "reward.std": spread(rewards),
    "success.samples": fraction(rewards.filter(isSuccess).length, rewards.length),
    "success.groups": fraction(solved.length, groups.length),
    "completion.mean": mean(lengths),
    "completion.max": lengths.reduce((a, b) => Math.max(a, b), 0),
    "completion.truncated": fraction(
      rollouts.filter(({ finishReason }) => finishReason === "length").length,
      rollouts.length,
    ),
    ...environmentMetrics(groups),
  });
}

/** Means, quantiles and shares of what the updates saw of each token. */
export function rowMetrics(rows: RowStatistics): Metrics {
  const kl = rows.values("kl");
  const ratio = rows.values("ratio");
  const gap = rows.values("samplerGap");
  const largest = (values: Float64Array) =>
    values.length === 0 ? undefined : values.reduce((a, b) => Math.max(a, b), -Infinity);
  return defined({
    entropy: mean(rows.values("entropy")),
    "topk_mass.student": mean(rows.values("studentTopkMass")),
    "topk_mass.teacher": mean(rows.values("teacherTopkMass")),
    "kl.mean": mean(kl),
    "kl.p95": quantile(kl, 0.95),
    "kl.top1pct_share": topShare(kl),
    "ratio.mean": mean(ratio),
    "ratio.p95": quantile(ratio, 0.95),
    "ratio.max": largest(ratio),
    "ratio.clipped": mean(rows.values("clipped")),
    "sampler_gap.mean": mean(gap),
    "sampler_gap.p95": quantile(gap, 0.95),
    "sampler_gap.max": largest(gap),
    "reference_kl.mean": mean(rows.values("referenceKl")),
  });
}
