import type { TensorSource } from "../models/formats/files.js";
import { readModel } from "../models/formats/model-files.js";
import { readSafetensors } from "../models/formats/safetensors.js";
import { loadTokenizer } from "../models/model.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { Report } from "./inspect.js";
import { bytes } from "./io.js";

/** Tensors by type: `F32: 61 tensors, 73.4 MB`. */
function byType(tensors: Iterable<TensorSource>): Record<string, string> {
  const types = new Map<string, { tensors: number; size: number }>();
  for (const { dtype, bytes: size } of tensors) {
    const sum = types.get(dtype) ?? { tensors: 0, size: 0 };
    types.set(dtype, { tensors: sum.tensors + 1, size: sum.size + size });
  }
  return Object.fromEntries(
    [...types].map(([type, { tensors, size }]) => [type, `${tensors} tensors, ${bytes(size)}`]),
  );
}

function elements(tensors: Iterable<TensorSource>): number {
  let sum = 0;
  for (const { shape } of tensors) sum += shape.reduce((a, b) => a * b, 1);
  return sum;
}

/** A model's architecture, weights and tokenizer; reads no weight. Throws ERR_SDPO_FILE, ERR_SDPO_MODEL. */
export async function inspectModel(path: string): Promise<Report> {
  const { config, parameters, tokenizerPath } = await readModel(path);
  const windows = config.slidingWindow.filter((window) => window > 0);
  return {
    kind: "model",
    path,
    architecture: config.modelType,
    parameters: elements(parameters.values()),
    weights: byType(parameters.values()),
    layers: config.layers,
    hidden: config.hiddenSize,
    "feed-forward": config.intermediateSize,
    heads: `${config.heads} of ${config.headDim}, ${config.keyValueHeads} for keys and values`,
    vocabulary: config.vocabSize,
    embeddings: config.tieEmbeddings ? "tied to the output" : "not tied to the output",
    positions: config.maxPositions,
    "sliding window": windows.length > 0 ? `${windows[0]} tokens in ${windows.length} layers` : undefined,
    "cache a token": `${bytes(config.layers * config.keyValueHeads * config.headDim * 8)} in f32`,
    "end tokens": config.eosTokenIds.join(", ") || "none",
    ...(await inspectTokenizer(tokenizerPath)),
  };
}

async function inspectTokenizer(path: string): Promise<Record<string, unknown>> {
  try {
    const tokenizer = await loadTokenizer(path);
    if (tokenizer === undefined) return { tokenizer: "none" };
    const stops = tokenizer.eosTokenIds.map((id) => `${id} ${tokenizer.idToToken(id)}`);
    return {
      tokenizer: `${tokenizer.vocabularySize} tokens, ends at ${stops.join(", ") || "nothing"}`,
      "tokenizer hash": tokenizer.hash,
      "chat template": renderTemplate(tokenizer),
    };
  } catch (error) {
    return { tokenizer: `cannot be used: ${(error as Error).message}` };
  }
}

/** A short conversation as the template writes it, or why it does not. */
function renderTemplate(tokenizer: Tokenizer): string {
  try {
    return tokenizer.chat([{ role: "user", content: "Hello" }], { addGenerationPrompt: true }).text;
  } catch (error) {
    return `none: ${(error as Error).message}`;
  }
}

/** What a safetensors file without a configuration holds. */
export async function inspectTensors(path: string): Promise<Report> {
  const { tensors, metadata } = await readSafetensors(path);
  const named = [...tensors].map(([name, { dtype, shape }]) => `${name} ${dtype} [${shape.join(", ")}]`);
  const more = named.length > 20 ? [`and ${named.length - 20} more`] : [];
  return {
    kind: "tensors",
    path,
    elements: elements(tensors.values()),
    weights: byType(tensors.values()),
    metadata,
    tensors: [...named.slice(0, 20), ...more],
  };
}
