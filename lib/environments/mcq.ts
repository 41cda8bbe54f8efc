import { checkOptions, completionText } from "./check.js";
import { fieldError, fieldOf, promptMessages, type Row, readRows, taskId } from "./data.js";
import type { ChatMessage, DataSource, Environment } from "./types.js";

/** How a row wants its answer: `mcq` in an `<answer>` block, `gpqa` as the last letter that stands alone. */
export type McqKind = "mcq" | "gpqa";

export interface McqTask {
  id: string;
  kind: McqKind;
  messages: ChatMessage[];
  /** A, B, C or D. */
  answer: string;
}

export interface McqOptions {
  /**
   * Give feedback that says what is wrong with an answer's format, never which letter is right. Default
   * false.
   */
  formatFeedback?: boolean;
  /** Leave out the last line of a prompt where it is "Please reason step by step.". Default false. */
  omitReasoningRequest?: boolean;
}

const KINDS = ["mcq", "gpqa"];
const REASONING_REQUEST = /\n[ \t]*Please reason step by step\.\s*$/;
const OPEN = "<answer>";
const CLOSE = "</answer>";
const WANTED = `End with ${OPEN}, one letter (A, B, C or D) and nothing else, ${CLOSE}.`;

/** The letter that an answer gives, if any, and what is wrong with its format, if anything. */
interface Extraction {
  letter?: string;
  fault?: string;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}...` : text);
}

/** The content of the last `<answer>` block; the block must hold one capital letter and end the text. */
export function extractTagged(text: string, truncated = false): Extraction {
  const open = text.lastIndexOf(OPEN);
  const close = open < 0 ? -1 : text.indexOf(CLOSE, open);
  if (close < 0) {
    const fault = open < 0 ? `There is no ${OPEN} block.` : `The ${OPEN} block is not closed.`;
    return {
      fault: truncated ? `${fault} The answer was cut off at the length limit: reason more briefly.` : fault,
    };
  }
  const content = text.slice(open + OPEN.length, close).trim();
  if (!/^[A-D]$/.test(content))
    return { fault: `The ${OPEN} block holds ${quote(content)} instead of one letter.` };
  const rest = text.slice(close + CLOSE.length).trim();
  return rest === "" ? { letter: content } : { letter: content, fault: `Text follows the ${OPEN} block.` };
}

/** The last capital A, B, C or D that stands alone. */
export function extractLastLetter(text: string): Extraction {
  const letter = text.match(/\b[A-D]\b/g)?.at(-1);
  return letter === undefined ? { fault: "No option (A, B, C or D) is named." } : { letter };
}

function toTask(row: Row, omitReasoningRequest: boolean): McqTask {
  const parquet = fieldOf(row, "reward_model") !== undefined;
  const kindField = parquet ? "reward_model.style" : "kind";
  const answerField = parquet ? "reward_model.ground_truth" : "answer";
  const kind = fieldOf(row, kindField) ?? "mcq";
  if (!KINDS.includes(kind as string)) {
    throw fieldError(
      row,
      kindField,
      "expected mcq or gpqa",
      "use the environment that the rows were made for",
    );
  }
  const answer = fieldOf(row, answerField);
  if (typeof answer !== "string" || !/^[A-D]$/.test(answer)) {
    throw fieldError(row, answerField, "expected A, B, C or D", "correct the row or take it out");
  }
  const messages = promptMessages(row);
  const id = taskId("mcq", messages);
  if (omitReasoningRequest) {
    const user = messages.findLast((message) => message.role === "user")!;
    user.content = user.content.replace(REASONING_REQUEST, "");
  }
  return { id, kind: kind as McqKind, messages, answer };
}

/**
 * Questions with four options. Rows: `prompt`, `answer` (A to D), and `system`, `kind` (mcq or gpqa) where
 * present, as in SciKnowEval, or the same as `prompt` messages and `reward_model` (`style`, `ground_truth`).
 * Reward 1 for the right letter, else 0; the metric `incorrectFormat` is 1 where the format was not kept.
 */
export function mcq(options: McqOptions = {}): Environment<McqTask> {
  checkOptions("mcq", options, { formatFeedback: "boolean", omitReasoningRequest: "boolean" });
  return {
    name: "mcq",
    async *load(source: DataSource) {
      for await (const row of readRows(source)) yield toTask(row, options.omitReasoningRequest ?? false);
    },
    prompt: (task) => task.messages,
    async verify(task, completion, { signal } = {}) {
      const text = completionText("mcq", completion, signal);
      const tagged = task.kind !== "gpqa";
      const { letter, fault } = tagged ? extractTagged(text, completion.truncated) : extractLastLetter(text);
      const reward = letter === task.answer ? 1 : 0;
      const wanted = tagged ? WANTED : "End with one letter: A, B, C or D.";
      const showFault = options.formatFeedback && fault !== undefined && reward === 0;
      return {
        reward,
        ...(showFault && { feedback: `${fault} ${wanted}` }),
        metrics: { incorrectFormat: fault === undefined ? 0 : 1 },
      };
    },
    id: (task) => task.id,
    solution: (task) => (task.kind === "gpqa" ? task.answer : `${OPEN}\n${task.answer}\n${CLOSE}`),
  };
}
