import type { TrainConfig } from "../config.js";
import type { Environment } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import { Model } from "../models/model.js";
import { type Device, openDevice } from "../native/device.js";
import type { PromptedTask } from "../rollouts/types.js";
import { TaskOrder } from "./data.js";
import { rolloutDump } from "./dump.js";
import { evaluate, evaluationMetrics } from "./evaluate.js";
import { loadRunTasks, type RunTasks, resolveInput, type TrainerInput } from "./input.js";
import type { Metrics } from "./metrics.js";
import { MetricsLog } from "./metrics-log.js";
import { copySlot, Optimizer } from "./optimizer.js";
import { checkRun, dumpRollouts, makeRunFolder, rewindRunFolder } from "./run-folder.js";
import { checkpointBytes, identityOf, restoreState, saveState } from "./state.js";
import { NumericsError, type StepOutcome, type TokenWeights, type TrainState, trainStep } from "./step.js";
import { extraSlots } from "./update.js";

export type { TrainerInput };

export interface TrainerHooks {
  /** How far the current step's phase ("rollout", "update", "evaluate") is. */
  onPhase?: (phase: string, done: number, total: number) => void;
  /** Notices: tasks left out, the device, what was resumed. */
  log?: (message: string) => void;
  /** A device of one's own; the configuration's is opened otherwise. */
  device?: Device;
  /** A factor of each completion token's loss, one float a token; all 1 where it gives nothing. */
  tokenWeights?: TokenWeights;
}

export interface StepReport {
  /** Steps done. */
  step: number;
  metrics: Metrics;
  warnings: string[];
}

/**
 * A training run: the model, its teacher and optimizer on a device, the data, and the run folder. Give it back
 * with `dispose()` or `using`.
 */
export class Trainer {
  readonly config: TrainConfig;
  readonly model: Model;
  readonly #state: TrainState;
  readonly #loaded: RunTasks;
  readonly #hooks: TrainerHooks;
  readonly #log: MetricsLog | undefined;
  readonly #ownDevice: Device | undefined;

  private constructor(
    state: TrainState,
    loaded: RunTasks,
    hooks: TrainerHooks,
    log: MetricsLog | undefined,
    ownDevice: Device | undefined,
  ) {
    this.config = state.config;
    this.model = state.model;
    this.#state = state;
    this.#loaded = loaded;
    this.#hooks = hooks;
    this.#log = log;
    this.#ownDevice = ownDevice;
  }

  /**
   * Loads model and data, makes the run folder, or goes on from its newest checkpoint where `resume` is set.
   * @throws ERR_SDPO_CONFIG, ERR_SDPO_MODEL, ERR_SDPO_DATA, ERR_SDPO_CHECKPOINT naming what is wrong and the remedy
   */
  static async create(input: TrainerInput, hooks: TrainerHooks = {}): Promise<Trainer> {
    const resolved = resolveInput(input);
    const { config, environment } = resolved;
    const device = hooks.device ?? (await openDevice(config.device));
    const ownDevice = hooks.device ? undefined : device;
    hooks.log?.(`device: ${device.name} (${device.description})`);
    let model: Model | undefined;
    try {
      const dtype = config.dtype === "auto" ? undefined : config.dtype;
      model = await Model.load(config.model, { device, ...(dtype && { dtype }) });
      const loaded = await loadRunTasks(resolved, model.tokenizer, model.config.maxPositions, hooks.log);
      const state = await makeState(model, config, environment, loaded.tasks, hooks);
      return new Trainer(state, loaded, hooks, await openRun(state, loaded.tasks, hooks), ownDevice);
    } catch (error) {
      model?.dispose();
      ownDevice?.dispose();
      throw error;
    }
  }

  /** Steps done. */
  get step(): number {
    return this.#state.step;
  }

  /**
   * Runs the steps that are left, yielding after each, when its metrics, rollouts and checkpoint are written.
   * Leaving the loop stops between steps. An abort stops at once, and the step in progress is lost: the trainer
   * is then good for nothing but `dispose()`.
   * @throws ERR_SDPO_ABORTED, ERR_SDPO_NUMERICS where losses or gradients stay non-finite
   */
  async *run({ signal }: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<StepReport> {
    const { config } = this;
    const state = this.#state;
    while (state.step < config.steps) {
      const outcome = await trainStep(state, signal).catch((error) => this.#dumpFailure(error));
      const { step } = state;
      const isLast = step === config.steps;
      const metrics = { ...outcome.metrics, ...(await this.#evaluation(isLast, signal)) };
      await this.#write(outcome, metrics);
      const isDue = config.checkpointEvery > 0 && step % config.checkpointEvery === 0;
      if (isDue || isLast) await this.checkpoint();
      yield { step, metrics, warnings: outcome.warnings };
    }
  }

  async #evaluation(isLast: boolean, signal: AbortSignal | undefined): Promise<Metrics> {
    const { config } = this;
    const state = this.#state;
    if (config.evaluateEvery === 0 || (state.step % config.evaluateEvery !== 0 && !isLast)) return {};
    const start = performance.now();
    const report = await evaluate(state.model, state.environment, this.#loaded.evaluationTasks, {
      rollouts: config.evaluationRollouts,
      temperature: config.evaluationTemperature,
      topP: config.evaluationTopP,
      maxTokens: config.maxCompletionTokens,
      seed: config.seed,
      batchSize: config.generationBatch,
      successThreshold: config.successThreshold,
      signal,
      onProgress: (done, total) => this.#hooks.onPhase?.("evaluate", done, total),
    });
    return { ...evaluationMetrics(report), "seconds.evaluate": (performance.now() - start) / 1000 };
  }

  async #write({ groups, prompts }: StepOutcome, metrics: Metrics): Promise<void> {
    const { output, dumpRollouts: isDumped } = this.config;
    const { step, model } = this.#state;
    if (output === null) return;
    if (isDumped) await dumpRollouts(output, step, rolloutDump(model.tokenizer, groups, prompts));
    this.#log?.write({ step, ...metrics });
  }

  /** Writes the batch of a numerical failure beside the other rollouts; throws the error again. */
  async #dumpFailure(error: unknown): Promise<never> {
    const { output } = this.config;
    if (!(error instanceof NumericsError) || output === null) throw error;
    const { tokenizer } = this.model;
    const rows = error.samples.map(({ rollout, teacherPrompt, advantage }) => ({
      prompt: tokenizer.decode(rollout.promptIds),
      completion: tokenizer.decode(rollout.ids),
      teacherPrompt: teacherPrompt && tokenizer.decode(teacherPrompt),
      advantage,
      ids: [...rollout.ids],
      logprobs: [...rollout.logprobs],
    }));
    const step = this.#state.step + 1;
    await dumpRollouts(output, step, rows);
    throw new SdpoError(
      "ERR_SDPO_NUMERICS",
      `${error.message}; its batch is in rollouts/step-${step}.jsonl`,
      {
        cause: error,
      },
    );
  }

  /** Writes a checkpoint of the step that was done last and gives its folder; needs `output`. */
  async checkpoint(): Promise<string | undefined> {
    const { output, keepCheckpoints } = this.config;
    if (output === null) return undefined;
    const identity = identityOf(this.config, this.model.tokenizer, this.#loaded.tasks);
    return saveState(this.#state, identity, { output, keepCheckpoints });
  }

  /** Writes the student as a Hugging Face folder. */
  async save(folder: string): Promise<void> {
    await this.model.save(folder);
  }

  /** Frees the model, and the device where the trainer opened it. */
  dispose(): void {
    this.#log?.close();
    this.model.dispose();
    this.#ownDevice?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

async function makeState(
  model: Model,
  config: TrainConfig,
  environment: Environment,
  tasks: PromptedTask[],
  hooks: TrainerHooks,
): Promise<TrainState> {
  const optimizer = await Optimizer.create(model, config);
  const { teacher, initial } = extraSlots(config);
  const copies: [string, "f32" | "bf16"][] = [];
  // A bf16 teacher could not move by less than 2^-9 of itself.
  if (teacher) copies.push(["teacher", config.teacher === "ema" ? "f32" : (model.dtype as "f32" | "bf16")]);
  if (initial) copies.push(["initial", model.dtype as "f32" | "bf16"]);
  for (const [slot, dtype] of copies) {
    model.addSlot(slot, dtype);
    await copySlot(model, "weight", slot);
  }
  const order = new TaskOrder(tasks, config.seed);
  const { tokenWeights, onPhase } = hooks;
  return {
    ...{ config, model, environment, order, optimizer, tokenWeights, onPhase },
    ...{ step: 0, emptySteps: 0, nonFinite: 0 },
  };
}

/** Makes or reopens the run folder; restores the state where a run goes on. */
async function openRun(
  state: TrainState,
  tasks: PromptedTask[],
  hooks: TrainerHooks,
): Promise<MetricsLog | undefined> {
  const { output } = state.config;
  if (output === null) return undefined;
  const config = { ...state.config, output };
  const identity = identityOf(config, state.model.tokenizer, tasks);
  const checkpoint = await checkRun(config, identity, checkpointBytes(state), hooks.log);
  if (checkpoint) {
    await restoreState(state, checkpoint);
    await rewindRunFolder(config, checkpoint.step);
    hooks.log?.(`resumed from ${checkpoint.folder}, after step ${checkpoint.step}`);
  } else {
    await makeRunFolder(config);
  }
  const { tensorboard } = config;
  return MetricsLog.open(output, { tensorboard, ...(checkpoint && { resumeStep: checkpoint.step }) });
}
