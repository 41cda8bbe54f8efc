/** What a training run is given, checked: its configuration, and the tasks that it trains and evaluates on. */
import { resolveConfig, type TrainConfig, type TrainInput } from "../config.js";
import { createEnvironment } from "../environments/index.js";
import { type DataSource, defineEnvironment, type Environment } from "../environments/types.js";
import { SdpoError, show } from "../errors.js";
import type { PromptedTask } from "../rollouts/types.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { loadTasks } from "./data.js";

/** A training configuration, in which environment and data may be objects of one's own. */
export type TrainerInput = Omit<TrainInput, "environment" | "data" | "evaluationData"> & {
  environment: string | Environment;
  data: DataSource;
  evaluationData?: DataSource | null;
};

/** A configuration with what its environment and data stand for. */
export interface ResolvedInput {
  config: TrainConfig;
  environment: Environment;
  data: DataSource;
  evaluationData: DataSource | null;
}

/** Throws ERR_SDPO_CONFIG, ERR_SDPO_ENVIRONMENT. */
export function resolveInput(input: TrainerInput): ResolvedInput {
  if (typeof input !== "object" || input === null) {
    throw new SdpoError("ERR_SDPO_CONFIG", `the configuration must be an object, got ${show(input)}`);
  }
  const { environment: given, data, evaluationData, ...rest } = input;
  const nameOf = (source: unknown) => (Array.isArray(source) ? "(rows in memory)" : source);
  const own = typeof given === "object" && given !== null ? defineEnvironment(given) : undefined;
  const config = resolveConfig({
    ...rest,
    environment: own?.name ?? given,
    data: nameOf(data),
    evaluationData: nameOf(evaluationData),
  });
  if (own && Object.keys(config.environmentOptions).length > 0) {
    const problem = "environmentOptions: an environment of one's own has its options already; leave them out";
    throw new SdpoError("ERR_SDPO_CONFIG", problem);
  }
  const environment = own ?? createEnvironment(config.environment, config.environmentOptions);
  return { config, environment, data, evaluationData: evaluationData ?? null };
}

/** The tasks of a run. */
export interface RunTasks {
  tasks: PromptedTask[];
  /** Training tasks that were left out, their prompts being too long. */
  skipped: number;
  /** None where the run does not evaluate. */
  evaluationTasks: PromptedTask[];
}

/**
 * Loads what a run trains and evaluates on.
 * @param maxPositions of the model
 * @throws as {@link loadTasks}; ERR_SDPO_CONFIG where a prompt and its completion exceed the model's positions
 */
export async function loadRunTasks(
  { config, environment, data, evaluationData }: ResolvedInput,
  tokenizer: Tokenizer,
  maxPositions: number,
  log: (message: string) => void = () => {},
): Promise<RunTasks> {
  const { maxPromptTokens, thinking, maxCompletionTokens } = config;
  const load = async (source: DataSource, key: string, limit?: number) => {
    const options = { maxPromptTokens, thinking, limit, key };
    const loaded = await loadTasks(tokenizer, environment, source, options);
    const { tasks, skipped } = loaded;
    const left = skipped > 0 ? `, ${skipped} with prompts above ${maxPromptTokens} tokens left out` : "";
    log(`${key}: ${tasks.length} tasks${left}`);
    return loaded;
  };
  const { tasks, skipped } = await load(data, "data");
  const wanted = config.evaluateEvery > 0 && evaluationData !== null;
  const evaluationTasks = wanted
    ? (await load(evaluationData, "evaluationData", config.evaluationTasks ?? undefined)).tasks
    : [];
  const longest = [...tasks, ...evaluationTasks].reduce((n, t) => Math.max(n, t.promptIds.length), 0);
  if (longest + maxCompletionTokens > maxPositions) {
    throw new SdpoError(
      "ERR_SDPO_CONFIG",
      `maxCompletionTokens: ${maxCompletionTokens} after a prompt of ${longest} tokens exceed the model's ${maxPositions} positions; lower it, or maxPromptTokens`,
    );
  }
  if (config.algorithm !== "grpo" && config.maxRepromptTokens + maxCompletionTokens > maxPositions) {
    const limit = maxPositions - maxCompletionTokens;
    log(`teacher prompts have at most ${limit} tokens: the model has ${maxPositions} positions`);
  }
  return { tasks, skipped, evaluationTasks };
}
