import { describe, expect, test } from "vitest";
import { Random } from "../../lib/environments/random.js";
import type { ChatMessage } from "../../lib/environments/types.js";
import { buildTeacherContext, type TeacherOptions } from "../../lib/feedback/context.js";
import { fitTeacherPrompt } from "../../lib/feedback/fit.js";

const HEADER = 3;
const pieces = (text: string) => text.match(/\s+|\S{1,4}/g) ?? [];

/** A tokenizer of the test's own: runs of blanks, and words in pieces of four; a message costs two more. */
const countTokens = (messages: ChatMessage[]) =>
  messages.reduce((sum, message) => sum + 2 + pieces(message.content).length, HEADER);
const shorten = (text: string, maxTokens: number) => pieces(text).slice(0, maxTokens).join("");

function budget(maxRepromptTokens: number) {
  return { maxRepromptTokens, countTokens, shorten };
}

const QUESTION = "What is 17 + 25?";
const CLOSING = "\n\nCorrectly solve the original question.";
const words = (n: number, word: string) => Array.from({ length: n }, (_, i) => `${word}${i}`).join(" ");

function build(
  demonstration: string | undefined,
  feedback: string | undefined,
  options: Partial<TeacherOptions> = {},
) {
  const rollouts = [
    { text: "41", reward: 0, feedback },
    { text: demonstration ?? "", reward: 1 },
  ];
  const messages: ChatMessage[] = [
    { role: "system", content: "S" },
    { role: "user", content: QUESTION },
  ];
  return buildTeacherContext({ messages, rollouts }, 0, { feedbackOnlyWithoutSolution: false, ...options });
}

describe("fitTeacherPrompt", () => {
  test("leaves a prompt that fits as it is, to the last token", () => {
    const context = build("42", "Expected 42.");
    const exact = budget(countTokens(context.messages));
    expect(fitTeacherPrompt(context, exact)).toBe(context);
    expect(fitTeacherPrompt(context, budget(exact.maxRepromptTokens - 1)).messages).not.toEqual(
      context.messages,
    );
  });

  test("shortens the feedback before the demonstration", () => {
    const context = build(words(20, "d"), words(50, "f"));
    const fitted = fitTeacherPrompt(context, budget(countTokens(context.messages) - 30));
    expect(fitted).toMatchObject({ distilled: true, usesDemonstration: true, usesFeedback: true });
    expect(fitted.parts.demonstration).toBe(words(20, "d"));
    expect(words(50, "f").startsWith(fitted.parts.feedback!)).toBe(true);
    expect(fitted.messages[1]!.content).toContain(fitted.parts.feedback);
  });

  test("then drops the feedback, then shortens the demonstration", () => {
    const context = build(words(50, "d"), words(5, "f"));
    const fitted = fitTeacherPrompt(context, budget(70));
    expect(fitted).toMatchObject({ distilled: true, usesDemonstration: true, usesFeedback: false });
    expect(words(50, "d").startsWith(fitted.parts.demonstration!)).toBe(true);
    expect(fitted.messages[1]!.content).not.toContain("feedback");
  });

  test("where only the question fits, the rollout is not distilled", () => {
    const context = build("42", "Expected 42.");
    const question = countTokens(context.withParts({ attempt: "" }).messages);
    const fitted = fitTeacherPrompt(context, budget(question));
    expect(fitted).toMatchObject({ distilled: false, usesDemonstration: false, usesFeedback: false });
    expect(fitted.messages).toEqual([
      { role: "system", content: "S" },
      { role: "user", content: QUESTION },
    ]);
    const run = () => fitTeacherPrompt(context, budget(question - 1));
    expect(run).toThrow(expect.objectContaining({ code: "ERR_SDPO_CONFIG" }));
    expect(run).toThrow(
      `maxRepromptTokens: the question alone takes ${question} tokens, the limit is ${question - 1}`,
    );
  });

  test("an environment's own prompt is shortened too", () => {
    const rollouts = [{ text: "a", reward: 0, feedback: words(50, "f") }];
    const teacherPrompt = (parts: { attempt: string; feedback?: string }): ChatMessage[] => [
      { role: "user", content: `Q ${parts.attempt}\n${parts.feedback}\nQ` },
    ];
    const context = buildTeacherContext(
      { messages: [{ role: "user", content: "Q" }], rollouts, teacherPrompt },
      0,
    );
    const fitted = fitTeacherPrompt(context, budget(30));
    expect(fitted.messages[0]!.content).toBe(`Q a\n${fitted.parts.feedback}\nQ`);
    expect(countTokens(fitted.messages)).toBeLessThanOrEqual(30);
  });

  test.each([
    ["never shortens", (text: string) => text],
    ["gives blanks", () => " \n"],
    ["gives nothing", () => ""],
  ])("ends where shorten() %s: the part is dropped", (_, badly) => {
    const context = build("42", words(500, "f"));
    const fitted = fitTeacherPrompt(context, { ...budget(200), shorten: badly });
    expect(fitted.parts).toMatchObject({ demonstration: "42", feedback: undefined });
  });

  test("counts the prompt a few times only, however long the text", () => {
    let counts = 0;
    const counting = (messages: ChatMessage[]) => {
      counts++;
      return countTokens(messages);
    };
    fitTeacherPrompt(build(undefined, words(20_000, "f")), { ...budget(1000), countTokens: counting });
    expect(counts).toBeLessThan(8);
  });
});

describe("fitTeacherPrompt, 3,000 random cases", () => {
  const random = new Random(41);
  const text = (limit: number) =>
    random.uniform() < 0.2
      ? undefined
      : words(1 + random.below(limit), random.pick(["f", "{x}", "long-word"]));
  const cases = Array.from({ length: 3000 }, () => ({
    d: text(60),
    f: text(60),
    limit: 17 + random.below(300),
  }));

  test.each([0, 1, 2])("keeps its promises (part %d)", (part) => {
    for (const { d, f, limit } of cases.slice(part * 1000, (part + 1) * 1000)) {
      const context = build(d, f);
      const fitted = fitTeacherPrompt(context, budget(limit));
      const { demonstration, feedback } = fitted.parts;
      const content = fitted.messages.at(-1)!.content;
      expect(countTokens(fitted.messages)).toBeLessThanOrEqual(limit);
      expect(content.startsWith(QUESTION)).toBe(true);
      expect(content.endsWith(CLOSING)).toBe(fitted.distilled);
      expect(fitted.distilled).toBe(demonstration !== undefined || feedback !== undefined);
      expect(fitted.messages[0]).toEqual({ role: "system", content: "S" });
      expect((f ?? "").startsWith(feedback ?? "") && (d ?? "").startsWith(demonstration ?? "")).toBe(true);
      if (demonstration !== d) expect(feedback).toBeUndefined();
      const left = limit - countTokens(fitted.messages);
      const shortened =
        feedback === undefined ? demonstration !== undefined && demonstration !== d : feedback !== f;
      if (shortened) expect(left).toBeLessThanOrEqual(3);
    }
  });
});
