import type { ChatMessage, Environment } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { PromptedTask } from "./types.js";

/** A conversation as the model gets it, with the generation header. */
export function chatIds(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  thinking: boolean,
): { text: string; ids: Int32Array } {
  return tokenizer.chat(
    messages.map((message) => ({ ...message })),
    { addGenerationPrompt: true, enable_thinking: thinking },
  );
}

/** A task with its name and prompt; `index` is its place in the data set. */
export function promptTask<Task>(
  tokenizer: Tokenizer,
  environment: Environment<Task>,
  task: Task,
  index: number,
  thinking: boolean,
): PromptedTask<Task> {
  const messages = environment.prompt(task);
  const { ids: promptIds } = chatIds(tokenizer, messages, thinking);
  if (promptIds.length === 0) {
    const problem = `the prompt of task ${index} is empty: its messages render to no token`;
    throw new SdpoError("ERR_SDPO_ENVIRONMENT", `environment ${environment.name}: ${problem}`);
  }
  return { task, id: environment.id?.(task) ?? `${environment.name}-${index}`, index, messages, promptIds };
}
