import { show } from "../../errors.js";
import { MAX_LAYERS, type ModelConfig, type ModelType, parseModelConfig } from "./config.js";
import { readTensorBytes, type TensorSource } from "./files.js";
import type { Gguf } from "./gguf.js";
import { isCount, type JsonObject, modelError } from "./json.js";
import { FULL, ropeTable, SLIDING } from "./rope.js";

/** llama.cpp's architectures with Hugging Face's model_type; it calls OLMo 3, and OLMo 2 which has no windows, olmo2. */
const ARCHITECTURES: Readonly<Record<string, ModelType>> = {
  llama: "llama",
  qwen2: "qwen2",
  qwen3: "qwen3",
  olmo2: "olmo3",
};

/** What llama.cpp takes where the file does not say rope.freq_base. */
const USUAL_THETA = 1e4;

const TOP_NAMES: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

const LAYER_NAMES: Readonly<Record<string, string>> = {
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

const NORM_NAMES: Readonly<Record<ModelConfig["normPlacement"], Readonly<Record<string, string>>>> = {
  pre: { attn_norm: "input_layernorm", ffn_norm: "post_attention_layernorm" },
  post: { post_attention_norm: "post_attention_layernorm", post_ffw_norm: "post_feedforward_layernorm" },
};

/** Hugging Face's name of a parameter that llama.cpp's converter calls `name`; undefined where there is none. */
export function hfName(name: string, norms: ModelConfig["normPlacement"] = "pre"): string | undefined {
  const match = /^(?:blk\.(0|[1-9]\d*)\.)?(\w+)\.(weight|bias)$/.exec(name);
  if (!match) return undefined;
  const [, layer, stem, kind] = match as unknown as [string, string | undefined, string, string];
  const names = layer === undefined ? TOP_NAMES : { ...LAYER_NAMES, ...NORM_NAMES[norms] };
  if (!Object.hasOwn(names, stem)) return undefined;
  return `${layer === undefined ? "" : `model.layers.${layer}.`}${names[stem]}.${kind}`;
}

/**
 * The configuration and the tensors, by Hugging Face name, of a GGUF file of one of the {@link ARCHITECTURES}.
 * Throws ERR_SDPO_MODEL for what is not supported.
 */
export async function ggufModel(
  gguf: Gguf,
): Promise<{ config: ModelConfig; tensors: Map<string, TensorSource> }> {
  const { architecture, json, label } = hfFields(gguf);
  const config = parseModelConfig(json, gguf.file, label);
  const rotary = gguf.metadata[`${architecture}.rope.dimension_count`] ?? config.headDim;
  if (rotary !== config.headDim)
    throw modelError(
      gguf.file,
      `${architecture}.rope.dimension_count is ${show(rotary)}; supported: all ${config.headDim} dimensions of a head`,
    );
  const tensors = new Map<string, TensorSource>();
  for (const [stored, tensor] of gguf.tensors) {
    if (stored === "rope_freqs.weight") {
      await applyRopeFactors(config, tensor);
      continue;
    }
    const name = hfName(stored, config.normPlacement);
    if (name === undefined)
      throw modelError(gguf.file, `tensor ${show(stored)} is not part of the ${architecture} model`);
    const paired = config.modelType === "llama" && /\.self_attn\.[qk]_proj\./.test(name);
    tensors.set(name, paired ? { ...tensor, pairedHeadDim: config.headDim } : tensor);
  }
  return { config, tensors };
}

/** The metadata as the fields of a Hugging Face configuration, and what each is called in the file. */
function hfFields({ file, metadata, tensors }: Gguf) {
  const architecture = metadata["general.architecture"];
  if (typeof architecture !== "string" || !Object.hasOwn(ARCHITECTURES, architecture))
    throw modelError(
      file,
      `general.architecture is ${show(architecture)}; supported: ${Object.keys(ARCHITECTURES).join(", ")}`,
    );
  const own = (key: string) => metadata[`${architecture}.${key}`];
  refuseUnknownMathematics(file, architecture, own);
  const keys: Record<string, string> = {
    hidden_size: "embedding_length",
    intermediate_size: "feed_forward_length",
    num_hidden_layers: "block_count",
    num_attention_heads: "attention.head_count",
    num_key_value_heads: "attention.head_count_kv",
    head_dim: "attention.key_length",
    rms_norm_eps: "attention.layer_norm_rms_epsilon",
    max_position_embeddings: "context_length",
    rope_theta: "rope.freq_base",
  };
  const json: JsonObject = { model_type: ARCHITECTURES[architecture] };
  for (const [name, key] of Object.entries(keys)) {
    const value = own(key);
    if (value === undefined && name !== "head_dim" && name !== "num_key_value_heads" && name !== "rope_theta")
      throw modelError(file, `metadata ${architecture}.${key} is missing; convert the model to GGUF again`);
    json[name] = typeof value === "number" ? shortestFloat(value) : value;
  }
  json.head_dim ??= Number(json.hidden_size) / Number(json.num_attention_heads);
  json.rope_theta ??= USUAL_THETA;
  json.rope_scaling = ropeScaling(own);
  if (architecture === "olmo2")
    Object.assign(json, slidingWindows(file, own, Number(json.num_hidden_layers)));
  Object.assign(json, fromTensors(file, tensors), tokenIds(metadata));
  const label = (name: string) => (Object.hasOwn(keys, name) ? `${architecture}.${keys[name]}` : name);
  return { architecture, json, label };
}

/** Which layers have a window: a list for all layers, or every which one has none (the fourth, where nothing is said). */
function slidingWindows(file: string, own: (key: string) => unknown, layers: number): JsonObject {
  const window = own("attention.sliding_window") ?? 0;
  const pattern = own("attention.sliding_window_pattern") ?? 4;
  const isList = Array.isArray(pattern) && pattern.length === layers;
  if (!isList && !(isCount(pattern) && pattern > 0)) {
    const expected = `${layers} booleans, one for each layer, or a number from 1`;
    throw modelError(
      file,
      `olmo2.attention.sliding_window_pattern is ${show(pattern)}; expected ${expected}`,
    );
  }
  const slides = (i: number) =>
    window !== 0 && (isList ? pattern[i] === true : (i + 1) % (pattern as number) !== 0);
  // A count that is no count is refused with the other sizes.
  const length = isCount(layers) && layers <= MAX_LAYERS ? layers : 0;
  const types = Array.from({ length }, (_, i) => (slides(i) ? SLIDING : FULL));
  return { layer_types: types, ...(window === 0 ? {} : { sliding_window: window }) };
}

function refuseUnknownMathematics(file: string, architecture: string, own: (key: string) => unknown): void {
  const usual: Record<string, unknown> = {
    expert_count: 0,
    "attention.sliding_window": architecture === "olmo2" ? own("attention.sliding_window") : 0,
    "rope.freq_base_swa": own("rope.freq_base") ?? USUAL_THETA,
    "attention.value_length": own("attention.key_length"),
    "rope.scaling.attn_factor": architecture === "olmo2" ? own("rope.scaling.attn_factor") : 1,
    "rope.scaling.yarn_ext_factor": 1,
    "rope.scale_linear": 1,
  };
  for (const [key, expected] of Object.entries(usual)) {
    const value = own(key);
    if (value !== undefined && expected !== undefined && value !== expected)
      throw modelError(
        file,
        `${architecture}.${key} is ${show(value)}; supported: ${show(expected)} or none`,
      );
  }
}

function ropeScaling(own: (key: string) => unknown): JsonObject | undefined {
  const type = own("rope.scaling.type");
  if (type === undefined || type === "none") return undefined;
  const float = (key: string) => {
    const value = own(`rope.scaling.${key}`);
    return typeof value === "number" ? shortestFloat(value) : value;
  };
  return {
    rope_type: type,
    factor: float("factor"),
    original_max_position_embeddings: own("rope.scaling.original_context_length"),
    // A copy of attention_factor in the Hugging Face configuration; OLMo's converter once gave it the other name.
    attention_factor: float("yarn_attn_factor") ?? float("attn_factor"),
    beta_fast: float("yarn_beta_fast"),
    beta_slow: float("yarn_beta_slow"),
  };
}

/** What GGUF says only by which tensors there are. */
function fromTensors(file: string, tensors: ReadonlyMap<string, TensorSource>): JsonObject {
  const embedding = tensors.get("token_embd.weight");
  if (!embedding)
    throw modelError(file, `tensor "token_embd.weight" is missing; convert the model to GGUF again`);
  const dtypes: Record<string, string> = { BF16: "bfloat16", F16: "float16" };
  return {
    vocab_size: embedding.shape[0],
    tie_word_embeddings: !tensors.has("output.weight"),
    attention_bias: tensors.has("blk.0.attn_output.bias"),
    mlp_bias: tensors.has("blk.0.ffn_up.bias"),
    dtype: dtypes[embedding.dtype] ?? "float32",
  };
}

function tokenIds(metadata: Record<string, unknown>): JsonObject {
  const ids = ["eos", "eot"].map((kind) => metadata[`tokenizer.ggml.${kind}_token_id`]);
  return {
    bos_token_id: metadata["tokenizer.ggml.bos_token_id"],
    eos_token_id: ids.filter((id) => id !== undefined),
  };
}

/** The shortest decimal that rounds to this float32, as the model's authors wrote it: 1e-5 for 9.99999974e-6. */
function shortestFloat(value: number): number {
  if (Number.isInteger(value) || Math.fround(value) !== value) return value;
  for (let digits = 1; digits < 9; digits++) {
    const shorter = Number(value.toPrecision(digits));
    if (Math.fround(shorter) === value) return shorter;
  }
  return value;
}

/**
 * GGUF replaces llama 3's rope_scaling by a tensor of the divisors that follow from it. Finds the parameters that
 * give these divisors, with the usual low_freq_factor 1 and high_freq_factor 4, and refuses any other tensor.
 */
async function applyRopeFactors(config: ModelConfig, tensor: TensorSource): Promise<void> {
  const { headDim, rope } = config;
  const half = headDim / 2;
  const refuse = (problem: string) =>
    modelError(
      tensor.file,
      `tensor rope_freqs.weight ${problem}; convert the model from its Hugging Face folder`,
    );
  if (tensor.dtype !== "F32" || tensor.shape.length !== 1 || tensor.shape[0] !== half)
    throw refuse(`is ${tensor.dtype} ${show(tensor.shape)}, expected F32 [${half}]`);
  if (rope.full.scaling.kind !== "none") throw refuse("is there beside another scaling");
  const bytes = await readTensorBytes(tensor);
  const divisors = Array.from({ length: half }, (_, i) => bytes.readFloatLE(4 * i));
  const factor = shortestFloat(Math.max(...divisors));
  if (divisors.every((divisor) => divisor === 1)) return;
  const plain = ropeTable(rope.full, headDim).invFreq;
  const scaled = {
    theta: rope.full.theta,
    scaling: {
      kind: "llama3" as const,
      factor,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositions: originalLength(divisors, plain, factor),
    },
  };
  const table =
    factor > 1 && isCount(scaled.scaling.originalMaxPositions) ? ropeTable(scaled, headDim).invFreq : [];
  if (!divisors.every((d, i) => Math.abs((table[i]! * d) / plain[i]! - 1) < 1e-5))
    throw refuse("does not hold the divisors of a llama3 rope_scaling");
  config.rope = { full: scaled, sliding: scaled };
}

/** From a frequency that lies within the ramp, whose place there follows from its divisor. */
function originalLength(divisors: readonly number[], plain: Float32Array, factor: number): number {
  const i = divisors.findIndex((d) => d > 1.01 && d < factor * 0.99);
  if (i < 0) return 8192;
  const share = (1 / divisors[i]! - 1 / factor) / (1 - 1 / factor);
  return Math.round(((1 + 3 * share) * 2 * Math.PI) / plain[i]!);
}
