import { Fields, type JsonObject } from "./json.js";
import { FULL, parseRope, type Rope, type RopeTable, ropeTable, SLIDING, scalingToHf } from "./rope.js";

export const MODEL_TYPES = ["llama", "qwen2", "qwen3", "olmo3"] as const;
export type ModelType = (typeof MODEL_TYPES)[number];

const WEIGHT_DTYPES = ["float32", "bfloat16", "float16"] as const;

/** A complete, plain description of a decoder-only transformer. */
export interface ModelConfig {
  /** Hugging Face's model_type. */
  modelType: ModelType;
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  keyValueHeads: number;
  headDim: number;
  /** Added to the mean square in RMSNorm. */
  normEps: number;
  /** Is the output matrix the embedding? */
  tieEmbeddings: boolean;
  /** Have the query, key and value projections a bias? */
  attentionBias: boolean;
  /** Has the attention's output projection a bias? */
  outputBias: boolean;
  mlpBias: boolean;
  /** RMSNorm of queries and keys: of each head, or of all heads at once. */
  qkNorm: "none" | "head" | "all";
  /** Norms before attention and MLP, or on what they return. */
  normPlacement: "pre" | "post";
  /** For each layer how many tokens it sees, itself included; 0: all before it. */
  slidingWindow: number[];
  /** Layers with a window take `sliding`, the others `full`. */
  rope: { full: Rope; sliding: Rope };
  maxPositions: number;
  eosTokenIds: number[];
  bosTokenId: number | null;
  /** Of the weights as stored. */
  dtype: (typeof WEIGHT_DTYPES)[number];
}

/** What transformers assumes where a configuration is silent, and how the architectures differ. */
const ARCHITECTURES = {
  llama: { className: "LlamaForCausalLM", theta: 1e4, eps: 1e-6, positions: 2048, qkNorm: "none" },
  qwen2: { className: "Qwen2ForCausalLM", theta: 1e4, eps: 1e-6, positions: 32768, qkNorm: "none" },
  qwen3: { className: "Qwen3ForCausalLM", theta: 1e4, eps: 1e-6, positions: 32768, qkNorm: "head" },
  olmo3: { className: "Olmo3ForCausalLM", theta: 5e5, eps: 1e-5, positions: 2048, qkNorm: "all" },
} as const;

const INT32 = 2 ** 31 - 1;
export const MAX_LAYERS = 4096;
const OLMO_WINDOW = 4096;

/**
 * Reads a Hugging Face `config.json` (old style: rope_theta, rope_scaling, torch_dtype; new: rope_parameters,
 * dtype). Throws ERR_SDPO_MODEL naming the field, also for what this engine does not compute. `label` gives the
 * name of a field in the file where that differs.
 */
export function parseModelConfig(json: unknown, file: string, label?: (name: string) => string): ModelConfig {
  const fields = new Fields(json, file, label);
  if (fields.has("quantization_config"))
    fields.fail(
      "quantization_config",
      "none; convert the weights to F32, F16 or BF16 first, or take a GGUF file",
    );
  const modelType = fields.choice("model_type", MODEL_TYPES);
  const usual = ARCHITECTURES[modelType];
  fields.choice("hidden_act", ["silu"], "silu");
  fields.number("partial_rotary_factor", 1, 1, 1);
  const layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS);
  const heads = fields.integer("num_attention_heads", 1, 1 << 16);
  const maxPositions = fields.integer("max_position_embeddings", 1, INT32, usual.positions);
  const bias = modelType !== "qwen2" && fields.boolean("attention_bias", false);
  const sizes = parseSizes(fields, modelType, heads);
  return {
    modelType,
    ...sizes,
    layers,
    heads,
    normEps: fields.number("rms_norm_eps", 1e-20, 1, usual.eps),
    tieEmbeddings: fields.boolean("tie_word_embeddings", false),
    attentionBias: modelType === "qwen2" || bias,
    outputBias: bias,
    mlpBias: modelType === "llama" && fields.boolean("mlp_bias", false),
    qkNorm: usual.qkNorm,
    normPlacement: modelType === "olmo3" ? "post" : "pre",
    slidingWindow: parseWindows(fields, modelType, layers),
    rope: parseRope(fields, usual.theta, maxPositions, modelType !== "olmo3"),
    maxPositions,
    eosTokenIds: parseTokenIds(fields, "eos_token_id"),
    bosTokenId: parseTokenIds(fields, "bos_token_id")[0] ?? null,
    dtype: fields.choice(fields.has("dtype") ? "dtype" : "torch_dtype", WEIGHT_DTYPES, "float32"),
  };
}

function parseSizes(fields: Fields, modelType: ModelType, heads: number) {
  const hiddenSize = fields.integer("hidden_size", 1, 1 << 20);
  const keyValueHeads = fields.integer("num_key_value_heads", 1, heads, heads);
  if (heads % keyValueHeads !== 0)
    fields.fail("num_key_value_heads", `a divisor of the ${heads} attention heads`);
  // transformers gives Qwen3 without head_dim 128, whatever its hidden size.
  const usual = modelType === "qwen3" ? 128 : hiddenSize / heads;
  if (!fields.has("head_dim") && !Number.isInteger(usual))
    fields.fail("hidden_size", `a multiple of the ${heads} attention heads, or head_dim`);
  const headDim = fields.integer("head_dim", 2, 4096, usual);
  if (headDim % 2 !== 0)
    fields.fail("head_dim", `an even number, ${headDim} is odd: rotary embedding pairs dimensions`);
  return {
    vocabSize: fields.integer("vocab_size", 1, 1 << 24),
    hiddenSize,
    intermediateSize: fields.integer("intermediate_size", 1, 1 << 24),
    keyValueHeads,
    headDim,
  };
}

function parseWindows(fields: Fields, modelType: ModelType, layers: number): number[] {
  const types = fields.value("layer_types");
  const known = (type: unknown) => type === SLIDING || type === FULL;
  if (types !== undefined && !(Array.isArray(types) && types.length === layers && types.every(known)))
    fields.fail("layer_types", `${layers} times ${FULL} or ${SLIDING}, one for each layer`);
  const full = () => new Array<number>(layers).fill(0);
  if (modelType === "llama") {
    if (Array.isArray(types) && types.includes(SLIDING))
      fields.fail("layer_types", `${FULL} only, for llama`);
    return full();
  }
  const olmo = modelType === "olmo3";
  if (!olmo && !(fields.boolean("use_sliding_window", false) && fields.has("sliding_window"))) return full();
  const first = olmo ? 0 : fields.integer("max_window_layers", 0, INT32, 28);
  const slides = (i: number) =>
    Array.isArray(types) ? types[i] === SLIDING : olmo ? (i + 1) % 4 !== 0 : i >= first;
  const window = fields.integer("sliding_window", 1, INT32, olmo ? OLMO_WINDOW : undefined);
  return full().map((_, i) => (slides(i) ? window : 0));
}

/** One token id or a list of them; absent: none. */
export function parseTokenIds(fields: Fields, name: string): number[] {
  const value = fields.value(name) ?? [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) <= INT32;
  if (ids.length > 1024 || !ids.every(isId)) fields.fail(name, "a token id or a list of token ids");
  return [...new Set(ids as number[])];
}

/** Rotary frequencies for the two kinds of layers; equal where the model has only one. */
export function ropeTables({ rope, headDim }: ModelConfig): { full: RopeTable; sliding: RopeTable } {
  return { full: ropeTable(rope.full, headDim), sliding: ropeTable(rope.sliding, headDim) };
}

/** The `config.json` from which transformers builds this model: the inverse of {@link parseModelConfig}. */
export function toHfConfig(config: ModelConfig): JsonObject {
  const { rope, modelType, eosTokenIds } = config;
  return {
    architectures: [ARCHITECTURES[modelType].className],
    model_type: modelType,
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.keyValueHeads,
    head_dim: config.headDim,
    hidden_act: "silu",
    rms_norm_eps: config.normEps,
    max_position_embeddings: config.maxPositions,
    tie_word_embeddings: config.tieEmbeddings,
    attention_bias: config.outputBias,
    mlp_bias: config.mlpBias,
    attention_dropout: 0,
    rope_theta: rope.full.theta,
    rope_scaling: scalingToHf(rope.full.scaling),
    ...(modelType === "olmo3" ? olmoRope(config) : {}),
    ...windowsToHf(config),
    bos_token_id: config.bosTokenId,
    eos_token_id: eosTokenIds.length > 1 ? eosTokenIds : (eosTokenIds[0] ?? null),
    torch_dtype: config.dtype,
  };
}

/** transformers 5 takes the theta of olmo3's sliding layers from here only; version 4 ignores it. */
function olmoRope({ rope }: ModelConfig): JsonObject {
  const parameters = ({ theta, scaling }: Rope) => ({
    rope_type: "default",
    ...scalingToHf(scaling),
    rope_theta: theta,
  });
  return { rope_parameters: { [FULL]: parameters(rope.full), [SLIDING]: parameters(rope.sliding) } };
}

function windowsToHf({ modelType, slidingWindow, layers }: ModelConfig): JsonObject {
  if (modelType === "llama") return {};
  const first = slidingWindow.findIndex((window) => window > 0);
  // transformers makes olmo3's mask of the window even where no layer has one.
  const unused = modelType === "olmo3" ? OLMO_WINDOW : null;
  return {
    layer_types: slidingWindow.map((window) => (window > 0 ? SLIDING : FULL)),
    sliding_window: first < 0 ? unused : slidingWindow[first],
    ...(modelType === "olmo3"
      ? {}
      : { use_sliding_window: first >= 0, max_window_layers: first < 0 ? layers : first }),
  };
}
