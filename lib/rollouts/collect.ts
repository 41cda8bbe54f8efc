/** Groups of rollouts: sampled with continuous batching, each verified as soon as it is finished. */
import type { Environment, Verdict } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import { type Generated, GenerationEngine, type GenerationRequest } from "../models/generation.js";
import type { Model } from "../models/model.js";
import { checkSampling, type SamplingOptions } from "../models/sampling.js";
import { abortedError } from "../native/load.js";
import type { PromptedTask, Rollout, RolloutGroup, VerifiedRollout } from "./types.js";
import { concurrently, orAbort, verifyRollout } from "./verify.js";

export interface CollectOptions extends SamplingOptions {
  /** Rollouts of each task. */
  rollouts: number;
  /** Keys the random numbers along with the seed. */
  step: number;
  /** Rollouts computed at the same time; 64 by default. */
  batchSize?: number;
  /** Verifications that run at the same time; 16 by default. */
  verifications?: number;
  /** Which weights: "weight" by default. */
  slot?: string;
  /** Written into the rollouts; 0 by default. */
  weightVersion?: number;
  signal?: AbortSignal | undefined;
  onProgress?: (finished: number, total: number) => void;
}

/** What a collection gives, in the order of its tasks. */
export interface Collected<Task = unknown> {
  groups: RolloutGroup<Task>[];
  /** Rollouts dropped because their verification failed, with the reason. */
  failures: { taskId: string; error: unknown }[];
  /** Tokens sampled; prompt tokens computed, and those that separate prompts would have taken. */
  tokens: { sampled: number; prompt: number; promptWithoutSharing: number };
}

type Outcome = { verdict: Verdict } | { error: unknown };

/** One request a task; a task that stands twice goes on with further rollout numbers. */
function requestsOf(tasks: readonly PromptedTask[], rollouts: number): GenerationRequest[] {
  const seen = new Map<number, number>();
  return tasks.map(({ index, promptIds }) => {
    const first = seen.get(index) ?? 0;
    seen.set(index, first + rollouts);
    return {
      prompt: promptIds,
      task: index,
      rollouts: Array.from({ length: rollouts }, (_, i) => first + i),
    };
  });
}

function toRollout(generated: Generated, task: PromptedTask, weightVersion: number): Rollout {
  return {
    taskId: task.id,
    group: generated.request,
    promptIds: task.promptIds,
    ids: Int32Array.from(generated.ids),
    mask: new Uint8Array(generated.ids.length).fill(1),
    logprobs: Float32Array.from(generated.logprobs),
    weightVersion,
    finishReason: generated.finishReason!,
    text: generated.text,
  };
}

/**
 * Samples `rollouts` completions of each task and has the environment verify them. A rollout whose
 * verification throws is left out and listed in `failures`.
 * @throws ERR_SDPO_ABORTED once the signal fires; ERR_SDPO_ENVIRONMENT where every verification failed
 */
export async function collectRollouts<Task>(
  model: Model,
  tasks: readonly PromptedTask<Task>[],
  environment: Environment<Task>,
  options: CollectOptions,
): Promise<Collected<Task>> {
  const { rollouts, step, signal, slot = "weight", weightVersion = 0, batchSize = 64 } = options;
  const settings = checkSampling({
    ...options,
    stop: [...(options.stop ?? []), ...(environment.stop ?? [])],
  });
  const requests = requestsOf(tasks, rollouts);
  const engine = new GenerationEngine(model, requests, { ...settings, slot, step, batchSize, signal });
  const limited = concurrently(options.verifications ?? 16);
  const pending: Promise<{ order: number; rollout: Rollout; outcome: Outcome }>[] = [];
  const verify = async (generated: Generated) => {
    const task = tasks[generated.request]!;
    const rollout = toRollout(generated, task, weightVersion);
    const order = generated.rollout;
    const outcome = await limited(() => verifyRollout(environment, task.task, rollout, signal)).then(
      (verdict): Outcome => ({ verdict }),
      (error): Outcome => ({ error }),
    );
    options.onProgress?.(++finished, total);
    return { order, rollout, outcome };
  };
  const total = tasks.length * rollouts;
  let finished = 0;
  for await (const batch of engine.run()) {
    for (const generated of batch) if (generated.finishReason) pending.push(verify(generated));
    // Lets verifications and timers run between tokens.
    await new Promise(setImmediate);
  }
  const done = await orAbort(Promise.all(pending), signal);
  if (signal?.aborted) throw abortedError(signal);
  done.sort((a, b) => a.rollout.group - b.rollout.group || a.order - b.order);
  return gather(tasks, done, engine);
}

function gather<Task>(
  tasks: readonly PromptedTask<Task>[],
  done: { rollout: Rollout; outcome: Outcome }[],
  engine: GenerationEngine,
): Collected<Task> {
  const groups = tasks.map((task) => ({ task, rollouts: [] as VerifiedRollout[] }));
  const failures: Collected["failures"] = [];
  let sampled = 0;
  for (const { rollout, outcome } of done) {
    sampled += rollout.ids.length;
    if ("verdict" in outcome) groups[rollout.group]!.rollouts.push({ ...rollout, verdict: outcome.verdict });
    else failures.push({ taskId: rollout.taskId, error: outcome.error });
  }
  if (done.length > 0 && failures.length === done.length) {
    const { taskId, error } = failures[0]!;
    const reason = error instanceof Error ? error.message : String(error);
    throw new SdpoError(
      "ERR_SDPO_ENVIRONMENT",
      `all ${done.length} verifications failed; the first, task ${taskId}: ${reason}`,
      { cause: error },
    );
  }
  const { computed, withoutSharing } = engine.prefill;
  return { groups, failures, tokens: { sampled, prompt: computed, promptWithoutSharing: withoutSharing } };
}
