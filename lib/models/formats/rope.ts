import type { Fields, JsonObject } from "./json.js";

/** How rotary frequencies are stretched beyond the length the model was first trained on. */
export type RopeScaling =
  | { kind: "none" }
  | { kind: "linear"; factor: number }
  | {
      kind: "llama3";
      factor: number;
      lowFreqFactor: number;
      highFreqFactor: number;
      originalMaxPositions: number;
    }
  | {
      kind: "yarn";
      factor: number;
      originalMaxPositions: number;
      betaFast: number;
      betaSlow: number;
      /** Multiplies cos and sin. */
      attentionFactor: number;
      /** Are the ends of the ramp rounded to whole dimensions? */
      truncate: boolean;
    };

/** The rotary position embedding of one kind of layer. */
export interface Rope {
  theta: number;
  scaling: RopeScaling;
}

export interface RopeTable {
  /** [headDim / 2]: radians for each position. */
  invFreq: Float32Array;
  /** Multiplies cos and sin. */
  attentionFactor: number;
}

const NONE: RopeScaling = { kind: "none" };
export const FULL = "full_attention";
export const SLIDING = "sliding_attention";
const MIN_THETA = 1.01;
const MAX_THETA = 1e15;
const ROPE_TYPES = ["default", "linear", "llama3", "yarn"] as const;
const LENGTH_LIMIT = 2 ** 31 - 1;
const FACTOR_LIMIT = 1e6;

/**
 * Reads `rope_theta`, `rope_scaling` and `rope_parameters` of a Hugging Face configuration, old style and new.
 * `scaledSliding` is false where scaling concerns full-attention layers only (olmo3); only such a model may give
 * parameters for each kind of layer.
 */
export function parseRope(
  fields: Fields,
  defaultTheta: number,
  maxPositions: number,
  scaledSliding: boolean,
): { full: Rope; sliding: Rope } {
  const given = fields.has("rope_parameters") ? fields.nested("rope_parameters") : undefined;
  const perKind = given !== undefined && (given.has(FULL) || given.has(SLIDING));
  // Users add rope_scaling to new-style files too, to switch yarn on: it goes before rope_parameters.
  const name = !perKind && fields.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  const own = fields.number("rope_theta", MIN_THETA, MAX_THETA, defaultTheta);
  const theta = given?.number("rope_theta", MIN_THETA, MAX_THETA, own) ?? own;
  if (!fields.has(name)) return { full: { theta, scaling: NONE }, sliding: { theta, scaling: NONE } };
  const parameters = fields.nested(name);
  if (!perKind) {
    const full = parseKind(parameters, theta, maxPositions);
    return { full, sliding: scaledSliding ? full : { theta: full.theta, scaling: NONE } };
  }
  if (scaledSliding) fields.fail(name, "one set of parameters for all layers, as this model_type has");
  const kind = (type: string) =>
    parameters.has(type) ? parseKind(parameters.nested(type), theta, maxPositions) : { theta, scaling: NONE };
  return { full: kind(FULL), sliding: kind(SLIDING) };
}

function parseKind(fields: Fields, defaultTheta: number, maxPositions: number): Rope {
  const theta = fields.number("rope_theta", MIN_THETA, MAX_THETA, defaultTheta);
  fields.number("partial_rotary_factor", 1, 1, 1);
  return { theta, scaling: parseScaling(fields, maxPositions) };
}

function parseScaling(fields: Fields, maxPositions: number): RopeScaling {
  const kind = fields.choice(fields.has("rope_type") ? "rope_type" : "type", ROPE_TYPES, "default");
  if (kind === "default") return NONE;
  if (kind === "linear") return { kind, factor: fields.number("factor", 1, FACTOR_LIMIT) };
  const originalMaxPositions = fields.integer(
    "original_max_position_embeddings",
    1,
    LENGTH_LIMIT,
    maxPositions,
  );
  if (kind === "yarn") return parseYarn(fields, maxPositions, originalMaxPositions);
  const lowFreqFactor = fields.number("low_freq_factor", 1e-6, FACTOR_LIMIT);
  const highFreqFactor = fields.number("high_freq_factor", 1e-6, FACTOR_LIMIT);
  if (highFreqFactor <= lowFreqFactor)
    fields.fail("high_freq_factor", `more than low_freq_factor ${lowFreqFactor}`);
  return {
    kind,
    factor: fields.number("factor", 1, FACTOR_LIMIT),
    lowFreqFactor,
    highFreqFactor,
    originalMaxPositions,
  };
}

function parseYarn(fields: Fields, maxPositions: number, originalMaxPositions: number): RopeScaling {
  const factor = fields.number("factor", 1, FACTOR_LIMIT, maxPositions / originalMaxPositions);
  const betaFast = fields.number("beta_fast", 1e-6, FACTOR_LIMIT, 32);
  const betaSlow = fields.number("beta_slow", 1e-6, FACTOR_LIMIT, 1);
  if (betaFast < betaSlow) fields.fail("beta_fast", `at least beta_slow ${betaSlow}`);
  // From "YaRN: Efficient Context Window Extension" (2309.00071), with DeepSeek's two multipliers.
  const mscale = (weight: number) => 0.1 * weight * Math.log(factor) + 1;
  const numerator = fields.number("mscale", 0, FACTOR_LIMIT, 0);
  const denominator = fields.number("mscale_all_dim", 0, FACTOR_LIMIT, 0);
  const usual = numerator && denominator ? mscale(numerator) / mscale(denominator) : mscale(1);
  return {
    kind: "yarn",
    factor,
    originalMaxPositions,
    betaFast,
    betaSlow,
    attentionFactor: fields.number("attention_factor", 1e-6, FACTOR_LIMIT, usual),
    truncate: fields.boolean("truncate", true),
  };
}

/** Frequencies and attention factor of one kind of layer, as transformers computes them (to 1e-6). */
export function ropeTable({ theta, scaling }: Rope, headDim: number): RopeTable {
  const plain = Array.from({ length: headDim / 2 }, (_, i) => theta ** ((-2 * i) / headDim));
  switch (scaling.kind) {
    case "none":
      return { invFreq: Float32Array.from(plain), attentionFactor: 1 };
    case "linear":
      return { invFreq: Float32Array.from(plain, (f) => f / scaling.factor), attentionFactor: 1 };
    case "llama3": {
      const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions } = scaling;
      const invFreq = Float32Array.from(plain, (f) => {
        const turns = (originalMaxPositions * f) / (2 * Math.PI);
        return mix(f / factor, f, (turns - low) / (high - low));
      });
      return { invFreq, attentionFactor: 1 };
    }
    case "yarn": {
      const { factor, originalMaxPositions, betaFast, betaSlow, attentionFactor, truncate } = scaling;
      const dimension = (turns: number) =>
        (headDim * Math.log(originalMaxPositions / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
      const [first, last] = [dimension(betaFast), dimension(betaSlow)];
      const low = Math.max(truncate ? Math.floor(first) : first, 0);
      const high = Math.min(truncate ? Math.ceil(last) : last, headDim - 1);
      const width = high === low ? 0.001 : high - low;
      const invFreq = Float32Array.from(plain, (f, i) => mix(f, f / factor, (i - low) / width));
      return { invFreq, attentionFactor };
    }
  }
}

function mix(a: number, b: number, share: number): number {
  const t = Math.min(Math.max(share, 0), 1);
  return a * (1 - t) + b * t;
}

/** The fields of a rope_scaling object in Hugging Face's names. */
export function scalingToHf(scaling: RopeScaling): JsonObject | null {
  switch (scaling.kind) {
    case "none":
      return null;
    case "linear":
      return { rope_type: "linear", factor: scaling.factor };
    case "llama3":
      return {
        rope_type: "llama3",
        factor: scaling.factor,
        low_freq_factor: scaling.lowFreqFactor,
        high_freq_factor: scaling.highFreqFactor,
        original_max_position_embeddings: scaling.originalMaxPositions,
      };
    case "yarn":
      return {
        rope_type: "yarn",
        factor: scaling.factor,
        original_max_position_embeddings: scaling.originalMaxPositions,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
        attention_factor: scaling.attentionFactor,
        ...(scaling.truncate ? {} : { truncate: false }),
      };
  }
}
