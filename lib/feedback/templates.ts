import type { ChatMessage, TeacherParts } from "../environments/types.js";
import { nearestName, SdpoError, show } from "../errors.js";

/**
 * The texts of a teacher's prompt; `{...}` are placeholders, what is put in their place is never expanded
 * again.
 */
export interface Templates {
  /** Takes `{prompt}`, `{solution}` and `{feedback}`; the last two are empty where there is none. */
  repromptTemplate: string;
  /** Takes `{successful_previous_attempt}`. */
  solutionTemplate: string;
  /** Takes `{feedback_raw}`. */
  feedbackTemplate: string;
}

/** The templates of the paper (arXiv 2601.20802). */
export const defaultTemplates: Templates = {
  repromptTemplate: "{prompt}{solution}{feedback}\n\nCorrectly solve the original question.",
  solutionTemplate: "\nCorrect solution:\n\n{successful_previous_attempt}",
  feedbackTemplate: "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}",
};

const PLACEHOLDERS: Record<keyof Templates, readonly string[]> = {
  repromptTemplate: ["prompt", "solution", "feedback"],
  solutionTemplate: ["successful_previous_attempt"],
  feedbackTemplate: ["feedback_raw"],
};

/**
 * The templates, with defaults for those left out. Other texts in braces stay as they are. Throws
 * `ERR_SDPO_CONFIG` for a template that lacks one of its placeholders, with the misspelt one where there is
 * one.
 */
export function checkTemplates(templates: Partial<Templates>): Templates {
  const all = { ...defaultTemplates };
  for (const key of Object.keys(PLACEHOLDERS) as (keyof Templates)[]) {
    const template = templates[key] ?? all[key];
    if (typeof template !== "string") {
      throw new SdpoError("ERR_SDPO_CONFIG", `${key}: expected a text, got ${show(template)}`);
    }
    for (const name of PLACEHOLDERS[key]) {
      if (template.includes(`{${name}}`)) continue;
      const near = nearestName(
        name,
        Array.from(template.matchAll(/\{(\w+)\}/g), (match) => match[1]!),
      );
      const remedy = near ? `it has {${near}}: correct it` : "add it";
      throw new SdpoError("ERR_SDPO_CONFIG", `${key}: lacks {${name}}, got ${show(template)}; ${remedy}`);
    }
    all[key] = template;
  }
  return all;
}

function expand(template: string, values: Record<string, string>): string {
  return template.replace(/\{(\w+)\}/g, (whole, name: string) =>
    Object.hasOwn(values, name) ? values[name]! : whole,
  );
}

/**
 * The teacher's conversation: that of the student, with the last user message replaced by the reprompt.
 * Without demonstration and feedback it is the student's. Throws `ERR_SDPO_ARGUMENT` where there is no user
 * message.
 */
export function teacherMessages(
  messages: readonly ChatMessage[],
  parts: Pick<TeacherParts, "demonstration" | "feedback">,
  options: Partial<Templates> = {},
): ChatMessage[] {
  const { demonstration, feedback } = parts;
  const last = messages.findLastIndex((message) => message.role === "user");
  if (last < 0) {
    throw new SdpoError("ERR_SDPO_ARGUMENT", `messages: expected one of the user, got ${show(messages)}`);
  }
  const templates = checkTemplates(options);
  if (demonstration === undefined && feedback === undefined)
    return messages.map((message) => ({ ...message }));
  const content = expand(templates.repromptTemplate, {
    prompt: messages[last]!.content,
    solution:
      demonstration === undefined
        ? ""
        : expand(templates.solutionTemplate, { successful_previous_attempt: demonstration }),
    feedback: feedback === undefined ? "" : expand(templates.feedbackTemplate, { feedback_raw: feedback }),
  });
  return messages.map((message, i) => (i === last ? { ...message, content } : { ...message }));
}
