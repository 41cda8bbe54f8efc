/** What the teacher sees of each rollout: its prompt within the token budget, and the check that it lines up. */
import type { ChatMessage, Environment } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import { buildTeacherContext, type TeacherOptions } from "../feedback/context.js";
import { fitTeacherPrompt } from "../feedback/fit.js";
import { chatIds } from "../rollouts/prompt.js";
import type { RolloutGroup } from "../rollouts/types.js";
import { truncateToTokens } from "../text/budget.js";
import type { Tokenizer } from "../text/tokenizer.js";

export interface TeacherPromptOptions extends Partial<TeacherOptions> {
  maxRepromptTokens: number;
  thinking: boolean;
}

/** The teacher's view of one rollout; without `ids` there is nothing to distil from. */
export interface TeacherPrompt {
  ids?: Int32Array;
  text?: string;
  usesDemonstration: boolean;
  usesFeedback: boolean;
}

interface Rendered {
  text: string;
  ids: Int32Array;
  /** What the template added for the answer to come. */
  header: Int32Array;
}

/** Renders conversations, each different one once. */
function renderer(tokenizer: Tokenizer, thinking: boolean): (messages: ChatMessage[]) => Rendered {
  const known = new Map<string, Rendered>();
  return (messages) => {
    const key = JSON.stringify(messages);
    const before = known.get(key);
    if (before) return before;
    const { text, ids } = chatIds(tokenizer, messages, thinking);
    const bare = tokenizer.chat(
      messages.map((message) => ({ ...message })),
      { enable_thinking: thinking },
    ).ids;
    let shared = 0;
    while (shared < bare.length && bare[shared] === ids[shared]) shared++;
    const rendered = { text, ids, header: ids.subarray(shared) };
    known.set(key, rendered);
    return rendered;
  };
}

/**
 * Throws ERR_SDPO_TEXT, showing both texts, where the generation header, which the completion follows, is not
 * the same at the end of both prompts.
 */
export function checkAlignment(student: Rendered, teacher: Rendered, taskId: string): void {
  const { header } = student;
  const end = teacher.ids.subarray(Math.max(0, teacher.ids.length - header.length));
  const same = (a: Int32Array, b: Int32Array) => a.length === b.length && a.every((id, i) => id === b[i]);
  if (same(header, teacher.header) && same(header, end)) return;
  throw new SdpoError(
    "ERR_SDPO_TEXT",
    `task ${taskId}: the text before the completion differs between the two prompts, so that they cannot be ` +
      `compared token by token. The student's prompt: ${JSON.stringify(student.text)}. The teacher's: ` +
      `${JSON.stringify(teacher.text)}. Let the environment's teacherPrompt end as its prompt does`,
  );
}

/** The teacher's prompts of a group's rollouts. Throws ERR_SDPO_CONFIG where the question alone is too long. */
function groupPrompts(
  group: RolloutGroup,
  environment: Environment,
  tokenizer: Tokenizer,
  options: TeacherPromptOptions,
): TeacherPrompt[] {
  const { messages, task, id } = group.task;
  const hook = environment.teacherPrompt?.bind(environment);
  const attempts = {
    messages,
    rollouts: group.rollouts.map(({ text, verdict }) => ({ text, ...verdict })),
    ...(hook && { teacherPrompt: (parts: Parameters<typeof hook>[1]) => hook(task, parts) }),
  };
  const render = renderer(tokenizer, options.thinking);
  const student = render(messages);
  return group.rollouts.map((_, i) => {
    const context = buildTeacherContext(attempts, i, options);
    if (!context.distilled) return { usesDemonstration: false, usesFeedback: false };
    const fitted = fitTeacherPrompt(context, {
      maxRepromptTokens: options.maxRepromptTokens,
      countTokens: (messages) => render(messages).ids.length,
      shorten: (text, maxTokens) => truncateToTokens(tokenizer, text, maxTokens),
    });
    const { distilled, usesDemonstration, usesFeedback } = fitted;
    if (!distilled) return { usesDemonstration, usesFeedback };
    const teacher = render(fitted.messages);
    checkAlignment(student, teacher, id);
    return { ids: teacher.ids, text: teacher.text, usesDemonstration, usesFeedback };
  });
}

/** The teacher's prompt of every rollout, by group. Lets other work in between groups. */
export async function teacherPrompts(
  groups: readonly RolloutGroup[],
  environment: Environment,
  tokenizer: Tokenizer,
  options: TeacherPromptOptions,
): Promise<TeacherPrompt[][]> {
  const prompts: TeacherPrompt[][] = [];
  for (const group of groups) {
    prompts.push(groupPrompts(group, environment, tokenizer, options));
    await new Promise(setImmediate);
  }
  return prompts;
}
