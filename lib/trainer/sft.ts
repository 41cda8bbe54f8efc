/** Supervised warm start: cross entropy on the environment's own solutions. */
import { access, constants, mkdir, readdir } from "node:fs/promises";
import { resolveSft, type SftConfig, type SftInput } from "../config.js";
import { createEnvironment } from "../environments/index.js";
import { shuffled } from "../environments/random.js";
import { type DataSource, defineEnvironment, type Environment } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import { Model } from "../models/model.js";
import { packSequences } from "../models/packing.js";
import { openDevice } from "../native/device.js";
import type { OpInputs } from "../native/ops.generated.js";
import { run } from "../native/run.js";
import { Tensor } from "../native/tensor.js";
import type { PromptedTask } from "../rollouts/types.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { joined, microBatches, type PackedSample, predictingRows } from "./batch.js";
import { loadTasks } from "./data.js";
import type { Metrics } from "./metrics.js";
import { learningRateAt, Optimizer } from "./optimizer.js";
import { MOST_NON_FINITE } from "./step.js";

/** A configuration in which environment and data may be objects of one's own. */
export type SftRunInput = Omit<SftInput, "environment" | "data"> & {
  environment: string | Environment;
  data: DataSource;
};

export interface SftOptions {
  signal?: AbortSignal | undefined;
  log?: (message: string) => void;
}

/** What an update reports. */
export interface SftReport {
  step: number;
  steps: number;
  metrics: Metrics;
}

/** The token after an assistant's message in the chat template, else the model's first end token. */
function endToken(model: Model, task: PromptedTask, answer: string, thinking: boolean): number {
  const ends = new Set(model.eosTokenIds);
  const messages = [...task.messages, { role: "assistant", content: answer }].map((m) => ({ ...m }));
  const { ids } = model.tokenizer.chat(messages, { enable_thinking: thinking });
  // Ends of earlier messages stand in the prompt too, so the last one is looked for.
  const end = ids.findLast((id) => ends.has(id)) ?? model.eosTokenIds[0];
  if (end !== undefined) return end;
  throw new SdpoError(
    "ERR_SDPO_MODEL",
    `${model.path}: names no end token, so an answer cannot be ended; add eos_token_id to its config.json`,
  );
}

function answerIds(tokenizer: Tokenizer, environment: Environment, task: PromptedTask): Int32Array {
  if (!environment.solution) {
    throw new SdpoError(
      "ERR_SDPO_ENVIRONMENT",
      `environment ${environment.name}: has no solution(task), so there is nothing to learn from; add one`,
    );
  }
  return tokenizer.encode(environment.solution(task.task));
}

interface Row extends PackedSample {
  targets: Int32Array;
}

async function loadRows(model: Model, environment: Environment, data: DataSource, config: SftConfig) {
  const { thinking, maxPromptTokens, maxCompletionTokens } = config;
  const { tokenizer } = model;
  const answers = new Map<PromptedTask, Int32Array>();
  const room = Math.min(maxCompletionTokens, model.config.maxPositions);
  const { tasks, skipped } = await loadTasks(tokenizer, environment, data, {
    maxPromptTokens,
    thinking,
    limit: config.rows ?? undefined,
    accept: (task) => {
      const answer = answerIds(tokenizer, environment, task);
      const fits = answer.length < Math.min(room, model.config.maxPositions - task.promptIds.length + 1);
      if (fits) answers.set(task, answer);
      return fits;
    },
  });
  const first = tasks[0]!;
  const end = endToken(model, first, environment.solution!(first.task), thinking);
  const rows = tasks.map((task): Row => {
    const targets = joined(answers.get(task)!, Int32Array.of(end));
    return {
      student: joined(task.promptIds, targets),
      teacher: undefined,
      positions: Int32Array.from(targets.keys()),
      studentStart: task.promptIds.length,
      teacherStart: 0,
      targets,
    };
  });
  return { rows, skipped };
}

/** Sets slot "gradient" to that of the mean cross entropy over the rows' answers. */
async function sftGradient(model: Model, rows: readonly Row[], config: SftConfig, signal?: AbortSignal) {
  const total = rows.reduce((n, { targets }) => n + targets.length, 0);
  let loss = 0;
  let computed = 0;
  await model.zeroGradient();
  for (const part of microBatches(rows, config.microBatchTokens)) {
    const packed = packSequences(part.map(({ student }) => student));
    computed += packed.ids.length;
    const targets = Int32Array.from(part.flatMap(({ targets }) => [...targets]));
    const n = targets.length;
    const { hidden, tape } = await model.forward(packed, predictingRows(packed.rows, part, "student"), {
      ...{ keep: true, recompute: config.recompute, signal },
    });
    const inputs: OpInputs["linear_cross_entropy"] = {
      hidden,
      head: model.head("weight"),
      tokenIds: Tensor.from(model.device, targets, [n]),
      weights: Tensor.from(model.device, new Float32Array(n).fill(1), [n]),
      coefficients: Tensor.from(model.device, new Float32Array(n).fill(1 / total), [n]),
      dHead: model.head("gradient"),
    };
    const held: Tensor[] = Object.values(inputs);
    try {
      const outputs = await run(model.device, "linear_cross_entropy", inputs, {}, { signal });
      held.push(...Object.values(outputs));
      await model.backwardHidden(tape!, outputs.dHidden!, { signal });
      for (const x of await outputs.tokenLoss.readFloats()) loss += x / total;
    } finally {
      model.releaseTape(tape!);
      for (const tensor of held) tensor.dispose();
    }
  }
  return { loss, tokens: total, computed };
}

/**
 * Learns the environment's solutions, each followed by the end token, and at the end writes the model to
 * `output` as a Hugging Face folder. Yields after each update.
 * @throws ERR_SDPO_CONFIG, ERR_SDPO_ENVIRONMENT where there are no solutions, ERR_SDPO_NUMERICS, ERR_SDPO_ABORTED
 */
export async function* sft(input: SftRunInput, options: SftOptions = {}): AsyncGenerator<SftReport> {
  const { environment: given, data } = input;
  const own = typeof given === "object" && given !== null ? defineEnvironment(given) : undefined;
  const config = resolveSft({
    ...input,
    environment: own?.name ?? given,
    data: Array.isArray(data) ? "(rows in memory)" : data,
  });
  const environment = own ?? createEnvironment(config.environment, config.environmentOptions);
  await checkOutput(config.output);
  using device = await openDevice(config.device);
  const dtype = config.dtype === "auto" ? undefined : config.dtype;
  using model = await Model.load(config.model, { device, ...(dtype && { dtype }) });
  const { rows, skipped } = await loadRows(model, environment, data, config);
  options.log?.(`data: ${rows.length} rows${skipped > 0 ? `, ${skipped} that are too long left out` : ""}`);
  yield* updates(model, rows, config, options.signal);
  if (config.output !== null) await model.save(config.output);
}

async function* updates(
  model: Model,
  rows: Row[],
  config: SftConfig,
  signal?: AbortSignal,
): AsyncGenerator<SftReport> {
  const optimizer = await Optimizer.create(model, config);
  const perEpoch = Math.ceil(rows.length / config.rowsPerBatch);
  const steps = perEpoch * config.epochs;
  let nonFinite = 0;
  for (let step = 1; step <= steps; step++) {
    const start = performance.now();
    const order = shuffled(rows, config.seed, Math.floor((step - 1) / perEpoch));
    const at = ((step - 1) % perEpoch) * config.rowsPerBatch;
    const batch = order.slice(at, at + config.rowsPerBatch);
    const { loss, tokens, computed } = await sftGradient(model, batch, config, signal);
    const norm = await optimizer.gradientNorm();
    const learningRate = learningRateAt({ ...config, steps }, step);
    const finite = Number.isFinite(loss) && Number.isFinite(norm);
    nonFinite = finite ? 0 : nonFinite + 1;
    if (nonFinite === MOST_NON_FINITE) {
      const problem = `update ${step}: loss ${loss}, gradient norm ${norm}: not finite in ${nonFinite} updates in a row; lower learningRate`;
      throw new SdpoError("ERR_SDPO_NUMERICS", problem);
    }
    if (finite) await optimizer.update(learningRate, norm);
    const metrics = {
      ...(finite && { loss, grad_norm: norm }),
      ...{ learning_rate: learningRate, skipped_steps: finite ? 0 : 1 },
      ...{ "tokens.answers": tokens, "tokens.train": computed },
      "seconds.train": (performance.now() - start) / 1000,
    };
    yield { step, steps, metrics };
  }
}

async function checkOutput(output: string | null): Promise<void> {
  if (output === null) return;
  let names: string[];
  try {
    await mkdir(output, { recursive: true });
    await access(output, constants.W_OK);
    names = await readdir(output);
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new SdpoError("ERR_SDPO_FILE", `output: ${output} cannot be written to: ${reason}`, { cause });
  }
  if (names.length === 0) return;
  throw new SdpoError("ERR_SDPO_CONFIG", `output: ${output} is not empty; name another folder`);
}
