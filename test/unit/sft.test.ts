import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { exact } from "../../lib/environments/exact.js";
import { Model } from "../../lib/models/model.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { loadTasks } from "../../lib/trainer/data.js";
import { dryRun } from "../../lib/trainer/dry-run.js";
import { evaluate } from "../../lib/trainer/evaluate.js";
import { type SftReport, type SftRunInput, sft } from "../../lib/trainer/sft.js";
import { writeTinyModel } from "../tiny-model.js";

let device: Device;
let model: string;
let folder: string;
beforeAll(async () => {
  device = await openDevice("cpu");
  model = await writeTinyModel({ device });
  folder = await mkdtemp(join(tmpdir(), "sdpo-sft-"));
});
afterAll(async () => {
  device.dispose();
  await rm(folder, { recursive: true });
});

const data = ["red", "green", "blue"].map((color) => ({ prompt: `Say ${color}`, answer: `${color}!` }));
const base = (): SftRunInput => ({
  ...{ model, environment: "exact", data, epochs: 1, rowsPerBatch: 2, learningRate: 5e-3 },
  ...{ maxCompletionTokens: 20, maxPromptTokens: 100, device: "cpu" },
});

async function reportsOf(changes: Partial<SftRunInput> = {}): Promise<SftReport[]> {
  const reports = [];
  for await (const report of sft({ ...base(), ...changes })) reports.push(report);
  return reports;
}

describe("sft", () => {
  test("learns the answers, so that the saved model gives them and stops", async () => {
    const output = join(folder, "warm");
    const reports = await reportsOf({ output, epochs: 40 });
    expect(reports).toHaveLength(80);
    expect(reports.at(-1)!.metrics.loss).toBeLessThan(0.1 * reports[0]!.metrics.loss!);
    using warm = await Model.load(output, { device });
    const environment = exact();
    const { tasks } = await loadTasks(warm.tokenizer, environment, data, {
      maxPromptTokens: 100,
      thinking: false,
    });
    const report = await evaluate(warm, environment, tasks, { rollouts: 1, temperature: 0, maxTokens: 20 });
    expect(report.rows.map(({ completion }) => completion)).toEqual(["red!", "green!", "blue!"]);
    expect(report).toMatchObject({ "avg@k": 1, truncated: 0 });
    await expect(reportsOf({ output })).rejects.toMatchObject({ code: "ERR_SDPO_CONFIG" });
  });

  test("its first loss is the mean cross entropy of answers and end tokens, whatever the micro-batches", async () => {
    const whole = await reportsOf({ rowsPerBatch: 3 });
    const cut = await reportsOf({ rowsPerBatch: 3, microBatchTokens: 1 });
    using tiny = await Model.load(model, { device });
    const v = tiny.config.vocabSize;
    let total = 0;
    let count = 0;
    for (const { prompt, answer } of data) {
      const messages = [{ role: "user" as const, content: prompt }];
      const { ids } = tiny.tokenizer.chat(messages, { addGenerationPrompt: true, enable_thinking: false });
      const end = tiny.tokenizer.tokenToId("<|im_end|>")!;
      const sequence = Int32Array.from([...ids, ...tiny.tokenizer.encode(answer), end]);
      const [logits] = await tiny.logits([sequence]);
      for (let t = ids.length; t < sequence.length; t++) {
        const row = logits!.subarray((t - 1) * v, t * v);
        total -= row[sequence[t]!]! - Math.log(row.reduce((sum, z) => sum + Math.exp(z), 0));
        count++;
      }
    }
    expect(whole[0]!.metrics.loss).toBeCloseTo(total / count, 4);
    expect(cut[0]!.metrics.loss).toBeCloseTo(total / count, 4);
    expect(cut[0]!.metrics.grad_norm).toBeCloseTo(whole[0]!.metrics.grad_norm!, 4);
    expect(whole[0]!.metrics["tokens.answers"]).toBe(count);
  });

  test("takes the first rows that fit, and leaves out answers that are too long", async () => {
    const long = { prompt: "Say all", answer: "red green blue ".repeat(9) };
    const notices: string[] = [];
    const run = sft({ ...base(), data: [long, ...data], rows: 2 }, { log: (text) => notices.push(text) });
    for await (const { steps } of run) expect(steps).toBe(1);
    expect(notices).toEqual(["data: 2 rows, 1 that are too long left out"]);
  });

  test("needs an environment with solutions", async () => {
    const { solution: _, ...environment } = exact();
    await expect(reportsOf({ environment })).rejects.toMatchObject({
      code: "ERR_SDPO_ENVIRONMENT",
      message: expect.stringMatching(/no solution\(task\)/),
    });
  });
});

describe("dryRun", () => {
  test("counts parameters, tokens and bytes without reading weights", async () => {
    const report = await dryRun({
      ...{ model, environment: "house-dates", data: "train", tasksPerBatch: 4, miniBatchTasks: 2 },
      environmentOptions: { trainTasks: 64 },
      steps: 20,
      ...{ maxCompletionTokens: 8, maxPromptTokens: 200, maxRepromptTokens: 300 },
    });
    using tiny = await Model.load(model, { device });
    const parameters = tiny.parameters.reduce((n, { shape }) => n + shape.reduce((a, b) => a * b, 1), 0);
    expect(report.model).toMatchObject({ type: "llama", parameters, dtype: "f32" });
    expect(report.step).toMatchObject({ rollouts: 32, updates: 2, rolloutTokens: 256 });
    expect(report.memory.student).toBe(4 * parameters);
    expect(report.memory.optimizer).toBe(8 * parameters);
    expect(report.memory.teacher).toBe(4 * parameters);
    expect(report.memory.total).toBeGreaterThan(20 * parameters);
    expect(report.data.tasks).toBe(64);
  });

  test("refuses what training would refuse", async () => {
    const run = dryRun({ model: "/nowhere", environment: "exact", data: "x" });
    await expect(run).rejects.toMatchObject({ code: "ERR_SDPO_FILE" });
  });
});
