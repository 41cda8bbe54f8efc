import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { ChatMessage } from "../../lib/environments/types.js";
import {
  type Attempt,
  buildTeacherContext,
  type TeacherOptions,
  withoutThinking,
} from "../../lib/feedback/context.js";
import { checkTemplates, defaultTemplates, teacherMessages } from "../../lib/feedback/templates.js";

interface Case {
  name: string;
  task: { prompt: string; system: string | null };
  rollouts: { completion: string; reward: number; feedback?: string }[];
  index: number;
  flags: Record<string, boolean> & { successRewardThreshold: number };
  expected: {
    messages: ChatMessage[];
    distilled: boolean;
    usesDemonstration: boolean;
    usesFeedback: boolean;
  };
}

const golden = JSON.parse(
  readFileSync(new URL("../golden/reprompt/reference.json", import.meta.url), "utf8"),
) as { templates: Record<string, string>; cases: Case[] };

const user = (content: string): ChatMessage => ({ role: "user", content });

function context(rollouts: Attempt[], index = 0, options: Partial<TeacherOptions> = {}) {
  return buildTeacherContext({ messages: [user("Q")], rollouts }, index, options);
}

describe("golden teacher prompts", () => {
  test("there are 13, and the default templates are theirs", () => {
    expect(golden.cases).toHaveLength(13);
    expect(defaultTemplates).toEqual({
      repromptTemplate: golden.templates.reprompt,
      solutionTemplate: golden.templates.solution,
      feedbackTemplate: golden.templates.feedback,
    });
  });

  test.each(golden.cases)("$name", ({ task, rollouts, index, flags, expected }) => {
    const messages = [user(task.prompt)];
    if (task.system !== null) messages.unshift({ role: "system", content: task.system });
    const group = {
      messages,
      rollouts: rollouts.map(({ completion, ...rest }) => ({ text: completion, ...rest })),
    };
    const {
      messages: built,
      distilled,
      usesDemonstration,
      usesFeedback,
    } = buildTeacherContext(group, index, {
      successThreshold: flags.successRewardThreshold,
      demonstrateOwnSuccess: !flags.dontRepromptOnSelfSuccess,
      removeThinking: flags.removeThinkingFromDemonstration,
      environmentFeedback: flags.includeEnvironmentFeedback,
      feedbackOnlyWithoutSolution: flags.environmentFeedbackOnlyWithoutSolution,
    });
    expect({ messages: built, distilled, usesDemonstration, usesFeedback }).toEqual(expected);
  });
});

describe("buildTeacherContext", () => {
  test("has the golden cases' flags as defaults", () => {
    for (const { task, rollouts, index, expected } of golden.cases.filter(
      (c) => c.name === "failed-with-demo",
    )) {
      const attempts = rollouts.map(({ completion, ...rest }) => ({ text: completion, ...rest }));
      const group = { messages: [user(task.prompt)], rollouts: attempts };
      expect(buildTeacherContext(group, index).messages).toEqual(expected.messages);
    }
  });

  test("a success that is blank, or nothing but thinking, is passed over", () => {
    const rollouts = [
      { text: "x", reward: 0 },
      { text: "<think>hm</think>\n", reward: 1 },
      { text: " \n", reward: 1 },
      { text: "42", reward: 1 },
    ];
    expect(context(rollouts).parts.demonstration).toBe("42");
    expect(context(rollouts.slice(0, 3)).distilled).toBe(false);
    expect(context(rollouts, 0, { removeThinking: false }).parts.demonstration).toBe("<think>hm</think>\n");
  });

  test("a reward that is not a number is no success", () => {
    expect(
      context([
        { text: "x", reward: 0 },
        { text: "y", reward: Number.NaN },
      ]).distilled,
    ).toBe(false);
  });

  test("a group of one success learns nothing, unless its own success may be shown", () => {
    expect(context([{ text: "y", reward: 1 }]).distilled).toBe(false);
    expect(context([{ text: "y", reward: 1 }], 0, { demonstrateOwnSuccess: true }).usesDemonstration).toBe(
      true,
    );
  });

  test("an environment's own teacher prompt gets the chosen parts, and only where something is chosen", () => {
    const seen: unknown[] = [];
    const group = {
      messages: [user("Q")],
      rollouts: [
        { text: "a", reward: 0, feedback: "wrong" },
        { text: "<think>t</think>b", reward: 1 },
      ],
      teacherPrompt: (parts: unknown) => {
        seen.push(parts);
        return [user("log")];
      },
    };
    expect(buildTeacherContext(group, 0).messages).toEqual([user("log")]);
    expect(buildTeacherContext(group, 0, { feedbackOnlyWithoutSolution: false }).usesFeedback).toBe(true);
    expect(buildTeacherContext(group, 1)).toMatchObject({ messages: [user("Q")], distilled: false });
    expect(seen).toEqual([
      { attempt: "a", demonstration: "b", feedback: undefined },
      { attempt: "a", demonstration: "b", feedback: "wrong" },
    ]);
  });

  test("leaves the group as it was", () => {
    const group = { messages: [user("Q")], rollouts: [{ text: "a", reward: 0, feedback: "F" }] };
    const before = structuredClone(group);
    const built = buildTeacherContext(group, 0, { environmentFeedback: false });
    built.messages[0]!.content = "changed";
    expect(group).toEqual(before);
  });

  test.each([-1, 2, 0.5, Number.NaN])("refuses the index %d in a group of two", (index) => {
    const run = () =>
      context(
        [
          { text: "a", reward: 0 },
          { text: "b", reward: 0 },
        ],
        index,
      );
    expect(run).toThrow(expect.objectContaining({ code: "ERR_SDPO_ARGUMENT" }));
    expect(run).toThrow(/index: expected a rollout, 0 to 1/);
  });
});

describe("withoutThinking", () => {
  test.each([
    ["a block and the blanks after it", "<think>a\nb</think>\n\n 42 ", "42 "],
    ["several blocks", "x <think>a</think> y <think>b</think> z", "x y z"],
    ["a block that starts in the prompt", "so it is</think>\n42", "42"],
    ["a block that is not closed", "42 <think>but maybe", "42 "],
    ["nothing but an open block", "<think>hm", ""],
    ["a block inside a block, up to the first end", "<think>a<think>b</think>c", "c"],
    ["no block", " 42\n", " 42\n"],
  ])("takes out %s", (_, text, expected) => expect(withoutThinking(text)).toBe(expected));

  test("takes a megabyte of tags in less than a second", () => {
    const start = performance.now();
    for (const tag of ["<think>", "</think>", "<think></think>"]) withoutThinking(tag.repeat(150_000));
    expect(performance.now() - start).toBeLessThan(1000);
  });
});

describe("teacherMessages", () => {
  test("replaces the last user message and keeps all others", () => {
    const messages: ChatMessage[] = [
      { role: "system", content: "S" },
      user("first"),
      { role: "assistant", content: "A" },
      { ...user("second"), name: "ann" },
      { role: "assistant", content: "prefill" },
    ];
    const built = teacherMessages(messages, { feedback: "F" }, { feedbackTemplate: " ({feedback_raw})" });
    expect(built).toEqual(
      messages.with(3, {
        role: "user",
        name: "ann",
        content: "second (F)\n\nCorrectly solve the original question.",
      }),
    );
    expect(messages[3]!.content).toBe("second");
  });

  test("inserted texts and other braces of a template stay as they are", () => {
    const hostile = "{prompt}{solution}{feedback}{feedback_raw}{successful_previous_attempt}$&$1$$";
    const built = teacherMessages(
      [user(hostile)],
      { demonstration: hostile, feedback: hostile },
      {
        repromptTemplate: "\\boxed{x} {constructor} {{prompt}}|{solution}|{feedback}|{prompt}",
        solutionTemplate: "s:{successful_previous_attempt}",
        feedbackTemplate: "f:{feedback_raw}",
      },
    );
    const expected = `\\boxed{x} {constructor} {${hostile}}|s:${hostile}|f:${hostile}|${hostile}`;
    expect(built[0]!.content).toBe(expected);
  });

  test("refuses a conversation without the user", () => {
    const run = () => teacherMessages([{ role: "system", content: "x" }], { feedback: "F" });
    expect(run).toThrow(expect.objectContaining({ code: "ERR_SDPO_ARGUMENT" }));
  });
});

describe("checkTemplates", () => {
  test("fills in the defaults", () => {
    expect(checkTemplates({})).toEqual(defaultTemplates);
    expect(checkTemplates({ feedbackTemplate: "{feedback_raw}" }).feedbackTemplate).toBe("{feedback_raw}");
  });

  test.each([
    [
      "a lost prompt",
      { repromptTemplate: "{solution}{feedback}" },
      "repromptTemplate: lacks {prompt}",
      "add it",
    ],
    [
      "a misspelt placeholder",
      { repromptTemplate: "{prompt}{soluton}{feedback}" },
      "lacks {solution}",
      "it has {soluton}",
    ],
    [
      "a lost attempt",
      { solutionTemplate: "Look:" },
      "solutionTemplate: lacks {successful_previous_attempt}",
      '"Look:"',
    ],
    [
      "lost feedback",
      { feedbackTemplate: "{feedback}" },
      "feedbackTemplate: lacks {feedback_raw}",
      "it has {feedback}",
    ],
    ["an empty template", { feedbackTemplate: "" }, "feedbackTemplate: lacks {feedback_raw}", "add it"],
    ["a number", { solutionTemplate: 7 as never }, "solutionTemplate: expected a text", "got 7"],
  ])("refuses %s", (_, templates, ...words) => {
    const run = () => checkTemplates(templates);
    expect(run).toThrow(expect.objectContaining({ code: "ERR_SDPO_CONFIG" }));
    for (const word of words) expect(run).toThrow(word);
  });
});
