/**
 * p_old: what the trainer itself gave the sampled tokens when the generation batch began. Importance ratios are
 * measured from it, and rollout weights min(p_old / p_sampler, rolloutWeightClip) make up for a sampler whose
 * arithmetic is another. Where it is the trainer's own, the sampled logprobs are p_old up to rounding.
 */
import type { Model } from "../models/model.js";
import type { Tensor } from "../native/tensor.js";
import { microBatches, type PlannedSample } from "./batch.js";
import { RowStatistics } from "./metrics.js";
import { type GradientOptions, type LossSettings, noTokens, Part, type PassCount } from "./part.js";

/**
 * Does training compute in another precision than sampling? Only training rounds activations to bf16, and only
 * beside bf16 weights.
 */
export function samplerDiffers(model: Model): boolean {
  return model.dtype === "bf16";
}

/** log p_old of a sample's rows. */
export function oldLogprobs(sample: PlannedSample): Float32Array {
  return sample.oldLogprobs ?? sample.sampledLogprobs;
}

/** Cuts values of rows into those of each sample. */
function bySample(values: Float32Array, samples: readonly PlannedSample[]): Float32Array[] {
  let at = 0;
  return samples.map(({ targets: { length } }) => {
    at += length;
    return values.subarray(at - length, at);
  });
}

/** Sets the samples' `oldLogprobs` by a pass without a gradient, cut as the mini-batch's own; gives its tokens. */
export async function scoreOldLogprobs(
  model: Model,
  samples: readonly PlannedSample[],
  settings: LossSettings,
  options: GradientOptions,
): Promise<PassCount> {
  const total = { loss: 0, rows: new RowStatistics(), score: noTokens(), train: noTokens() };
  for (const samplesOfPart of microBatches(samples, settings.microBatchTokens)) {
    const part = new Part(model, settings, options, total);
    try {
      const hidden = await part.score(samplesOfPart, "student", "weight");
      const logprobs = await part.logprobs(hidden, samplesOfPart, "weight");
      const own = bySample(await logprobs.readFloats(), samplesOfPart);
      for (const [i, sample] of samplesOfPart.entries()) sample.oldLogprobs = own[i];
    } finally {
      part.dispose();
    }
  }
  return total.score;
}

/**
 * The samples with p_old and their rollout weights, where the sampler's arithmetic is another. The only update of
 * a generation batch sees the weights that it began with, so `hidden`, its own states, gives p_old.
 */
export async function againstSampler(
  part: Part,
  hidden: Tensor,
  samples: readonly PlannedSample[],
): Promise<readonly PlannedSample[]> {
  if (!part.options.samplerDiffers) return samples;
  const { rolloutWeightClip: clip } = part.settings;
  const old = part.options.importance
    ? samples.map(oldLogprobs)
    : bySample(await (await part.logprobs(hidden, samples, "weight")).readFloats(), samples);
  return samples.map((sample, i) => {
    const { weights, sampledLogprobs } = sample;
    const ratio = (t: number) => Math.exp(old[i]![t]! - sampledLogprobs[t]!);
    const weighted = clip === null ? weights : weights.map((w, t) => w * Math.min(ratio(t), clip));
    return { ...sample, oldLogprobs: old[i]!, weights: weighted };
  });
}
