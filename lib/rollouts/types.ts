import type { ChatMessage, Verdict } from "../environments/types.js";
import type { FinishReason } from "../models/generation.js";

/** A sampled completion, as trainers, external engines and dumps exchange it. */
export interface Rollout {
  taskId: string;
  /** Which group of its batch it belongs to. */
  group: number;
  promptIds: Int32Array;
  /** The sampled ids, the end token included. */
  ids: Int32Array;
  /** 0 for an id that is not ours to learn (tool output, observations). */
  mask: Uint8Array;
  /** log softmax(z / temperature) of each id before truncation by top_k or top_p. */
  logprobs: Float32Array;
  /** Updates that the weights had seen when it was sampled. */
  weightVersion: number;
  finishReason: FinishReason;
  /** What the ids say, without end tokens and stop texts. */
  text: string;
}

/** A rollout and what its environment says of it. */
export interface VerifiedRollout extends Rollout {
  verdict: Verdict;
}

/** A task with its prompt, ready to be sampled. */
export interface PromptedTask<Task = unknown> {
  task: Task;
  /** The task's name in logs and dumps. */
  id: string;
  /** The task's place in its data set, which keys its random numbers. */
  index: number;
  messages: ChatMessage[];
  /** The conversation with the generation header. */
  promptIds: Int32Array;
}

/** The rollouts of one task; those whose verification failed are missing. */
export interface RolloutGroup<Task = unknown> {
  task: PromptedTask<Task>;
  rollouts: VerifiedRollout[];
}
