import type { RolloutGroup } from "../rollouts/types.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { TeacherPrompt } from "./teacher.js";

/** What `rollouts/step-N.jsonl` says of each rollout. */
export function* rolloutDump(
  tokenizer: Tokenizer,
  groups: readonly RolloutGroup[],
  prompts: readonly TeacherPrompt[][],
): Generator<object> {
  for (const [g, { task, rollouts }] of groups.entries()) {
    const prompt = tokenizer.decode(task.promptIds);
    for (const [i, { text, verdict, ids, finishReason, weightVersion }] of rollouts.entries()) {
      yield {
        ...{ task: task.id, group: g, rollout: i, prompt, completion: text },
        ...{ reward: verdict.reward, feedback: verdict.feedback, metrics: verdict.metrics },
        ...{ teacherPrompt: prompts[g]?.[i]?.text, tokens: ids.length, finishReason, weightVersion },
      };
    }
  }
}
