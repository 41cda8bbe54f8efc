import { nearestName, SdpoError, show } from "../errors.js";
import { checkOptions, completionText } from "./check.js";
import {
  brokenRules,
  drawWorld,
  formatOf,
  type HouseRequest,
  houseFeedback,
  NEW_CUSTOMERS,
  randomDate,
  renderDate,
  renderRequest,
} from "./house-dates-formats.js";
import { Random } from "./random.js";
import type { DataSource, Environment } from "./types.js";

export interface HouseDatesOptions {
  /** Draws the new customers' formats and the tasks. Default 0. */
  seed?: number;
  /** New customers that tasks ask for, from A on: 1 to 8. Default 4. */
  customers?: number;
  /** What is said of a wrong answer: every broken rule, the right answer, or nothing. Default "rules". */
  feedback?: "rules" | "expected" | "none";
  /** Tasks of the source "train". Default 4096. */
  trainTasks?: number;
  /** Tasks of the source "test". Default 256. */
  testTasks?: number;
}

const SPLITS = ["train", "test"] as const;
const RULES = {
  seed: { integer: [0, Number.MAX_SAFE_INTEGER] },
  customers: { integer: [1, NEW_CUSTOMERS.length] },
  feedback: { oneOf: ["rules", "expected", "none"] },
  trainTasks: { integer: [1, 1_000_000] },
  testTasks: { integer: [1, 1_000_000] },
} satisfies Parameters<typeof checkOptions>[2];

function splitOf(source: DataSource): "train" | "test" {
  const split = SPLITS.find((name) => name === source);
  if (split !== undefined) return split;
  const near = typeof source === "string" ? nearestName(source, SPLITS) : undefined;
  const remedy = near ? `did you mean ${near}?` : "its tasks are made, not read from a file";
  throw new SdpoError(
    "ERR_SDPO_DATA",
    `house-dates: data must be "train" or "test", got ${show(source)}; ${remedy}`,
  );
}

/**
 * Dates in house formats that nobody knows: `28 jul 1994 for B:` wants `JUL / 28 / 94` and a newline. Sources
 * are "train" and "test", whose dates never meet. Reward 1 for exactly the right words, else 0; feedback
 * names every broken rule: `error: month first , use / , month in capitals`. The teacher's prompt is the log
 * of a session: the request, an attempt with its feedback or another's right answer with `ok`, and the
 * request again.
 */
export function houseDates(options: HouseDatesOptions = {}): Environment<HouseRequest> {
  checkOptions("house-dates", options, RULES);
  const { seed = 0, customers = 4, feedback = "rules", trainTasks = 4096, testTasks = 256 } = options;
  const world = drawWorld(seed);
  const request = (task: HouseRequest) => {
    formatOf(world, task);
    return renderRequest(task);
  };
  return {
    name: "house-dates",
    stop: ["\n"],
    async *load(source) {
      const split = splitOf(source);
      const random = new Random(seed, 2 + SPLITS.indexOf(split));
      const names = NEW_CUSTOMERS.slice(0, customers);
      for (let left = split === "train" ? trainTasks : testTasks; left > 0; left--) {
        yield { customer: random.pick(names), ...randomDate(random, split) };
      }
    },
    prompt: (task) => [{ role: "user", content: request(task) }],
    async verify(task, completion, { signal } = {}) {
      const answer = completionText("house-dates", completion, signal).trim().replace(/\s+/g, " ");
      const format = formatOf(world, task);
      const broken = brokenRules(task, format, answer).length;
      const metrics = { brokenRules: broken };
      if (broken === 0 || feedback === "none") return { reward: broken === 0 ? 1 : 0, metrics };
      return { reward: 0, feedback: houseFeedback(task, format, answer, feedback), metrics };
    },
    id: (task) => `house-dates-${seed}-${request(task)}`,
    solution: (task) => renderDate(task, formatOf(world, task)),
    teacherPrompt(task, parts) {
      const log = [];
      if (parts.feedback !== undefined) log.push(`${request(task)} ${parts.attempt.trim()}`, parts.feedback);
      if (parts.demonstration !== undefined) log.push(`${request(task)} ${parts.demonstration.trim()}`, "ok");
      return [{ role: "user", content: [...log, request(task)].join("\n") }];
    },
  };
}
