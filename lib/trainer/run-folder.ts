import { access, constants, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { type TrainConfig, usedConfig } from "../config.js";
import { SdpoError, show } from "../errors.js";
import { exists } from "../models/formats/safetensors.js";
import { writeJson, writeText } from "../models/formats/safetensors-write.js";
import {
  type Checkpoint,
  checkCheckpointSpace,
  findCheckpoint,
  MANIFEST,
  removeLeftovers,
} from "./checkpoint.js";

/** A configuration whose run is kept. */
export type RunConfig = TrainConfig & { output: string };

const ROLLOUTS = "rollouts";
/** Bytes of a checkpoint besides its tensors: tokenizer, configuration, state. */
const SMALL_FILES = 1 << 20;
export const METRICS = "metrics.jsonl";

/**
 * Keys that may differ when a run goes on: they change where, how long and what is reported, not the numbers.
 * (Another device rounds in its own way; that is asked for in so many words.)
 */
const FREE_ON_RESUME = new Set<string>([
  ...["model", "data", "output", "evaluationData", "evaluationTasks", "steps", "resume"],
  ...["device", "recompute", "generationBatch"],
  ...["evaluateEvery", "evaluationRollouts", "evaluationTemperature", "evaluationTopP"],
  ...["checkpointEvery", "keepCheckpoints", "dumpRollouts", "tensorboard"],
]);

/**
 * Refuses a run folder that cannot be made, is a checkpoint, or is not empty when the run does not go on.
 * Changes nothing.
 * @throws ERR_SDPO_CONFIG
 */
export async function checkRunFolder({ output, resume }: { output: string; resume: boolean }): Promise<void> {
  const info = await stat(output).catch(() => undefined);
  if (!info) return checkPlace(output);
  if (!info.isDirectory()) throw folderError(`output: ${output} is not a folder; name another`);
  const names = await readdir(output);
  if (resume && names.includes(MANIFEST)) {
    throw folderError(`output: ${output} is a checkpoint; name the run folder that it lies in`);
  }
  if (!resume && names.length > 0) {
    throw folderError(
      `output: ${output} is not empty; name another folder, or set resume to go on with its run`,
    );
  }
}

/** Can a folder be made here? */
async function checkPlace(output: string): Promise<void> {
  let place = dirname(resolve(output));
  while (!(await exists(place)) && dirname(place) !== place) place = dirname(place);
  try {
    if (!(await stat(place)).isDirectory()) throw new Error(`${place} is not a folder`);
    await access(place, constants.W_OK);
  } catch (error) {
    throw folderError(`output: ${output} cannot be written: ${(error as Error).message}`, error);
  }
}

/**
 * Checks that the run of a configuration can start or go on: folder, room for its checkpoints, and the
 * checkpoint to go on from. Changes nothing.
 * @param checkpointBytes of the tensors of one checkpoint
 * @param onWarning is told of broken checkpoints that are passed over
 * @returns the checkpoint to go on from, when resuming
 * @throws ERR_SDPO_CONFIG as {@link checkRunFolder}, ERR_SDPO_FILE where the disk is too full, ERR_SDPO_CHECKPOINT
 *   where there is nothing whole to resume from or it is of another run
 */
export async function checkRun(
  config: RunConfig,
  identity: RunIdentity,
  checkpointBytes: number,
  onWarning?: (message: string) => void,
): Promise<Checkpoint | undefined> {
  const { output, resume, keepCheckpoints } = config;
  await checkRunFolder(config);
  await checkCheckpointSpace(output, checkpointBytes + SMALL_FILES, keepCheckpoints);
  if (!resume) return undefined;
  const checkpoint = await findCheckpoint(output, onWarning);
  if (!checkpoint) {
    const problem = `resume: ${output} holds no checkpoint; check the path, or leave out resume to start anew`;
    throw new SdpoError("ERR_SDPO_CHECKPOINT", problem);
  }
  checkResume(checkpoint, identity);
  return checkpoint;
}

/** Makes the run folder and writes its config.json. Throws ERR_SDPO_CONFIG. */
export async function makeRunFolder(config: RunConfig): Promise<void> {
  const { output } = config;
  try {
    await mkdir(join(output, ROLLOUTS), { recursive: true });
    await writeConfig(config);
  } catch (error) {
    throw folderError(`output: ${output} cannot be written: ${(error as Error).message}`, error);
  }
}

async function writeConfig(config: RunConfig): Promise<void> {
  await writeJson(join(config.output, "config.json"), { ...usedConfig(config), resume: undefined });
}

function folderError(message: string, cause?: unknown): SdpoError {
  return new SdpoError("ERR_SDPO_CONFIG", message, cause === undefined ? undefined : { cause });
}

/** What a checkpoint's state says of the run that it belongs to. */
export interface RunIdentity {
  config: TrainConfig;
  tokenizerHash: string | null;
  /** Of the training tasks, in order. */
  dataHash: string;
}

/**
 * Refuses to go on with another configuration, tokenizer or data set than the checkpoint's.
 * @throws ERR_SDPO_CHECKPOINT naming the key and both values
 */
export function checkResume(checkpoint: Checkpoint, now: RunIdentity): void {
  const before = checkpoint.state as unknown as Partial<RunIdentity>;
  const refuse = (problem: string) => {
    throw new SdpoError("ERR_SDPO_CHECKPOINT", `${checkpoint.folder}: ${problem}`);
  };
  const old = before.config as Record<string, unknown> | undefined;
  if (typeof old !== "object" || old === null) refuse("its state has no configuration; start anew");
  const fixedSteps = now.config.schedule !== "constant";
  // As the checkpoint has it: JSON knows no undefined and no negative zero.
  const config = JSON.parse(JSON.stringify(now.config)) as Record<string, unknown>;
  for (const [key, value] of Object.entries(config)) {
    if (FREE_ON_RESUME.has(key) && !(key === "steps" && fixedSteps)) continue;
    if (isDeepStrictEqual(old![key], value)) continue;
    refuse(`${key} was ${show(old![key])}, is ${show(value)}; set it back, or start anew in another folder`);
  }
  if (before.tokenizerHash !== now.tokenizerHash) {
    refuse(
      "was made with another tokenizer or chat template than the model has now; use the model of that run",
    );
  }
  if (before.dataHash !== now.dataHash) {
    refuse("was made with other training tasks than data holds now; use the data of that run");
  }
  if (checkpoint.step > now.config.steps) {
    refuse(`is of step ${checkpoint.step}, steps is ${now.config.steps}; raise it`);
  }
}

/**
 * Takes back what a run wrote after `step` (metrics lines, rollouts, unfinished checkpoints) and writes the
 * configuration that it goes on with.
 */
export async function rewindRunFolder(config: RunConfig, step: number): Promise<void> {
  const { output } = config;
  try {
    await writeConfig(config);
    await removeLeftovers(output);
    await rewindRollouts(join(output, ROLLOUTS), step);
    const file = join(output, METRICS);
    if (!(await exists(file))) return;
    const kept = (await readFile(file, "utf8")).split("\n").filter((line) => stepOf(line) <= step);
    await writeText(file, kept.map((line) => `${line}\n`).join(""));
  } catch (error) {
    throw folderError(`output: ${output} cannot be written: ${(error as Error).message}`, error);
  }
}

async function rewindRollouts(folder: string, step: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const name of await readdir(folder)) {
    const at = /^step-(\d+)\.jsonl$/.exec(name);
    if (at && Number(at[1]) > step) await rm(join(folder, name));
  }
}

/** The step of a metrics line; infinite where the line is blank or was cut short. */
function stepOf(line: string): number {
  try {
    const { step } = JSON.parse(line) as { step?: unknown };
    return typeof step === "number" ? step : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Writes `rollouts/step-N.jsonl`, one object a line. Throws ERR_SDPO_FILE. */
export async function dumpRollouts(output: string, step: number, rollouts: Iterable<object>): Promise<void> {
  const file = join(output, ROLLOUTS, `step-${step}.jsonl`);
  const lines = function* () {
    for (const rollout of rollouts) yield `${JSON.stringify(rollout)}\n`;
  };
  try {
    await writeFile(file, lines());
  } catch (cause) {
    throw new SdpoError("ERR_SDPO_FILE", `${file}: cannot be written: ${(cause as Error).message}`, {
      cause,
    });
  }
}
