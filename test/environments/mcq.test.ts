import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { environments } from "../../lib/environments/index.js";
import type { McqKind, McqOptions, McqTask } from "../../lib/environments/mcq.js";

const data = process.env.SDPO_TEST_DATA;

interface Reference {
  name: string;
  environment: string;
  response: string;
  answer: string;
  expected: { score: number; incorrect_format: number; feedback: string };
}

const golden = readFileSync(new URL("../golden/feedback/reference.jsonl", import.meta.url), "utf8")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line) as Reference)
  .filter((row) => row.environment === "mcq" || row.environment === "gpqa");

function task(answer: string, kind: McqKind = "mcq"): McqTask {
  return { id: "t", kind, messages: [{ role: "user", content: "Which?" }], answer };
}

function verify(text: string, target = task("A"), options: McqOptions = {}, truncated = false) {
  return environments.mcq(options).verify(target, { text, truncated }, {});
}

async function load(rows: unknown[], options: McqOptions = {}): Promise<McqTask[]> {
  const tasks = [];
  for await (const item of environments.mcq(options).load(rows)) tasks.push(item);
  return tasks;
}

describe("verify agrees with the reference", () => {
  test("there are eleven cases", () => expect(golden).toHaveLength(11));

  // Deviation: the reference's incorrect_format of mcq is inverted (1 where the format is right); gpqa's is not.
  test.each(golden)("$environment $name", async ({ environment, response, answer, expected }) => {
    const verdict = await verify(response, task(answer, environment as McqKind));
    const inverted = environment === "mcq";
    expect(verdict).toEqual({
      reward: expected.score,
      metrics: { incorrectFormat: inverted ? 1 - expected.incorrect_format : expected.incorrect_format },
    });
    expect(expected.feedback).toBe("");
  });
});

describe("verify departs from the reference", () => {
  test.each([
    ["a bare letter scores 1 there, though the prompt asks for an <answer> block", "A"],
    ["so does a bare letter in blanks", "\nA\n"],
    ["so does a letter before a stray closing tag", "A</answer>"],
    ["so does a block that is not closed", "<answer>\nA"],
  ])("%s", async (_, text) => {
    expect(await verify(text)).toEqual({ reward: 0, metrics: { incorrectFormat: 1 } });
  });

  test("gpqa: it raises the text to capitals, so that the article 'a' is an answer", async () => {
    const text = "I choose B, which is a good one";
    expect(await verify(text, task("A", "gpqa"))).toEqual({ reward: 0, metrics: { incorrectFormat: 0 } });
    expect(await verify(text, task("B", "gpqa"))).toEqual({ reward: 1, metrics: { incorrectFormat: 0 } });
  });

  test("blanks after the block are no fault of the format", async () => {
    expect(await verify("<answer>A</answer>\n \n")).toEqual({ reward: 1, metrics: { incorrectFormat: 0 } });
  });
});

describe("format feedback", () => {
  const feedback = async (text: string, truncated = false, kind: McqKind = "mcq") =>
    (await verify(text, task("A", kind), { formatFeedback: true }, truncated)).feedback;

  test.each([
    ["no block", "It is B.", "There is no <answer> block. End with <answer>, one letter"],
    ["an open block", "<answer>B", "The <answer> block is not closed."],
    ["a restated answer", "<answer>B: 12.5</answer>", 'block holds "B: 12.5" instead of one letter'],
    ["a small letter", "<answer>b</answer>", 'holds "b" instead'],
    ["an empty block", "<answer> </answer>", 'holds "" instead'],
    ["a wrong letter and more text", "<answer>B</answer> I hope", "Text follows the <answer> block."],
  ])("says what is wrong: %s", async (_, text, words) => {
    expect(await feedback(text)).toContain(words);
  });

  test("says that the length limit cut the answer", async () => {
    expect(await feedback("Let me think", true)).toContain("cut off at the length limit");
    expect(await feedback("<answer>B", true)).toContain("not closed. The answer was cut off");
    expect(await feedback("Let me think")).not.toContain("cut off");
  });

  test("keeps a long content short", async () => {
    expect((await feedback(`<answer>${"x".repeat(5000)}</answer>`))!.length).toBeLessThan(250);
  });

  test("gpqa: says that no option is named", async () => {
    expect(await feedback("no idea", false, "gpqa")).toMatch(/^No option .* is named\. End with one letter/);
  });

  test("says nothing of a wrong answer in the right format, nor of a right one", async () => {
    expect(await feedback("<answer>B</answer>")).toBeUndefined();
    expect(await feedback("<answer>A</answer> I hope")).toBeUndefined();
  });

  test("never depends on the right letter", async () => {
    for (const text of ["It is B.", "<answer>B: x</answer>", "<answer>b", "", "<answer>C</answer> D"]) {
      const texts = await Promise.all(
        ["A", "D"].map(
          async (answer) => (await verify(text, task(answer), { formatFeedback: true })).feedback,
        ),
      );
      expect(texts[0]).toBe(texts[1]);
    }
  });

  test("is off by default", async () => expect((await verify("It is B.")).feedback).toBeUndefined());
});

describe("rows", () => {
  const flat = {
    idx: 1,
    kind: "mcq",
    prompt: "Q?\nA: 1\nPlease reason step by step.",
    system: "S",
    answer: "C",
    tests: "-",
  };
  const messages = [
    { role: "system", content: "S" },
    { role: "user", content: flat.prompt },
  ];

  test("the flat and the Parquet form are the same task", async () => {
    const parquet = {
      data_source: "sciknoweval",
      prompt: messages,
      ability: "mcq",
      reward_model: { style: "mcq", ground_truth: "C" },
      extra_info: { split: "train", index: "1" },
    };
    const [a, b] = await load([flat, parquet]);
    expect(a).toEqual({ id: a!.id, kind: "mcq", messages, answer: "C" });
    expect(b).toEqual(a);
    expect(a!.id).toMatch(/^mcq-[0-9a-f]{16}$/);
  });

  test("kind, system and idx may be missing; gpqa is kept", async () => {
    const [a, b] = await load([
      { prompt: "Q", answer: "A", system: null },
      { prompt: "Q", answer: "B", kind: "gpqa" },
    ]);
    expect(a).toMatchObject({ kind: "mcq", messages: [{ role: "user", content: "Q" }] });
    expect(b).toMatchObject({ kind: "gpqa", answer: "B" });
  });

  test("tasks that differ in any message have different ids", async () => {
    const rows = [flat, { ...flat, system: "T" }, { ...flat, prompt: "R?" }, { ...flat, system: null }];
    expect(new Set((await load(rows)).map((item) => item.id)).size).toBe(4);
  });

  test("omitReasoningRequest takes out that last line and nothing else, and keeps the id", async () => {
    const rows = [flat, { ...flat, prompt: "Q?\nPlease reason step by step.\nD: 4" }];
    const [a, b] = await load(rows, { omitReasoningRequest: true });
    expect(a!.messages[1]!.content).toBe("Q?\nA: 1");
    expect(b!.messages[1]!.content).toBe(rows[1]!.prompt);
    expect(a!.id).toBe((await load(rows))[0]!.id);
  });
});

describe("verify and hostile text", () => {
  test.each([
    ["opening tags", "<answer>".repeat(100_000)],
    ["closing tags", "</answer>".repeat(100_000)],
    ["blanks in a block", `<answer>${" ".repeat(1_000_000)}`],
    ["letters", "A ".repeat(500_000)],
  ])("takes a megabyte of %s in less than a second", async (_, text) => {
    const start = performance.now();
    for (const kind of ["mcq", "gpqa"] as const)
      await verify(text, task("A", kind), { formatFeedback: true });
    expect(performance.now() - start).toBeLessThan(1000);
  });

  test("refuses a completion without text, and stops at an abort", async () => {
    const env = environments.mcq();
    await expect(env.verify(task("A"), {} as { text: string }, {})).rejects.toMatchObject({
      code: "ERR_SDPO_ENVIRONMENT",
    });
    const signal = AbortSignal.abort();
    await expect(env.verify(task("A"), { text: "" }, { signal })).rejects.toMatchObject({
      code: "ERR_SDPO_ABORTED",
    });
  });
});

describe.skipIf(!data)("SciKnowEval", () => {
  const counts = { biology: [450, 50], chemistry: [1890, 210], material: [841, 94], physics: [720, 80] };

  test.each(Object.entries(counts))(
    "%s: every right answer scores 1, every other 0",
    async (subject, sizes) => {
      const env = environments.mcq();
      for (const [i, split] of ["train", "test"].entries()) {
        const ids = new Set<string>();
        let tasks = 0;
        for await (const item of env.load(join(data!, "sciknoweval", subject, `${split}.json`))) {
          tasks++;
          ids.add(env.id!(item));
          expect(env.prompt(item).map((message) => message.role)).toEqual(["system", "user"]);
          for (const letter of "ABCDE") {
            const { reward } = await env.verify(
              item,
              { text: `<reasoning>B</reasoning>\n<answer>\n${letter}\n</answer>` },
              {},
            );
            expect(reward).toBe(letter === item.answer ? 1 : 0);
          }
          expect(await env.verify(item, { text: env.solution!(item) }, {})).toMatchObject({ reward: 1 });
        }
        expect(tasks).toBe(sizes[i]);
        expect(ids.size).toBe(tasks);
      }
    },
  );

  test("omitReasoningRequest finds its line in every row", async () => {
    const env = environments.mcq({ omitReasoningRequest: true });
    for await (const item of env.load(join(data!, "sciknoweval", "chemistry", "test.json"))) {
      expect(env.prompt(item)[1]!.content).toMatch(/\nD: .*$/);
      expect(env.prompt(item)[1]!.content).not.toContain("step by step");
    }
  });

  test("refuses the tool-use rows by their kind", async () => {
    const rows = environments.mcq().load(join(data!, "tooluse", "test.json"));
    await expect(rows[Symbol.asyncIterator]().next()).rejects.toThrow(/test.json line 1: kind: .*"tooluse"/);
  });
});
