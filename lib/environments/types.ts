import { SdpoError, show } from "../errors.js";

/** One message of a conversation, as chat templates take it. */
export interface ChatMessage {
  role: "system" | "user" | "assistant" | "tool";
  content: string;
  name?: string;
  tool_calls?: unknown[];
  tool_call_id?: string;
}

/**
 * What a model answered. `tokenIds` are the sampled ids; `truncated` says that the length limit cut the
 * answer.
 */
export interface Completion {
  text: string;
  tokenIds?: ArrayLike<number>;
  truncated?: boolean;
}

/**
 * What an environment says of a completion: `reward` in [0, 1], `feedback` for the teacher, and numbers to
 * log.
 */
export interface Verdict {
  reward: number;
  feedback?: string;
  metrics?: Record<string, number>;
}

/**
 * What a teacher's prompt may show: the rollout's own `attempt` (`feedback` is about it), and another
 * rollout's success. What is to be left out is undefined.
 */
export interface TeacherParts {
  attempt: string;
  demonstration?: string;
  feedback?: string;
}

/**
 * Where tasks come from: a file (what else a text may be, such as a split, the environment says), or rows in
 * memory.
 */
export type DataSource = string | readonly unknown[];

/** A kind of task: where tasks come from, how a model is asked, and what an answer is worth. */
export interface Environment<Task = unknown> {
  /** The name in configurations, logs and error messages. */
  readonly name: string;
  /** Texts that end an answer, besides the model's own end tokens. */
  readonly stop?: readonly string[];
  /** The tasks of a source, in order. Throws `ERR_SDPO_DATA` with file, line, field, value and remedy. */
  load(source: DataSource): AsyncIterable<Task>;
  /** The conversation that asks the model. */
  prompt(task: Task): ChatMessage[];
  /**
   * Judges a completion. Anything the model wrote gets a verdict; throws only for a broken task or an abort.
   */
  verify(task: Task, completion: Completion, options?: { signal?: AbortSignal }): Promise<Verdict>;
  /** A name that the task keeps from run to run, whatever its place in the file. */
  id?(task: Task): string;
  /** A completion with full reward, where the environment knows one: what a supervised warm start
   * learns, followed by the model's end token. */
  solution?(task: Task): string;
  /**
   * The teacher's conversation, in place of the reprompt templates. It is rendered by the same chat template
   * as `prompt(task)` and must end so that the text before the completion (the generation header) is the
   * same.
   */
  teacherPrompt?(task: Task, parts: TeacherParts): ChatMessage[];
}

/**
 * Checks an environment of one's own and gives it its type; `Task` follows from `load`.
 * Throws `ERR_SDPO_ENVIRONMENT` where a part is missing or is not a function.
 */
export function defineEnvironment<Task>(environment: Environment<Task>): Environment<Task> {
  const { name, stop } = environment;
  const refuse = (message: string) => new SdpoError("ERR_SDPO_ENVIRONMENT", message);
  if (typeof name !== "string" || name === "") {
    throw refuse(`environment: name must be a text that is not empty, got ${show(name)}`);
  }
  for (const part of ["load", "prompt", "verify"] as const) {
    if (typeof environment[part] !== "function") {
      throw refuse(`environment ${name}: ${part} must be a function, got ${show(environment[part])}`);
    }
  }
  for (const part of ["id", "solution", "teacherPrompt"] as const) {
    if (environment[part] !== undefined && typeof environment[part] !== "function") {
      throw refuse(
        `environment ${name}: ${part} must be a function or left out, got ${show(environment[part])}`,
      );
    }
  }
  if (stop !== undefined && !(Array.isArray(stop) && stop.every((s) => typeof s === "string" && s !== ""))) {
    throw refuse(`environment ${name}: stop must be a list of texts that are not empty, got ${show(stop)}`);
  }
  return environment;
}
