/** A training run's state in checkpoints: weights, teacher, optimizer, counters. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { TrainConfig } from "../config.js";
import { SdpoError } from "../errors.js";
import { matrixShape, type TensorSource } from "../models/formats/files.js";
import { readSafetensorsFolder } from "../models/formats/safetensors.js";
import type { TensorToWrite } from "../models/formats/safetensors-write.js";
import type { Model } from "../models/model.js";
import { asSdpoError } from "../native/load.js";
import type { PromptedTask } from "../rollouts/types.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { type Checkpoint, writeCheckpoint } from "./checkpoint.js";
import type { RunIdentity } from "./run-folder.js";
import type { TrainState } from "./step.js";
import { extraSlots } from "./update.js";

/** Slots besides the weights that a run has to remember. */
function rememberedSlots({ config, model, optimizer }: TrainState): string[] {
  const { teacher, initial } = extraSlots(config);
  const slots = [...optimizer.slots, ...(teacher ? ["teacher"] : []), ...(initial ? ["initial"] : [])];
  return slots.filter((slot) => model.hasSlot(slot));
}

function tensorsOf(model: Model, slot: string): TensorToWrite[] {
  using flat = model.flat(slot);
  const dtype = flat.dtype === "bf16" ? "BF16" : "F32";
  return model.parameters.map(({ name, shape }) => {
    const data = async () => {
      using view = model.parameter(slot, name);
      return new Uint8Array(await view.readBytes());
    };
    return { name, dtype, shape, data };
  });
}

async function loadSlot(model: Model, slot: string, sources: Map<string, TensorSource>, folder: string) {
  for (const { name } of model.parameters) {
    const source = sources.get(name);
    if (!source) {
      const problem = `${folder}: has no ${slot} tensor ${name}; resume with the model that the run began with`;
      throw new SdpoError("ERR_SDPO_CHECKPOINT", problem);
    }
    const { dtype: type, fileSize, offset, bytes } = source;
    const place = { type, fileSize, offset, bytes, pairedHeadDim: 0, ...matrixShape(source) };
    await model.native.load(slot, name, source.file, place).catch((error: unknown) => {
      throw asSdpoError(error);
    });
  }
}

/** SHA-256 of the tasks' names and prompts, in order. */
export function hashTasks(tasks: readonly PromptedTask[]): string {
  const hash = createHash("sha256");
  for (const { id, promptIds } of tasks) hash.update(`${JSON.stringify(id)} ${promptIds.join(",")}\n`);
  return hash.digest("hex");
}

/** What a checkpoint must agree with to be resumed. */
export function identityOf(
  config: TrainConfig,
  tokenizer: Tokenizer,
  tasks: readonly PromptedTask[],
): RunIdentity {
  return { config, tokenizerHash: tokenizer.hash, dataHash: hashTasks(tasks) };
}

/** Bytes of the tensors of one checkpoint. */
export function checkpointBytes(state: TrainState): number {
  const sizeOf = (slot: string) => {
    using flat = state.model.flat(slot);
    return flat.size * (flat.dtype === "bf16" ? 2 : 4);
  };
  return ["weight", ...rememberedSlots(state)].reduce((sum, slot) => sum + sizeOf(slot), 0);
}

/** Writes the checkpoint of the step that was done last; its folder is also a Hugging Face model folder. */
export async function saveState(
  state: TrainState,
  identity: RunIdentity,
  { output, keepCheckpoints }: { output: string; keepCheckpoints: number },
): Promise<string> {
  const { model, step, emptySteps, nonFinite } = state;
  const slots = rememberedSlots(state);
  const tensors = Object.fromEntries(slots.map((slot) => [`${slot}.safetensors`, tensorsOf(model, slot)]));
  const counters = { updates: state.optimizer.updates, cursor: state.order.cursor, emptySteps, nonFinite };
  const contents = {
    tensors,
    state: { ...identity, step, ...counters },
    write: (folder: string) => model.save(folder),
  };
  return writeCheckpoint(output, step, contents, keepCheckpoints);
}

/** Sets weights, slots and counters to the checkpoint's. Throws ERR_SDPO_CHECKPOINT where one is missing. */
export async function restoreState(state: TrainState, checkpoint: Checkpoint): Promise<void> {
  const { model, optimizer, order } = state;
  const { folder } = checkpoint;
  await loadSlot(model, "weight", await readSafetensorsFolder(folder), folder);
  for (const slot of rememberedSlots(state)) {
    await loadSlot(model, slot, await checkpoint.tensors(`${slot}.safetensors`), join(folder, slot));
  }
  const counter = (name: string) => {
    const value = checkpoint.state[name];
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    throw new SdpoError("ERR_SDPO_CHECKPOINT", `${folder}: state.json: ${name} is missing or no count`);
  };
  state.step = checkpoint.step;
  state.emptySteps = counter("emptySteps");
  state.nonFinite = counter("nonFinite");
  optimizer.updates = counter("updates");
  order.cursor = counter("cursor");
}
