import type { ChatMessage, TeacherParts } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import type { TeacherContext } from "./context.js";

export interface TokenBudget {
  /** Tokens that a teacher's prompt may have, generation header included. */
  maxRepromptTokens: number;
  /** Tokens of a conversation as the model gets it, generation header included. */
  countTokens(messages: ChatMessage[]): number;
  /** At most `maxTokens` tokens of a text. */
  shorten(text: string, maxTokens: number): string;
}

/** The context with one part shortened until it fits; undefined where nothing of that part can be kept. */
function shortenPart(
  context: TeacherContext,
  part: "feedback" | "demonstration",
  { maxRepromptTokens, countTokens, shorten }: TokenBudget,
): TeacherContext | undefined {
  const without = context.withParts({ ...context.parts, [part]: undefined });
  // Tokens do not add up over joined texts, so the room is a first guess that each round corrects.
  let room = maxRepromptTokens - countTokens(without.messages);
  while (room > 0) {
    const text = shorten(context.parts[part]!, room);
    if (text.trim() === "") return undefined;
    const shorter = context.withParts({ ...context.parts, [part]: text });
    const excess = countTokens(shorter.messages) - maxRepromptTokens;
    if (excess <= 0) return shorter;
    room -= excess;
  }
  return undefined;
}

/**
 * The teacher's prompt within `maxRepromptTokens`: the feedback is shortened first, down to nothing, then the
 * demonstration; never the question, the closing instruction or the generation header. Where there is no room
 * for either, the result is not distilled. Throws `ERR_SDPO_CONFIG` where the question alone is too long.
 */
export function fitTeacherPrompt(context: TeacherContext, budget: TokenBudget): TeacherContext {
  const fits = (candidate: TeacherContext) =>
    budget.countTokens(candidate.messages) <= budget.maxRepromptTokens;
  if (fits(context)) return context;
  let current = context;
  for (const part of ["feedback", "demonstration"] as const) {
    if (current.parts[part] === undefined) continue;
    const shorter = shortenPart(current, part, budget);
    if (shorter) return shorter;
    const parts: TeacherParts = { ...current.parts, [part]: undefined };
    current = current.withParts(parts);
    if (fits(current)) return current;
  }
  const { maxRepromptTokens } = budget;
  const tokens = budget.countTokens(current.messages);
  throw new SdpoError(
    "ERR_SDPO_CONFIG",
    `maxRepromptTokens: the question alone takes ${tokens} tokens, the limit is ${maxRepromptTokens}; ` +
      "raise maxRepromptTokens or lower maxPromptTokens",
  );
}
