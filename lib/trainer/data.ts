import { shuffled } from "../environments/random.js";
import type { DataSource, Environment } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import { promptTask } from "../rollouts/prompt.js";
import type { PromptedTask } from "../rollouts/types.js";
import type { Tokenizer } from "../text/tokenizer.js";

/** Tasks that can be trained or evaluated on, and how many had too long a prompt. */
export interface LoadedTasks {
  tasks: PromptedTask[];
  skipped: number;
}

export interface LoadOptions {
  /** Tasks with more prompt tokens, generation header included, are skipped. */
  maxPromptTokens: number;
  /** Is the chat template to open a thinking block? */
  thinking: boolean;
  /** Stop after this many tasks that fit. */
  limit?: number | undefined;
  /** Tasks that it refuses are skipped too. */
  accept?: (task: PromptedTask) => boolean;
  /** Names the source in errors; "data" by default. */
  key?: string;
}

/**
 * A source's tasks with their prompts. Throws ERR_SDPO_DATA where none fits, besides what the environment and
 * the tokenizer throw.
 */
export async function loadTasks(
  tokenizer: Tokenizer,
  environment: Environment,
  source: DataSource,
  { maxPromptTokens, thinking, limit = Infinity, accept = () => true, key = "data" }: LoadOptions,
): Promise<LoadedTasks> {
  const tasks: PromptedTask[] = [];
  let skipped = 0;
  let index = 0;
  let shortest = Infinity;
  for await (const task of environment.load(source)) {
    const prompted = promptTask(tokenizer, environment, task, index++, thinking);
    shortest = Math.min(shortest, prompted.promptIds.length);
    if (prompted.promptIds.length <= maxPromptTokens && accept(prompted)) tasks.push(prompted);
    else skipped++;
    if (tasks.length >= limit) break;
    if (index % 64 === 0) await new Promise(setImmediate);
  }
  if (tasks.length > 0) return { tasks, skipped };
  const reason =
    index === 0
      ? "the environment gave no task"
      : shortest > maxPromptTokens
        ? `the shortest of ${index} prompts has ${shortest} tokens, maxPromptTokens is ${maxPromptTokens}; raise it`
        : `none of its ${index} tasks fits; raise maxPromptTokens or maxCompletionTokens`;
  throw new SdpoError("ERR_SDPO_DATA", `${key}: ${reason}`);
}

/**
 * Tasks in an order shuffled anew in each pass over the data. `cursor` counts the tasks drawn so far and, with
 * the seed, is all there is to remember.
 */
export class TaskOrder<Task> {
  readonly #tasks: readonly Task[];
  readonly #seed: number;
  #epoch = -1;
  #order: Task[] = [];
  cursor: number;

  constructor(tasks: readonly Task[], seed: number, cursor = 0) {
    this.#tasks = tasks;
    this.#seed = seed;
    this.cursor = cursor;
  }

  /** The next tasks; goes on with the next pass where one ends. */
  draw(count: number): Task[] {
    return Array.from({ length: count }, () => {
      const epoch = Math.floor(this.cursor / this.#tasks.length);
      if (epoch !== this.#epoch) {
        this.#order = shuffled(this.#tasks, this.#seed, epoch);
        this.#epoch = epoch;
      }
      return this.#order[this.cursor++ % this.#tasks.length]!;
    });
  }
}
