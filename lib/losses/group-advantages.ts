import { checkBoolean, checkKeys, refuse } from "./arguments.js";

/**
 * Group-relative advantages (GRPO): reward minus its group's mean, divided by the group's standard deviation
 * (n - 1) + 1e-6 where `normalizeByStd` (the default). A group of one has mean 0 and deviation 1.
 * @param rewards one for each rollout
 * @param groupIds the group of each rollout: numbers or strings
 * @throws ERR_SDPO_ARGUMENT where the lengths differ or a reward is not finite
 */
export function groupAdvantages(
  rewards: ArrayLike<number>,
  groupIds: ArrayLike<number | string>,
  options: { normalizeByStd?: boolean } = {},
): Float32Array {
  checkKeys("options", options, ["normalizeByStd"]);
  const normalize = checkBoolean("normalizeByStd", options.normalizeByStd ?? true);
  if (typeof rewards?.length !== "number") throw refuse("rewards", "an array of numbers", rewards);
  if (groupIds?.length !== rewards.length)
    throw refuse("groupIds", `an array of ${rewards.length}, one for each reward`, groupIds);
  const groups = new Map<number | string, number[]>();
  for (let i = 0; i < rewards.length; i++) {
    const reward = rewards[i];
    if (typeof reward !== "number" || !Number.isFinite(reward))
      throw refuse(`rewards[${i}]`, "a finite number", reward);
    const id = groupIds[i]!;
    const members = groups.get(id);
    if (members) members.push(i);
    else groups.set(id, [i]);
  }
  const advantages = new Float32Array(rewards.length);
  for (const members of groups.values()) {
    const n = members.length;
    const first = rewards[members[0]!]!; // measured from it, equal rewards differ from their mean by exactly 0
    const mean = n === 1 ? 0 : first + members.reduce((sum, i) => sum + (rewards[i]! - first), 0) / n;
    const squares = members.reduce((sum, i) => sum + (rewards[i]! - mean) ** 2, 0);
    const deviation = n === 1 ? 1 : Math.sqrt(squares / (n - 1));
    for (const i of members) advantages[i] = (rewards[i]! - mean) / (normalize ? deviation + 1e-6 : 1);
  }
  return advantages;
}
