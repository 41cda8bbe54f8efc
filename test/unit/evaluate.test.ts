import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Environment } from "../../lib/environments/types.js";
import type { Model } from "../../lib/models/model.js";
import type { RolloutGroup, VerifiedRollout } from "../../lib/rollouts/types.js";
import { loadTasks, TaskOrder } from "../../lib/trainer/data.js";
import { evaluate, evaluationMetrics, passAtK, summarize } from "../../lib/trainer/evaluate.js";
import { quantile, RowStatistics, rolloutMetrics, rowMetrics, topShare } from "../../lib/trainer/metrics.js";
import { loadTinyModel } from "../tiny-model.js";

let model: Model;
beforeAll(async () => {
  model = await loadTinyModel();
});
afterAll(() => model.dispose());

const rollout = (reward: number, length = 2, truncated = false): VerifiedRollout => ({
  taskId: "t",
  group: 0,
  promptIds: Int32Array.of(1),
  ids: new Int32Array(length),
  mask: new Uint8Array(length).fill(1),
  logprobs: new Float32Array(length),
  weightVersion: 0,
  finishReason: truncated ? "length" : "stop",
  text: "x",
  verdict: { reward, metrics: { broken: reward === 1 ? 0 : 2 } },
});
const group = (...rewards: number[]): RolloutGroup => ({
  task: { task: 0, id: "t", index: 0, messages: [], promptIds: Int32Array.of(1) },
  rollouts: rewards.map((reward) => rollout(reward)),
});

describe("passAtK", () => {
  test("is the share of subsets of k with a success", () => {
    const subsets = (n: number, k: number): number[][] =>
      k === 0
        ? [[]]
        : Array.from({ length: n }, (_, i) => subsets(i, k - 1).map((rest) => [...rest, i])).flat();
    for (const [n, c, k] of [
      [5, 2, 2],
      [6, 1, 4],
      [4, 0, 2],
      [4, 4, 1],
      [5, 3, 5],
    ] as const) {
      const all = subsets(n, k);
      const hit = all.filter((subset) => subset.some((i) => i < c)).length;
      expect(passAtK(n, c, k)).toBeCloseTo(hit / all.length, 12);
    }
  });
});

describe("summarize", () => {
  test("gives avg@k, pass@k, standard error over tasks, and shares", () => {
    const groups = [group(1, 1, 0, 0), group(0, 0, 0, 0), group(1, 1, 1, 1), group(1, 0, 0)];
    groups[1]!.rollouts[0] = rollout(0, 9, true);
    const report = summarize(groups, 4);
    const means = [0.5, 0, 1, 1 / 3];
    const average = means.reduce((a, b) => a + b, 0) / 4;
    const variance = means.reduce((s, x) => s + (x - average) ** 2, 0) / 3;
    expect(report["avg@k"]).toBeCloseTo(average, 12);
    expect(report.standardError).toBeCloseTo(Math.sqrt(variance / 4), 12);
    expect(report["pass@k"]).toBeCloseTo(2 / 3, 12);
    expect(report.passAt[1]).toBeCloseTo(average, 12);
    expect(report.passAt[2]).toBeCloseTo((5 / 6 + 0 + 1 + 2 / 3) / 4, 12);
    expect(report).toMatchObject({ tasks: 4, rollouts: 4, truncated: 1 / 15, dropped: 1 / 16 });
    expect(report.metrics["environment.broken"]).toBeCloseTo((8 * 2) / 15, 12);
    expect(report.rows).toHaveLength(15);
    expect(evaluationMetrics(report)).toMatchObject({
      "evaluation.avg@4": report["avg@k"],
      "evaluation.pass@4": report["pass@k"],
    });
  });

  test("one task has no standard error; rewards between 0 and 1 count in avg, not in pass", () => {
    const report = summarize([group(0.5, 0.5)], 2);
    expect(report).toMatchObject({ "avg@k": 0.5, "pass@k": 0, standardError: 0 });
    expect(summarize([group(0.5, 0.5)], 2, 0.5)["pass@k"]).toBe(1);
  });
});

const lengths: Environment<string> = {
  name: "lengths",
  async *load(source) {
    yield* source as readonly string[];
  },
  prompt: (task) => [{ role: "user", content: task }],
  verify: async (_, { text }) => ({ reward: text.length > 20 ? 1 : 0 }),
};
const options = { maxPromptTokens: 60, thinking: false };

describe("evaluate", () => {
  test("samples k of each task, the same again, and greedily at temperature 0", async () => {
    const { tasks } = await loadTasks(model.tokenizer, lengths, ["one", "two", "three"], options);
    const progress: number[] = [];
    const settings = { rollouts: 3, maxTokens: 5, onProgress: (done: number) => progress.push(done) };
    const report = await evaluate(model, lengths, tasks, settings);
    expect(report.rows).toHaveLength(9);
    expect(progress.at(-1)).toBe(9);
    expect(await evaluate(model, lengths, tasks, settings)).toEqual(report);
    const greedy = await evaluate(model, lengths, tasks.slice(1, 2), {
      ...settings,
      rollouts: 2,
      temperature: 0,
    });
    expect(greedy.rows[0]!.completion).toBe(greedy.rows[1]!.completion);
  });
});

describe("tasks", () => {
  test("with long prompts are skipped and counted; names and places stay", async () => {
    const source = ["short", "long ".repeat(90), "brief", "terse"];
    const { tasks, skipped } = await loadTasks(model.tokenizer, lengths, source, { ...options, limit: 2 });
    expect(tasks.map(({ id, index }) => [id, index])).toEqual([
      ["lengths-0", 0],
      ["lengths-2", 2],
    ]);
    expect(skipped).toBe(1);
    const none = loadTasks(model.tokenizer, lengths, [], options);
    await expect(none).rejects.toMatchObject({
      code: "ERR_SDPO_DATA",
      message: expect.stringMatching(/no task/),
    });
  });

  test("are drawn once in each pass, in another order each time; a cursor goes on", () => {
    const items = [..."abcdefg"];
    const order = new TaskOrder(items, 3);
    const passes = [order.draw(7), order.draw(7), order.draw(7)];
    for (const pass of passes) expect([...pass].sort()).toEqual(items);
    expect(new Set(passes.map(String)).size).toBe(3);
    const again = new TaskOrder(items, 3, 5);
    expect(again.draw(4)).toEqual([...passes[0]!.slice(5), ...passes[1]!.slice(0, 2)]);
    expect(again.cursor).toBe(9);
    expect(new TaskOrder(items, 4).draw(7)).not.toEqual(passes[0]);
  });
});

describe("metrics", () => {
  test("of rollouts: rewards, successes, lengths", () => {
    const groups = [group(1, 0), group(0, 0)];
    groups[0]!.rollouts[1] = rollout(0, 8, true);
    expect(rolloutMetrics(groups, 1)).toEqual({
      "reward.mean": 0.25,
      "reward.std": Math.sqrt(3) / 4,
      "success.samples": 0.25,
      "success.groups": 0.5,
      "completion.mean": 3.5,
      "completion.max": 8,
      "completion.truncated": 0.25,
      "environment.broken": 1.5,
    });
  });

  test("of rows: quantiles by nearest rank, the top percent's share", () => {
    const values = Array.from({ length: 200 }, (_, i) => i + 1);
    expect(quantile(values, 0.95)).toBe(190);
    expect(quantile([3], 0.95)).toBe(3);
    expect(quantile([], 0.95)).toBeUndefined();
    expect(topShare(values)).toBeCloseTo((199 + 200) / 20100, 12);
    expect(topShare([0, 0])).toBeUndefined();
    const [a, b] = [new RowStatistics(), new RowStatistics()];
    a.add("kl", [1, 2]);
    b.add("kl", [6]);
    b.add("samplerGap", [5]);
    a.merge(b, ["samplerGap"]);
    expect(rowMetrics(a)).toEqual({ "kl.mean": 3, "kl.p95": 6, "kl.top1pct_share": 6 / 9 });
  });
});
