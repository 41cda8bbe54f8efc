/** From rollouts to what an update computes: rows, coefficients over the whole mini-batch, micro-batches. */
import type { TrainConfig } from "../config.js";
import { type Aggregation, aggregationCoefficients } from "../losses/aggregation.js";
import { PackedTokenCounter } from "../models/packing.js";
import type { Rollout } from "../rollouts/types.js";

/** A rollout with what is to be learnt from it. */
export interface Sample {
  rollout: Pick<Rollout, "promptIds" | "ids" | "mask" | "logprobs">;
  /** The teacher's prompt; without it the rollout is not distilled. */
  teacherPrompt?: Int32Array | undefined;
  /** The group-relative advantage; 0 where no policy loss is wanted. */
  advantage: number;
  /** A factor of each completion token's loss; 1 by default. */
  tokenWeights?: Float32Array | undefined;
}

/** What aggregation needs of a configuration. */
export type BatchSettings = Pick<
  TrainConfig,
  "algorithm" | "lambda" | "aggregation" | "normalizer" | "maxCompletionTokens" | "klCoefficient"
>;

/** Sequences with a completion to be predicted. */
export interface PackedSample {
  /** Prompt and completion as the student and as the teacher sees them. */
  student: Int32Array;
  teacher: Int32Array | undefined;
  /** Completion positions of the rows, and where the completion starts on both sides. */
  positions: Int32Array;
  studentStart: number;
  teacherStart: number;
}

/** A sample ready for the forward passes. The arrays per row belong to the tokens that are ours to learn. */
export interface PlannedSample extends PackedSample {
  targets: Int32Array;
  sampledLogprobs: Float32Array;
  /** The trainer's own when the generation batch began; undefined where the sampled ones serve. */
  oldLogprobs?: Float32Array | undefined;
  weights: Float32Array;
  advantage: number;
  /** Factors of the token losses in the mini-batch's loss; undefined where that loss is not wanted. */
  distillCoefficients: Float32Array | undefined;
  policyCoefficients: Float32Array | undefined;
}

export function joined(a: Int32Array, b: Int32Array): Int32Array {
  const all = new Int32Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

function coefficientsOf(
  masks: readonly Uint8Array[],
  settings: BatchSettings,
  factor: number,
): Float32Array[] {
  const lengths = masks.map((mask) => mask.length);
  const flat = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0));
  const starts: number[] = [];
  masks.reduce((start, mask) => {
    starts.push(start);
    flat.set(mask, start);
    return start + mask.length;
  }, 0);
  const overRollouts = settings.algorithm === "sdpo" && settings.normalizer === "paper-micro-batch";
  const all = aggregationCoefficients(flat, lengths, {
    aggregation: settings.aggregation as Aggregation,
    normalizer: overRollouts ? Math.max(1, masks.length) : undefined,
    maxTokens: settings.maxCompletionTokens,
  });
  return masks.map((mask, i) =>
    Float32Array.from(mask, (_, t) => factor * all[starts[i]! + t]!).filter((_, t) => mask[t] !== 0),
  );
}

/**
 * The samples of one mini-batch that there is something to learn from, with coefficients that count over all of
 * its samples: distilled tokens for SDPO, all completion tokens for GRPO and the blend.
 */
export function planBatch(samples: readonly Sample[], settings: BatchSettings): PlannedSample[] {
  const { algorithm, lambda, klCoefficient } = settings;
  const policyShare = algorithm === "grpo" ? 1 : algorithm === "blend" ? lambda : 0;
  const completionMasks = samples.map(({ rollout }) => rollout.mask);
  const lossMasks = samples.map(({ rollout, teacherPrompt }) =>
    teacherPrompt ? rollout.mask : new Uint8Array(rollout.mask.length),
  );
  const distillMasks = algorithm === "sdpo" ? lossMasks : completionMasks;
  const distill = policyShare < 1 ? coefficientsOf(distillMasks, settings, 1 - policyShare) : undefined;
  const policy = policyShare > 0 ? coefficientsOf(completionMasks, settings, policyShare) : undefined;
  return samples.flatMap((sample, i) => {
    const distilled = distill !== undefined && sample.teacherPrompt !== undefined;
    const rewarded = policy !== undefined && (sample.advantage !== 0 || klCoefficient > 0);
    const { promptIds, ids, mask, logprobs } = sample.rollout;
    const positions = Int32Array.from(mask.keys()).filter((t) => mask[t] !== 0);
    if (positions.length === 0 || !(distilled || rewarded)) return [];
    return {
      student: joined(promptIds, ids),
      teacher: distilled ? joined(sample.teacherPrompt!, ids) : undefined,
      positions,
      studentStart: promptIds.length,
      teacherStart: sample.teacherPrompt?.length ?? 0,
      targets: positions.map((t) => ids[t]!),
      sampledLogprobs: Float32Array.from(positions, (t) => logprobs[t]!),
      weights: Float32Array.from(positions, (t) => sample.tokenWeights?.[t] ?? 1),
      advantage: sample.advantage,
      distillCoefficients: distilled ? distill[i] : undefined,
      policyCoefficients: rewarded ? policy[i] : undefined,
    };
  });
}

/**
 * Cuts a mini-batch so that the packed tokens of each part are at most `limit` on either side; a sample that is
 * longer stands alone. Within a part distilled samples come first.
 */
export function microBatches<S extends PackedSample>(samples: readonly S[], limit: number): S[][] {
  const parts: S[][] = [];
  let student = new PackedTokenCounter();
  let teacher = new PackedTokenCounter();
  const count = (sample: S) => {
    student.add(sample.student);
    if (sample.teacher) teacher.add(sample.teacher);
  };
  for (const sample of samples) {
    count(sample);
    const part = parts.at(-1);
    if (part && Math.max(student.tokens, teacher.tokens) <= limit) {
      part.push(sample);
      continue;
    }
    parts.push([sample]);
    student = new PackedTokenCounter();
    teacher = new PackedTokenCounter();
    count(sample);
  }
  return parts.map((samples) => [
    ...samples.filter(({ teacher }) => teacher),
    ...samples.filter(({ teacher }) => !teacher),
  ]);
}

/** The packed rows whose hidden states predict the samples' tokens, sample after sample. */
export function predictingRows(
  rows: readonly Int32Array[],
  samples: readonly PackedSample[],
  side: "student" | "teacher",
): Int32Array {
  return Int32Array.from(
    samples.flatMap(({ positions, studentStart, teacherStart }, i) => {
      const start = side === "student" ? studentStart : teacherStart;
      return Array.from(positions, (t) => rows[i]![start + t - 1]!);
    }),
  );
}
