import { SdpoError, show } from "../errors.js";

export const aggregations = [
  "token-mean",
  "seq-mean-token-sum",
  "seq-mean-token-mean",
  "seq-mean-token-sum-norm",
] as const;

/** How token losses become one number. Sequences whose mask is all 0 are not counted. */
export type Aggregation = (typeof aggregations)[number];

export interface AggregationOptions {
  aggregation: Aggregation;
  /** The denominator, in place of the number of tokens (`token-mean`) or sequences, or of `maxTokens`. */
  normalizer?: number | undefined;
  /** The constant of `seq-mean-token-sum-norm`: by default the longest sequence. */
  maxTokens?: number | undefined;
}

/**
 * The factor of each token in the aggregated loss: loss = sum over unmasked tokens of coefficient * token loss.
 * Called on a whole mini-batch it gives micro-batches factors that do not depend on how the batch is cut.
 * @param mask the loss mask of all sequences, one after the other
 * @param lengths tokens of each sequence; they sum to mask's length
 * @returns one factor for each token, 0 throughout a sequence without unmasked tokens unless `token-mean`
 * @throws ERR_SDPO_ARGUMENT where the lengths do not fit or an option is not one of its values
 */
export function aggregationCoefficients(
  mask: ArrayLike<number>,
  lengths: ArrayLike<number>,
  { aggregation, normalizer, maxTokens }: AggregationOptions,
): Float64Array {
  const sequences = Array.from(lengths);
  const total = sequences.reduce((sum, length) => sum + length, 0);
  if (total !== mask.length) {
    throw new SdpoError(
      "ERR_SDPO_ARGUMENT",
      `lengths: expected a sum of ${mask.length}, the mask's length, got ${total}`,
    );
  }
  if (!aggregations.includes(aggregation)) {
    throw new SdpoError(
      "ERR_SDPO_ARGUMENT",
      `aggregation: expected ${aggregations.map((name) => `"${name}"`).join(" | ")}, got ${show(aggregation)}`,
    );
  }
  const counts: number[] = [];
  let start = 0;
  for (const length of sequences) {
    let count = 0;
    for (let i = start; i < start + length; i++) if (mask[i] !== 0) count++;
    counts.push(count);
    start += length;
  }
  const tokens = counts.reduce((sum, count) => sum + count, 0);
  const counted = counts.filter((count) => count > 0).length;
  const denominators: Record<Aggregation, number> = {
    "token-mean": tokens,
    "seq-mean-token-sum": counted,
    "seq-mean-token-mean": counted,
    "seq-mean-token-sum-norm": maxTokens ?? Math.max(...sequences, 1),
  };
  const denominator = normalizer ?? Math.max(denominators[aggregation], 1);
  const coefficients = new Float64Array(total);
  start = 0;
  sequences.forEach((length, s) => {
    const count = counts[s]!;
    const own = aggregation === "token-mean" ? 1 : count === 0 ? 0 : 1;
    const share = aggregation === "seq-mean-token-mean" && count > 0 ? own / count : own;
    coefficients.fill(share / denominator, start, start + length);
    start += length;
  });
  return coefficients;
}
