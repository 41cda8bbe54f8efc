/** What the losses of a batch of B completions of T tokens have in common: rows, weights, aggregation. */
import { Tensor } from "../native/tensor.js";
import { type Aggregation, aggregationCoefficients, aggregations } from "./aggregation.js";
import {
  checkBoolean,
  checkChoice,
  checkNumber,
  type HostValues,
  hostTokens,
  refuse,
  type Temporaries,
  tokenWeightsOf,
} from "./arguments.js";

/** What of its completions every loss takes. */
export interface CompletionBatch {
  /** [B,T,V], where no argument shows it: logits that are a Tensor do, nested tokenIds do. */
  shape?: readonly [number, number, number];
  /** The sampled tokens, [B,T]. */
  tokenIds: HostValues;
  /** 1 for a token of the completion that is ours to learn, [B,T]. */
  completionMask: HostValues;
  /** min(p_old / p_sampler, 2) of each token, [B,T]. */
  rolloutWeights?: HostValues;
  /** Any further factor of each token's loss, [B,T]. */
  tokenWeights?: HostValues;
}

/** Options that every loss takes. */
export interface BatchOptions {
  /** Default "token-mean". */
  aggregation?: Aggregation;
  /** The temperature that the tokens were sampled with. Default 1. */
  temperature?: number;
  /** The aggregation's denominator, where micro-batches share one. */
  normalizer?: number;
}

/** @internal */
export const completionKeys = ["shape", "tokenIds", "completionMask", "rolloutWeights", "tokenWeights"];
/** @internal */
export const batchOptionKeys = ["aggregation", "temperature", "normalizer"];

export function checkAggregation({ aggregation = "token-mean", normalizer }: BatchOptions) {
  if (normalizer !== undefined) checkNumber("normalizer", normalizer, { least: 0, above: true });
  return { aggregation: checkChoice("aggregation", aggregation, aggregations), normalizer };
}

export function checkTemperature({ temperature = 1 }: BatchOptions): number {
  return checkNumber("temperature", temperature, { least: 1e-6, most: 1e6 });
}

/** Is the gradient to take the memory of the logits? They must be a Tensor then. */
export function checkInPlace(inPlace: boolean | undefined, name: string, logits: unknown): boolean {
  const wanted = checkBoolean("inPlace", inPlace ?? false);
  if (wanted && !(logits instanceof Tensor)) throw refuse(name, "a Tensor, as inPlace is set", logits);
  return wanted;
}

/** Rows of the tokens in `mask`: what the ops take of them, and what their losses are aggregated with. */
export async function batchRows(
  temporaries: Temporaries,
  batch: CompletionBatch,
  mask: ArrayLike<number>,
  [b, t, v]: readonly [number, number, number],
  aggregation: ReturnType<typeof checkAggregation>,
) {
  const tokenIds = await hostTokens("tokenIds", batch.tokenIds, [b, t], v);
  const weights = await tokenWeightsOf(batch, mask, [b, t]);
  const coefficients = aggregationCoefficients(mask, new Array<number>(b).fill(t), aggregation);
  return {
    weights,
    coefficients,
    inputs: {
      tokenIds: temporaries.keep(Tensor.from(temporaries.device, tokenIds, [b * t])),
      weights: temporaries.floats(weights),
      coefficients: temporaries.floats(coefficients),
    },
  };
}

/** Sum of coefficient * token loss over the rows that count. */
export async function aggregate(
  tokenLoss: Tensor,
  rows: { weights: Float64Array; coefficients: Float64Array },
): Promise<number> {
  const losses = await tokenLoss.readFloats();
  let loss = 0;
  for (let i = 0; i < losses.length; i++)
    if (rows.weights[i] !== 0) loss += rows.coefficients[i]! * losses[i]!;
  return loss;
}
