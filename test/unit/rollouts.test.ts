import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Environment } from "../../lib/environments/types.js";
import type { Model } from "../../lib/models/model.js";
import { packSequences } from "../../lib/models/packing.js";
import { collectRollouts } from "../../lib/rollouts/collect.js";
import { promptTask } from "../../lib/rollouts/prompt.js";
import { concurrently, verifyRollout } from "../../lib/rollouts/verify.js";
import { loadTinyModel } from "../tiny-model.js";

let model: Model;
beforeAll(async () => {
  model = await loadTinyModel();
});
afterAll(() => model.dispose());

const words = ["red", "green", "blue", "white"];
/** Rewards completions by their length; no reward is missed in a test by chance. */
const environment: Environment<string> = {
  name: "words",
  async *load() {
    yield* words;
  },
  prompt: (task) => [{ role: "user", content: `Say ${task}` }],
  verify: async (_task, { text }) => ({ reward: text.length % 2, metrics: { length: text.length } }),
};
const tasksOf = (env: Environment<string>) =>
  words.map((word, i) => promptTask(model.tokenizer, env, word, i, false));
const options = { rollouts: 3, step: 2, seed: 5, maxTokens: 6, temperature: 1 };

describe("collectRollouts", () => {
  test("gives groups in the order of the tasks, with ids, logprobs, mask and text that belong together", async () => {
    const tasks = tasksOf(environment);
    const { groups, failures, tokens } = await collectRollouts(model, tasks, environment, {
      ...options,
      weightVersion: 4,
    });
    expect(failures).toEqual([]);
    expect(groups.map(({ task }) => task.id)).toEqual(words.map((_, i) => `words-${i}`));
    for (const [g, { task, rollouts }] of groups.entries()) {
      expect(rollouts).toHaveLength(3);
      for (const rollout of rollouts) {
        const { ids, logprobs, mask, text, verdict } = rollout;
        expect(rollout).toMatchObject({ group: g, taskId: task.id, weightVersion: 4 });
        expect([logprobs.length, mask.length]).toEqual([ids.length, ids.length]);
        expect(mask.every((m) => m === 1)).toBe(true);
        expect(verdict.reward).toBe(text.length % 2);
        const ended = rollout.finishReason === "stop";
        expect(text).toBe(model.tokenizer.decode(ended ? ids.subarray(0, -1) : ids));
        expect(ids.length <= 6).toBe(true);
      }
    }
    expect(tokens.sampled).toBe(
      groups.flatMap((g) => g.rollouts).reduce((sum, { ids }) => sum + ids.length, 0),
    );
    expect(tokens.promptWithoutSharing).toBe(3 * tokens.prompt);
  });

  test("samples with the logprobs that the packed forward pass gives", async () => {
    const { groups } = await collectRollouts(model, tasksOf(environment), environment, options);
    const rollout = groups[1]!.rollouts[2]!;
    const sequence = Int32Array.from([...rollout.promptIds, ...rollout.ids]);
    const [logits] = await model.logits([sequence]);
    const v = model.config.vocabSize;
    rollout.ids.forEach((id, t) => {
      const row = logits!.subarray(
        (rollout.promptIds.length + t - 1) * v,
        (rollout.promptIds.length + t) * v,
      );
      const largest = row.reduce((a, b) => Math.max(a, b));
      const lse = largest + Math.log(row.reduce((sum, z) => sum + Math.exp(z - largest), 0));
      expect(rollout.logprobs[t]).toBeCloseTo(row[id]! - lse, 4);
    });
    expect(packSequences([sequence]).ids).toEqual(sequence);
  });

  test("a task's rollouts do not depend on the other tasks or on the batch size; another step gives others", async () => {
    const tasks = tasksOf(environment);
    const idsOf = async (chosen: typeof tasks, changes = {}) =>
      (await collectRollouts(model, chosen, environment, { ...options, ...changes })).groups.map((group) =>
        group.rollouts.map(({ ids, logprobs }) => [[...ids], [...logprobs]]),
      );
    const all = await idsOf(tasks);
    expect(await idsOf([tasks[2]!])).toEqual([all[2]]);
    expect(await idsOf(tasks, { batchSize: 2 })).toEqual(all);
    expect(await idsOf(tasks, { step: 3 })).not.toEqual(all);
    const [first, again] = await idsOf([tasks[0]!, tasks[0]!]);
    expect(first).toEqual(all[0]);
    expect(again).not.toEqual(first);
  });

  test("come in the order of their numbers, whichever ends first", async () => {
    const stopping = { ...environment, stop: ["a", "e"] };
    const lengthsOf = async (batchSize: number) => {
      const changes = { rollouts: 8, maxTokens: 12, batchSize };
      const { groups } = await collectRollouts(model, tasksOf(stopping), stopping, {
        ...options,
        ...changes,
      });
      return groups.map(({ rollouts }) => rollouts.map(({ ids }) => ids.length));
    };
    const oneByOne = await lengthsOf(1);
    expect(new Set(oneByOne[0]).size).toBeGreaterThan(2);
    expect(await lengthsOf(64)).toEqual(oneByOne);
  });

  test("a verification that throws drops its rollout, and does not count as reward 0", async () => {
    let calls = 0;
    const broken: Environment<string> = {
      ...environment,
      verify: async (task, completion, o) => {
        if (task === "green" && calls++ < 2) throw new Error("no judge");
        return environment.verify(task, completion, o);
      },
    };
    const { groups, failures } = await collectRollouts(model, tasksOf(broken), broken, options);
    expect(groups.map(({ rollouts }) => rollouts.length)).toEqual([3, 1, 3, 3]);
    expect(failures.map(({ taskId, error }) => [taskId, (error as Error).message])).toEqual([
      ["words-1", "no judge"],
      ["words-1", "no judge"],
    ]);
  });

  test("where every verification fails, or gives no verdict, the reason is thrown", async () => {
    const verdict = (value: unknown): Environment<string> => ({
      ...environment,
      verify: async () => value as never,
    });
    for (const [value, message] of [
      [{ reward: Number.NaN }, /reward must be a finite number, got NaN/],
      [undefined, /its result must be \{ reward \}/],
      [{ reward: 1, feedback: 3 }, /feedback must be a text/],
      [{ reward: 1, metrics: { a: "b" } }, /metrics.a must be a finite number/],
    ] as const) {
      const run = collectRollouts(model, tasksOf(environment).slice(0, 1), verdict(value), options);
      await expect(run).rejects.toMatchObject({
        code: "ERR_SDPO_ENVIRONMENT",
        message: expect.stringMatching(message),
      });
    }
  });

  test("the environment's stop texts end a completion and are left out of its text", async () => {
    const { groups } = await collectRollouts(model, tasksOf(environment), environment, {
      ...options,
      maxTokens: 12,
    });
    const long = groups.flatMap((group) => group.rollouts).find(({ text }) => text.length > 8)!;
    const stop = long.text.slice(3, 5);
    const stopping = { ...environment, stop: [stop] };
    const { groups: stopped } = await collectRollouts(model, tasksOf(stopping), stopping, {
      ...options,
      maxTokens: 12,
    });
    const same = stopped[long.group]!.rollouts.find(({ ids }) => ids.every((id, i) => id === long.ids[i]))!;
    expect(same.finishReason).toBe("stop");
    expect(same.text).toBe(long.text.slice(0, long.text.indexOf(stop)));
    expect(same.ids.length).toBeLessThan(long.ids.length);
  });

  test("an abort ends it, also while verifications hang", async () => {
    const controller = new AbortController();
    const hanging: Environment<string> = { ...environment, verify: () => new Promise(() => {}) };
    const run = collectRollouts(model, tasksOf(hanging), hanging, { ...options, signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    await expect(run).rejects.toMatchObject({ code: "ERR_SDPO_ABORTED" });
  });
});

describe("verification", () => {
  test("runs at most so many at a time, in order", async () => {
    let running = 0;
    let most = 0;
    const order: number[] = [];
    const limited = concurrently(3);
    const jobs = Array.from({ length: 10 }, (_, i) =>
      limited(async () => {
        order.push(i);
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 2));
        running--;
        if (i === 4) throw new Error("four");
        return i;
      }),
    );
    const settled = await Promise.allSettled(jobs);
    expect(most).toBe(3);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(settled.map(({ status }) => status).filter((s) => s === "rejected")).toHaveLength(1);
  });

  test("says that a completion was cut off", async () => {
    const seen: (boolean | undefined)[] = [];
    const env: Environment<string> = {
      ...environment,
      verify: async (_t, { truncated }) => {
        seen.push(truncated);
        return { reward: 0 };
      },
    };
    for (const finishReason of ["length", "stop"] as const)
      await verifyRollout(env, "red", { text: "a", ids: Int32Array.of(1), finishReason });
    expect(seen).toEqual([true, false]);
  });
});
