import type { Environment } from "../../lib/environments/types.js";

/** Wants long answers and says so: every step has something to distil from feedback and from successes. */
export const tale: Environment<string> = {
  name: "tale",
  async *load(source) {
    yield* source as readonly string[];
  },
  prompt: (task) => [{ role: "user", content: `Tell of ${task}.` }],
  verify: async (_, { text }) =>
    text.length > 24 ? { reward: 1 } : { reward: 0, feedback: `Only ${text.length} characters: write more.` },
};
