import type { ChatMessage, TeacherParts } from "../environments/types.js";
import { SdpoError, show } from "../errors.js";
import { type Templates, teacherMessages } from "./templates.js";

/** A rollout as the teacher's prompt sees it. */
export interface Attempt {
  text: string;
  reward: number;
  feedback?: string;
}

/** The rollouts of one task. */
export interface AttemptGroup {
  /** The student's conversation. */
  messages: readonly ChatMessage[];
  rollouts: readonly Attempt[];
  /**
   * Writes the teacher's conversation in place of the templates: an environment's `teacherPrompt` for this
   * task.
   */
  teacherPrompt?: (parts: TeacherParts) => ChatMessage[];
}

export interface TeacherOptions extends Templates {
  /** A reward from which a rollout is a success. Default 1. */
  successThreshold: number;
  /** May a success be its own demonstration? Default false. */
  demonstrateOwnSuccess: boolean;
  /** Take `<think>` blocks out of a demonstration. Default true. */
  removeThinking: boolean;
  /** Show the environment's feedback. Default true. */
  environmentFeedback: boolean;
  /** Show it only where there is no demonstration. Default true. */
  feedbackOnlyWithoutSolution: boolean;
}

/** What the teacher sees of one rollout. */
export interface TeacherContext {
  /** The teacher's conversation; the student's where nothing is there to distil from. */
  messages: ChatMessage[];
  /** Does the teacher see more than the student? Where not, the rollout's distillation mask is 0. */
  distilled: boolean;
  usesDemonstration: boolean;
  usesFeedback: boolean;
  /** The texts that `messages` shows. */
  parts: TeacherParts;
  /** The context with other texts in place of these. */
  withParts(parts: TeacherParts): TeacherContext;
}

const THINK = "<think>";
const END_THINK = "</think>";

/**
 * The text without its `<think>` blocks and the blanks after each. A block whose start lies in the prompt
 * ends at the first `</think>`; one that is not closed reaches to the end. Linear in the text's length.
 */
export function withoutThinking(text: string): string {
  const opens = text.indexOf(THINK);
  const closes = text.indexOf(END_THINK);
  const startsInside = closes >= 0 && (opens < 0 || closes < opens);
  const kept = [];
  let position = startsInside ? skipBlanks(text, closes + END_THINK.length) : 0;
  for (;;) {
    const open = text.indexOf(THINK, position);
    kept.push(text.slice(position, open < 0 ? undefined : open));
    const close = open < 0 ? -1 : text.indexOf(END_THINK, open);
    if (close < 0) return kept.join("");
    position = skipBlanks(text, close + END_THINK.length);
  }
}

function skipBlanks(text: string, position: number): number {
  let end = position;
  while (end < text.length && /\s/.test(text[end]!)) end++;
  return end;
}

function isBlank(text: string | undefined): boolean {
  return text === undefined || text.trim() === "";
}

/** The first success of the group, other than the rollout itself unless allowed, that shows something. */
function findDemonstration(
  rollouts: readonly Attempt[],
  index: number,
  options: Partial<TeacherOptions>,
): string | undefined {
  const { successThreshold = 1, demonstrateOwnSuccess = false, removeThinking = true } = options;
  for (const [i, { text, reward }] of rollouts.entries()) {
    if (!(reward >= successThreshold) || (i === index && !demonstrateOwnSuccess)) continue;
    const shown = removeThinking ? withoutThinking(text) : text;
    if (!isBlank(shown)) return shown;
  }
  return undefined;
}

function contextOf(
  group: AttemptGroup,
  parts: TeacherParts,
  options: Partial<TeacherOptions>,
): TeacherContext {
  const usesDemonstration = parts.demonstration !== undefined;
  const usesFeedback = parts.feedback !== undefined;
  const distilled = usesDemonstration || usesFeedback;
  const hook = distilled ? group.teacherPrompt : undefined;
  return {
    messages: hook ? hook(parts) : teacherMessages(group.messages, parts, options),
    distilled,
    usesDemonstration,
    usesFeedback,
    parts,
    withParts: (other) => contextOf(group, other, options),
  };
}

/**
 * The teacher's prompt for rollout `index` of a group: another rollout's success, the rollout's feedback, or
 * both. Blank feedback is none. Throws `ERR_SDPO_ARGUMENT` for an index outside the group.
 */
export function buildTeacherContext(
  group: AttemptGroup,
  index: number,
  options: Partial<TeacherOptions> = {},
): TeacherContext {
  const rollout = group.rollouts[index];
  if (rollout === undefined) {
    const last = group.rollouts.length - 1;
    throw new SdpoError("ERR_SDPO_ARGUMENT", `index: expected a rollout, 0 to ${last}, got ${show(index)}`);
  }
  const { environmentFeedback = true, feedbackOnlyWithoutSolution = true } = options;
  const demonstration = findDemonstration(group.rollouts, index, options);
  const wanted = environmentFeedback && !(feedbackOnlyWithoutSolution && demonstration !== undefined);
  const feedback = wanted && !isBlank(rollout.feedback) ? rollout.feedback : undefined;
  return contextOf(group, { attempt: rollout.text, demonstration, feedback }, options);
}
