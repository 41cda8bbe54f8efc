/** What a training configuration would run: sizes, tokens and memory, before any weight is read. */
import { configWarnings, type TrainConfig } from "../config.js";
import type { ModelConfig } from "../models/formats/config.js";
import { readGgufMetadata } from "../models/formats/gguf.js";
import { readModel } from "../models/formats/model-files.js";
import { openDevice } from "../native/device.js";
import { Tokenizer } from "../text/tokenizer.js";
import { loadRunTasks, resolveInput, type TrainerInput } from "./input.js";
import { checkRun } from "./run-folder.js";
import { identityOf } from "./state.js";
import { extraSlots } from "./update.js";

export interface DryRunReport {
  config: TrainConfig;
  warnings: string[];
  model: {
    type: string;
    parameters: number;
    dtype: "f32" | "bf16";
    layers: number;
    hiddenSize: number;
    vocabSize: number;
    maxPositions: number;
  };
  data: { tasks: number; skipped: number; promptTokens: { mean: number; max: number } };
  /** Of one step; tokens are upper bounds, with shared prompts counted once. */
  step: {
    rollouts: number;
    updates: number;
    rolloutTokens: number;
    scoreTokens: number;
    trainTokens: number;
  };
  /** Estimated bytes by what they are for, all of it at the same time: `total`. */
  memory: Record<string, number> & { total: number };
  /** Bytes of one checkpoint. */
  checkpoint: number;
}

const F32 = 4;
/** The losses hold logits of this many bytes at a time, and at least 128 rows. */
const CHUNK_BYTES = 64 << 20;
const PAGE_TOKENS = 32;

/** Floats that a layer keeps of a token for its backward pass. */
function floatsPerToken(model: ModelConfig): number {
  const { hiddenSize, intermediateSize, heads, keyValueHeads, headDim, qkNorm } = model;
  const queries = heads * headDim;
  const keys = keyValueHeads * headDim;
  const raw = qkNorm === "none" ? 0 : queries + keys;
  return 7 * hiddenSize + 2 * queries + 2 * keys + raw + 3 * intermediateSize + heads;
}

/** Bytes of the parameters in each slot. */
function slotBytes(config: TrainConfig, parameters: number, dtype: "f32" | "bf16"): Record<string, number> {
  const own = parameters * (dtype === "bf16" ? 2 : F32);
  const { teacher, initial } = extraSlots(config);
  return {
    student: own,
    ...(teacher && { teacher: config.teacher === "ema" ? parameters * F32 : own }),
    ...(initial && { "initial model": own }),
    optimizer: parameters * F32 * (dtype === "bf16" ? 3 : 2),
  };
}

function memoryOf(
  config: TrainConfig,
  model: ModelConfig,
  parameters: number,
  slots: Record<string, number>,
  promptMax: number,
  trainTokens: number,
): DryRunReport["memory"] {
  const { generationBatch, tasksPerBatch, rolloutsPerTask, maxCompletionTokens, recompute } = config;
  const pages = (tokens: number) => Math.ceil(tokens / PAGE_TOKENS) * PAGE_TOKENS;
  const active = Math.min(generationBatch, tasksPerBatch * rolloutsPerTask);
  const prompts = Math.min(tasksPerBatch, generationBatch + 1);
  const cached = prompts * pages(promptMax) + active * pages(maxCompletionTokens);
  const perToken = floatsPerToken(model);
  const tokens = Math.min(config.microBatchTokens, trainTokens);
  const kept = recompute ? model.layers * model.hiddenSize + perToken : model.layers * perToken;
  const models = config.algorithm === "grpo" ? 1 : config.teacher === "trust-region" ? 3 : 2;
  const parts: Record<string, number> = {
    ...slots,
    gradient: parameters * F32,
    "key-value cache": cached * model.layers * 2 * model.keyValueHeads * model.headDim * F32,
    activations: tokens * (kept + 2 * model.hiddenSize) * F32,
    logits: models * Math.max(CHUNK_BYTES, 128 * model.vocabSize * F32),
  };
  // The cache is gone when activations come.
  const { "key-value cache": cache, activations, logits, ...steady } = parts;
  const base = Object.values(steady).reduce((a, b) => a + b, 0);
  return { ...parts, total: base + Math.max(cache!, activations! + logits!) };
}

/** Upper bounds of the tokens of a step, and its updates. */
function stepOf(
  config: TrainConfig,
  dtype: "f32" | "bf16",
  meanPrompt: number,
  maxPositions: number,
): DryRunReport["step"] {
  const { tasksPerBatch, rolloutsPerTask, maxCompletionTokens, miniBatchTasks, epochs } = config;
  const rollouts = tasksPerBatch * rolloutsPerTask;
  const rolloutTokens = rollouts * maxCompletionTokens;
  const updates = Math.ceil(tasksPerBatch / (miniBatchTasks ?? tasksPerBatch)) * epochs;
  const student = Math.ceil(tasksPerBatch * meanPrompt + rolloutTokens);
  const reprompt = Math.min(config.maxRepromptTokens, maxPositions - maxCompletionTokens);
  const distils = config.algorithm !== "grpo";
  const teachers = distils ? (config.teacher === "trust-region" ? 2 : 1) : 0;
  const references = config.algorithm !== "sdpo" && config.klCoefficient > 0 ? 1 : 0;
  const old = dtype === "bf16" && updates > 1 ? student : 0;
  const scoreTokens =
    epochs * (teachers * (rollouts * reprompt + rolloutTokens) + references * student) + old;
  return { rollouts, updates, rolloutTokens, scoreTokens, trainTokens: student * epochs };
}

async function loadTokenizer(path: string): Promise<Tokenizer> {
  if (path.endsWith(".gguf")) return Tokenizer.fromGguf(await readGgufMetadata(path), path);
  return Tokenizer.load(path);
}

/**
 * Checks all that `Trainer.create` checks but the weights themselves, changes nothing, and estimates what a run takes.
 * @throws as `Trainer.create`
 */
export async function dryRun(input: TrainerInput): Promise<DryRunReport> {
  const resolved = resolveInput(input);
  const { config } = resolved;
  (await openDevice(config.device)).dispose();
  const { config: model, parameters: sources, tokenizerPath } = await readModel(config.model);
  const stored = [...sources.values()].every(({ dtype }) => dtype === "BF16") ? "bf16" : "f32";
  const dtype = config.dtype === "auto" ? stored : config.dtype;
  const parameters = [...sources.values()].reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0);
  const tokenizer = await loadTokenizer(tokenizerPath);
  const { tasks, skipped } = await loadRunTasks(resolved, tokenizer, model.maxPositions);
  const slots = slotBytes(config, parameters, dtype);
  const checkpoint = Object.values(slots).reduce((a, b) => a + b, 0);
  if (config.output !== null) {
    const kept = { ...config, output: config.output };
    await checkRun(kept, identityOf(config, tokenizer, tasks), checkpoint);
  }
  const lengths = tasks.map(({ promptIds }) => promptIds.length);
  const max = lengths.reduce((a, b) => Math.max(a, b));
  const mean = lengths.reduce((a, b) => a + b, 0) / lengths.length;
  const step = stepOf(config, dtype, mean, model.maxPositions);
  const { modelType: type, layers, hiddenSize, vocabSize, maxPositions } = model;
  return {
    config,
    warnings: configWarnings(config),
    model: { type, parameters, dtype, layers, hiddenSize, vocabSize, maxPositions },
    data: { tasks: tasks.length, skipped, promptTokens: { mean, max } },
    step,
    memory: memoryOf(config, model, parameters, slots, max, step.trainTokens),
    checkpoint,
  };
}
