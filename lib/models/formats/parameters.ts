import { show } from "../../errors.js";
import type { ModelConfig } from "./config.js";
import { readTensorBytes, type TensorSource } from "./files.js";
import { modelError } from "./json.js";

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";
const COMPARED_BYTES = 1 << 24;

/** Types the native reader converts to f32 or bf16. */
export const READABLE_DTYPES: ReadonlySet<string> = new Set([
  "F32",
  "F16",
  "BF16",
  "Q8_0",
  "Q4_0",
  "Q4_1",
  "Q5_0",
  "Q5_1",
  "Q4_K",
  "Q5_K",
  "Q6_K",
]);

/** Every parameter of the model by its Hugging Face name, with its shape; tied, the output matrix is not among them. */
export function expectedParameters(config: ModelConfig): Map<string, number[]> {
  const { vocabSize, hiddenSize, layers } = config;
  const expected = new Map<string, number[]>([[EMBEDDING, [vocabSize, hiddenSize]]]);
  for (let layer = 0; layer < layers; layer++)
    for (const [name, shape] of layerParameters(config)) expected.set(`model.layers.${layer}.${name}`, shape);
  expected.set("model.norm.weight", [hiddenSize]);
  if (!config.tieEmbeddings) expected.set(HEAD, [vocabSize, hiddenSize]);
  return expected;
}

function layerParameters(config: ModelConfig): [string, number[]][] {
  const { hiddenSize, intermediateSize, headDim, qkNorm, normPlacement } = config;
  const [queries, keys] = [config.heads * headDim, config.keyValueHeads * headDim];
  const linear = (name: string, rows: number, columns: number, bias: boolean): [string, number[]][] => [
    [`${name}.weight`, [rows, columns]],
    ...(bias ? [[`${name}.bias`, [rows]] as [string, number[]]] : []),
  ];
  const norm = (name: string, size: number): [string, number[]] => [`${name}.weight`, [size]];
  const qkNorms: [string, number[]][] = [
    norm("self_attn.q_norm", qkNorm === "all" ? queries : headDim),
    norm("self_attn.k_norm", qkNorm === "all" ? keys : headDim),
  ];
  return [
    ...linear("self_attn.q_proj", queries, hiddenSize, config.attentionBias),
    ...linear("self_attn.k_proj", keys, hiddenSize, config.attentionBias),
    ...linear("self_attn.v_proj", keys, hiddenSize, config.attentionBias),
    ...linear("self_attn.o_proj", hiddenSize, queries, config.outputBias),
    ...(qkNorm === "none" ? [] : qkNorms),
    ...linear("mlp.gate_proj", intermediateSize, hiddenSize, config.mlpBias),
    ...linear("mlp.up_proj", intermediateSize, hiddenSize, config.mlpBias),
    ...linear("mlp.down_proj", hiddenSize, intermediateSize, config.mlpBias),
    norm(normPlacement === "pre" ? "input_layernorm" : "post_feedforward_layernorm", hiddenSize),
    norm("post_attention_layernorm", hiddenSize),
  ];
}

/**
 * The parameters of the model among the stored tensors, in the order of {@link expectedParameters}. Rotary
 * frequency buffers, and an output matrix equal to the embedding it is tied to, may be there too. Throws
 * ERR_SDPO_MODEL naming what is missing, unexpected, of another shape, or of a type that is not read.
 */
export async function selectParameters(
  config: ModelConfig,
  tensors: ReadonlyMap<string, TensorSource>,
  file: string,
): Promise<Map<string, TensorSource>> {
  const expected = expectedParameters(config);
  const missing = [...expected.keys()].filter((name) => !tensors.has(name));
  if (missing.length > 0) {
    const hint = missing[0] === HEAD ? "; is tie_word_embeddings, which is false, wrong?" : "";
    throw modelError(file, `${list(missing)} missing${hint}`);
  }
  const tied = config.tieEmbeddings ? tensors.get(HEAD) : undefined;
  const extra = [...tensors.keys()].filter(
    (name) => !expected.has(name) && !name.endsWith(".rotary_emb.inv_freq") && !(tied && name === HEAD),
  );
  if (extra.length > 0)
    throw modelError(file, `${list(extra)} not part of a ${config.modelType} model with this configuration`);
  const selected = new Map<string, TensorSource>();
  for (const [name, shape] of expected) {
    const tensor = tensors.get(name)!;
    if (tensor.shape.length !== shape.length || tensor.shape.some((n, i) => n !== shape[i]))
      throw modelError(
        tensor.file,
        `tensor ${name} has the shape ${show(tensor.shape)}; its configuration says ${show(shape)}`,
      );
    if (!READABLE_DTYPES.has(tensor.dtype))
      throw modelError(
        tensor.file,
        `tensor ${name} is ${tensor.dtype}; supported: ${[...READABLE_DTYPES].join(", ")}`,
      );
    selected.set(name, tensor);
  }
  if (tied) await checkTied(selected.get(EMBEDDING)!, tied);
  return selected;
}

function list(names: readonly string[]): string {
  const more = names.length > 5 ? ` and ${names.length - 5} more` : "";
  return `${names.slice(0, 5).map(show).join(", ")}${more} ${names.length > 1 ? "are" : "is"}`;
}

async function checkTied(embedding: TensorSource, head: TensorSource): Promise<void> {
  let same = head.dtype === embedding.dtype && head.bytes === embedding.bytes;
  for (let at = 0; same && at < head.bytes; at += COMPARED_BYTES) {
    const bytes = Math.min(COMPARED_BYTES, head.bytes - at);
    const part = (tensor: TensorSource) => readTensorBytes({ ...tensor, offset: tensor.offset + at, bytes });
    same = (await part(head)).equals(await part(embedding));
  }
  if (!same)
    throw modelError(
      head.file,
      "lm_head.weight differs from model.embed_tokens.weight, though tie_word_embeddings is true; set it to false",
    );
}
