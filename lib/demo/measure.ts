import { houseDates } from "../environments/house-dates.js";
import type { Environment } from "../environments/types.js";
import type { Model } from "../models/model.js";
import { collectRollouts } from "../rollouts/collect.js";
import type { PromptedTask, RolloutGroup } from "../rollouts/types.js";
import { loadTasks } from "../trainer/data.js";
import { summarize } from "../trainer/evaluate.js";
import { teacherPrompts } from "../trainer/teacher.js";

/** The most tokens of an answer: five and the newline. */
export const ANSWER_TOKENS = 6;
/** Above every prompt of the environment, the teacher's too. */
export const PROMPT_TOKENS = 64;

/** The tasks of a world (a seed's house formats) that are kept for measuring: dates that training never asks for. */
export interface HeldOut {
  environment: Environment;
  tasks: PromptedTask[];
}

/** What is known before any training. Accuracies are shares of the held-out tasks. */
export interface Baseline {
  /** How many tasks were measured. */
  tasks: number;
  /** The student's most probable answers. */
  student: number;
  /** The student's answers sampled at temperature 1: the attempts. */
  sampled: number;
  /** The same model's most probable answers once it has read the feedback on its failed attempts; of these. */
  teacher: number;
  /** The failed attempts, and what the teacher answered to each. */
  failed: { attempt: RolloutGroup; retry: RolloutGroup }[];
}

export interface MeasureOptions {
  /** Keys the sampled attempts. */
  seed?: number;
  signal?: AbortSignal | undefined;
}

/** The held-out tasks of world `seed`, 256 unless told otherwise. */
export async function heldOut(model: Model, seed: number, testTasks = 256): Promise<HeldOut> {
  const environment = houseDates({ seed, testTasks }) as Environment;
  const limits = { maxPromptTokens: PROMPT_TOKENS, thinking: false };
  return { environment, tasks: (await loadTasks(model.tokenizer, environment, "test", limits)).tasks };
}

/** Answers of the model to each task, with their verdicts. */
export async function answers(
  model: Model,
  { environment, tasks }: HeldOut,
  options: MeasureOptions & { temperature: number },
): Promise<RolloutGroup[]> {
  const sampling = { rollouts: 1, step: 0, maxTokens: ANSWER_TOKENS, batchSize: 256 };
  return (await collectRollouts(model, tasks, environment, { ...sampling, ...options })).groups;
}

/** The share of groups whose one answer is right. */
export const accuracy = (groups: readonly RolloutGroup[]): number => summarize(groups, 1)["avg@k"];

/** The student's accuracy, and that of the same model as its own teacher: after reading what was wrong. */
export async function measureBaseline(
  model: Model,
  held: HeldOut,
  options: MeasureOptions = {},
): Promise<Baseline> {
  const student = accuracy(await answers(model, held, { ...options, temperature: 0 }));
  const attempts = await answers(model, held, { ...options, temperature: 1 });
  const failed = attempts.filter(({ rollouts }) => rollouts[0]!.verdict.reward < 1);
  const limits = { maxRepromptTokens: PROMPT_TOKENS, thinking: false };
  const prompts = await teacherPrompts(failed, held.environment, model.tokenizer, limits);
  const retried = failed.map(({ task }, i) => ({ ...task, promptIds: prompts[i]![0]!.ids! }));
  const retries = await answers(model, { ...held, tasks: retried }, { ...options, temperature: 0 });
  return {
    tasks: held.tasks.length,
    student,
    sampled: accuracy(attempts),
    teacher: accuracy(retries),
    failed: failed.map((attempt, i) => ({ attempt, retry: retries[i]! })),
  };
}
