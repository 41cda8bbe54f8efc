import { checkOptions, completionText } from "./check.js";
import { promptMessages, readRows, taskId, textField } from "./data.js";
import type { ChatMessage, DataSource, Environment } from "./types.js";

export interface ExactTask {
  id: string;
  messages: ChatMessage[];
  answer: string;
}

export interface ExactOptions {
  /** Take capital and small letters for the same. Default false. */
  ignoreCase?: boolean;
}

/**
 * Tasks with one right answer: rows with `prompt` (a text or messages), `answer`, and `system` where present.
 * Reward 1 where the completion, without blanks at its ends, is the answer; else 0. There is no feedback.
 */
export function exact(options: ExactOptions = {}): Environment<ExactTask> {
  checkOptions("exact", options, { ignoreCase: "boolean" });
  const normal = (text: string) => (options.ignoreCase ? text.trim().toLowerCase() : text.trim());
  return {
    name: "exact",
    async *load(source: DataSource) {
      for await (const row of readRows(source)) {
        const messages = promptMessages(row);
        yield { id: taskId("exact", messages), messages, answer: textField(row, "answer") };
      }
    },
    prompt: (task) => task.messages,
    async verify(task, completion, { signal } = {}) {
      const text = completionText("exact", completion, signal);
      return { reward: normal(text) === normal(task.answer) ? 1 : 0 };
    },
    id: (task) => task.id,
    solution: (task) => task.answer,
  };
}
