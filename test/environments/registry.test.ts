import { describe, expect, test } from "vitest";
import { createEnvironment, environments } from "../../lib/environments/index.js";
import { defineEnvironment, type Environment } from "../../lib/environments/types.js";

async function first<T>(env: Environment<T>, source: string | unknown[]): Promise<T> {
  for await (const task of env.load(source)) return task;
  throw new Error("no task");
}

const sources: Record<string, string | unknown[]> = {
  mcq: [{ prompt: "Which?", answer: "D" }],
  exact: [{ prompt: "2 + 2?", answer: "four" }],
  "house-dates": "test",
};

describe("every environment", () => {
  test.each(Object.keys(environments))("%s keeps the contract", async (name) => {
    const env = defineEnvironment(createEnvironment(name));
    expect(env.name).toBe(name);
    const task = await first(env, sources[name]!);
    expect(env.prompt(task).at(-1)!.role).toBe("user");
    expect(env.id!(task)).toBe(env.id!(await first(createEnvironment(name), sources[name]!)));
    expect(await env.verify(task, { text: env.solution!(task) }, {})).toMatchObject({ reward: 1 });
    for (const text of ["", "no", "\0", "{prompt}", "<|im_end|>", "\ud800", "x".repeat(100_000)]) {
      expect(await env.verify(task, { text })).toMatchObject({ reward: 0 });
    }
    const signal = AbortSignal.abort();
    await expect(env.verify(task, { text: "" }, { signal })).rejects.toMatchObject({
      code: "ERR_SDPO_ABORTED",
    });
    await expect(env.verify(task, {} as never, {})).rejects.toMatchObject({ code: "ERR_SDPO_ENVIRONMENT" });
  });
});

describe("exact", () => {
  const verdict = async (text: string, ignoreCase = false) => {
    const env = environments.exact({ ignoreCase });
    return env.verify(await first(env, [{ prompt: "2 + 2?", answer: "Four" }]), { text }, {});
  };

  test("compares without blanks at the ends", async () => {
    expect(await verdict(" Four\n")).toEqual({ reward: 1 });
    expect(await verdict("four")).toEqual({ reward: 0 });
    expect(await verdict("Fo ur")).toEqual({ reward: 0 });
    expect(await verdict("fOUR", true)).toEqual({ reward: 1 });
  });

  test("refuses a row without answer", async () => {
    await expect(first(environments.exact(), [{ prompt: "x" }])).rejects.toMatchObject({
      code: "ERR_SDPO_DATA",
    });
  });
});

const refused: [name: string, run: () => unknown, ...words: string[]][] = [
  ["an unknown name", () => createEnvironment("mcqs"), 'unknown name "mcqs"', "did you mean mcq?"],
  ["a name in camel case", () => createEnvironment("houseDates"), "did you mean house-dates?"],
  ["a name far from any", () => createEnvironment("chess-problems"), "there are mcq, house-dates, exact"],
  ["an inherited name", () => createEnvironment("toString"), 'unknown name "toString"'],
  ["a name that is no text", () => createEnvironment(7 as never), "unknown name 7"],
  ["an unknown key", () => createEnvironment("mcq", { formatfeedbak: true }), "did you mean formatFeedback?"],
  [
    "a key far from any",
    () => createEnvironment("exact", { banana: 1 }),
    'unknown option "banana"',
    "are ignoreCase",
  ],
  ["an inherited key", () => createEnvironment("mcq", { toString: true }), 'unknown option "toString"'],
  ["options that are null", () => createEnvironment("mcq", null as never), "must be an object, got null"],
  ["options that are a list", () => createEnvironment("mcq", [] as never), "must be an object, got []"],
  [
    "a text for a switch",
    () => createEnvironment("mcq", { formatFeedback: "yes" }),
    "must be true or false",
    '"yes"',
  ],
  [
    "too many customers",
    () => environments["house-dates"]({ customers: 9 }),
    "customers must be an integer from 1 to 8",
  ],
  ["a seed below 0", () => environments["house-dates"]({ seed: -1 }), "seed must be an integer", "got -1"],
  ["a seed that is a text", () => createEnvironment("house-dates", { seed: "1" }), 'got "1"'],
  ["no tasks", () => environments["house-dates"]({ trainTasks: 0 }), "trainTasks must be an integer from 1"],
  [
    "another feedback",
    () => createEnvironment("house-dates", { feedback: "hints" }),
    '"rules" or "expected" or "none"',
  ],
];

describe("createEnvironment", () => {
  test.each(refused)("refuses %s", (_, run, ...words) => {
    expect(run).toThrow(expect.objectContaining({ code: "ERR_SDPO_CONFIG" }));
    for (const word of words) expect(run).toThrow(word);
  });

  test("passes options on, and takes undefined for left out", async () => {
    const env = createEnvironment("mcq", { formatFeedback: true, omitReasoningRequest: undefined });
    const task = await first(env, sources.mcq!);
    expect((await env.verify(task, { text: "" }, {})).feedback).toContain("no <answer> block");
  });
});

describe("defineEnvironment", () => {
  const parts = {
    name: "parity",
    async *load() {
      yield 3;
    },
    prompt: (task: number) => [{ role: "user" as const, content: `Is ${task} odd?` }],
    verify: async (task: number, { text }: { text: string }) => ({
      reward: (text === "yes") === (task % 2 === 1) ? 1 : 0,
    }),
  };

  test("gives an environment its task's type", async () => {
    const env = defineEnvironment(parts);
    const task = await first(env, []);
    expect(env.prompt(task)[0]!.content).toBe("Is 3 odd?");
    expect(await env.verify(task, { text: "yes" })).toEqual({ reward: 1 });
  });

  test.each([
    ["a missing name", { name: undefined }, "name must be a text"],
    [
      "a missing verify",
      { verify: undefined },
      "environment parity: verify must be a function, got undefined",
    ],
    ["an id that is a text", { id: "x" }, 'id must be a function or left out, got "x"'],
    ["an empty stop text", { stop: [""] }, "stop must be a list of texts"],
    ["a stop text outside a list", { stop: "\n" }, "stop must be a list of texts"],
  ])("refuses %s", (_, change, words) => {
    const run = () => defineEnvironment({ ...parts, ...change } as never);
    expect(run).toThrow(expect.objectContaining({ code: "ERR_SDPO_ENVIRONMENT" }));
    expect(run).toThrow(words);
  });
});
