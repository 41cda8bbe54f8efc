import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Environment } from "../../lib/environments/types.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { dryRun } from "../../lib/trainer/dry-run.js";
import { type StepReport, Trainer, type TrainerHooks, type TrainerInput } from "../../lib/trainer/trainer.js";
import { writeTinyModel } from "../tiny-model.js";

let device: Device;
let model: string;
let folder: string;
beforeAll(async () => {
  device = await openDevice("cpu");
  model = await writeTinyModel({ device });
  folder = await mkdtemp(join(tmpdir(), "sdpo-trainer-"));
});
afterAll(async () => {
  device.dispose();
  await rm(folder, { recursive: true });
});

/** Wants long completions; says so. */
const environment: Environment<string> = {
  name: "letters",
  async *load(source) {
    yield* source as readonly string[];
  },
  prompt: (task) => [{ role: "user", content: `Write the letter ${task}.` }],
  verify: async (task, { text }) => {
    const reward = text.length > 24 ? 1 : 0;
    const silent = task === "z";
    return {
      reward,
      ...(reward === 0 && !silent && { feedback: "Too short: write more." }),
      metrics: { length: text.length },
    };
  },
};
const data = ["a", "b", "c", "d", "e"];
const base = (): TrainerInput => ({
  ...{ model, environment, data, steps: 3, tasksPerBatch: 2, rolloutsPerTask: 4 },
  ...{ maxCompletionTokens: 6, maxPromptTokens: 100, maxRepromptTokens: 300, learningRate: 1e-3 },
  ...{ warmupSteps: 0, seed: 3 },
});

async function train(changes: Partial<TrainerInput> = {}, hooks: TrainerHooks = {}) {
  const trainer = await Trainer.create({ ...base(), ...changes }, { device, ...hooks });
  const reports: StepReport[] = [];
  for await (const report of trainer.run()) reports.push(report);
  const flat = (slot: string) => trainer.model.flat(slot).readFloats();
  const slots = Object.fromEntries(
    await Promise.all(
      ["weight", "teacher", "first_moment"]
        .filter((slot) => trainer.model.hasSlot(slot))
        .map(async (slot) => [slot, await flat(slot)] as const),
    ),
  );
  trainer.dispose();
  return { reports, slots };
}

/** Are two sets of slots the same bit for bit? */
function sameBits(a: Record<string, Float32Array>, b: Record<string, Float32Array>): boolean {
  const bytes = (x: Float32Array) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return Object.keys({ ...a, ...b }).every(
    (name) => a[name] && b[name] && bytes(a[name]).equals(bytes(b[name])),
  );
}

const untimed = ({ metrics }: StepReport) =>
  Object.fromEntries(
    Object.entries(metrics).filter(([name]) => !/^(seconds|tokens_per_second|memory)/.test(name)),
  );

/** The names that every SDPO step reports. */
const NAMES =
  `loss reward.mean reward.std success.samples success.groups demonstration.fraction feedback.fraction
distilled.fraction entropy topk_mass.student topk_mass.teacher kl.mean kl.p95 kl.top1pct_share ratio.mean ratio.p95
ratio.max ratio.clipped sampler_gap.mean sampler_gap.p95 sampler_gap.max completion.mean completion.max
completion.truncated grad_norm learning_rate skipped_steps tokens.rollout tokens.score tokens.train
memory.peak seconds.rollout seconds.train tokens_per_second.rollout tokens_per_second.train`.split(/\s+/);

describe("Trainer", () => {
  test("runs SDPO steps that report every metric, and is the same twice", async () => {
    const first = await train();
    expect(first.reports.map(({ step }) => step)).toEqual([1, 2, 3]);
    for (const { metrics } of first.reports) {
      for (const name of NAMES) expect(metrics, name).toHaveProperty([name]);
      expect(Object.values(metrics).every(Number.isFinite)).toBe(true);
      expect(metrics["distilled.fraction"]).toBeGreaterThan(0);
      expect(metrics["sampler_gap.max"]).toBeLessThan(1e-3);
      expect(metrics["ratio.mean"]).toBe(1);
      expect(metrics["sharing.saved"]).toBeGreaterThan(0.2);
      expect(metrics["environment.length"]).toBeGreaterThan(0);
      expect(metrics.updates).toBe(1);
    }
    const second = await train();
    expect(second.reports.map(untimed)).toEqual(first.reports.map(untimed));
    expect(sameBits(second.slots, first.slots)).toBe(true);
    const other = await train({ seed: 4 });
    expect(sameBits(other.slots, first.slots)).toBe(false);
  });

  test.each([
    ["GRPO", { algorithm: "grpo", epochs: 2, maxRepromptTokens: undefined }, undefined],
    ["the blend", { algorithm: "blend", lambda: 0.5, klCoefficient: 0.01 }, "teacher"],
    ["a trust region", { teacher: "trust-region" }, undefined],
    ["a live teacher", { teacher: "live" }, undefined],
    ["a frozen teacher", { teacher: "frozen" }, "teacher"],
    ["sequence credit", { distillation: "sequence", alpha: 1 }, "teacher"],
    ["bf16 weights", { dtype: "bf16" }, "teacher"],
    ["mini-batches", { miniBatchTasks: 1, epochs: 2 }, "teacher"],
  ] as [string, Partial<TrainerInput>, string | undefined][])("runs %s", async (name, changes, slot) => {
    const { reports, slots } = await train({ steps: 2, ...changes });
    expect(reports).toHaveLength(2);
    for (const { metrics } of reports) expect(Object.values(metrics).every(Number.isFinite)).toBe(true);
    expect("teacher" in slots).toBe(slot === "teacher");
    if (name === "mini-batches") {
      expect(reports[0]!.metrics.updates).toBe(4);
      expect(reports[0]!.metrics["ratio.mean"]).not.toBe(1);
    }
    if (name === "a frozen teacher") {
      const before = await Trainer.create(base(), { device });
      const initial = await before.model.flat("weight").readFloats();
      before.dispose();
      expect(sameBits({ w: slots.teacher! }, { w: initial })).toBe(true);
      expect(sameBits({ w: slots.weight! }, { w: initial })).toBe(false);
    }
  });

  test("the teacher follows once a batch: (1 - rate) teacher + rate student", async () => {
    const before = await Trainer.create(base(), { device });
    const initial = await before.model.flat("weight").readFloats();
    before.dispose();
    for (const changes of [{}, { miniBatchTasks: 1 }]) {
      const { slots } = await train({ steps: 1, teacherRate: 0.25, ...changes });
      const expected = initial.map((x, i) => 0.75 * x + 0.25 * slots.weight![i]!);
      const error = slots.teacher!.reduce((m, x, i) => Math.max(m, Math.abs(x - expected[i]!)), 0);
      expect(error).toBeLessThan(1e-7);
      expect(sameBits({ t: slots.teacher! }, { t: initial })).toBe(false);
    }
  });

  test("beside bf16 weights, rollout weights count and several updates score what they start from", async () => {
    const metricsOf = async (changes: Partial<TrainerInput>) =>
      (await train({ steps: 1, ...changes })).reports[0]!.metrics;
    const bf16 = { dtype: "bf16" as const };
    const { loss } = await metricsOf({ ...bf16, rolloutWeightClip: null });
    const halved = await metricsOf({ ...bf16, rolloutWeightClip: 0.5 });
    expect(halved.loss! / loss!).toBeCloseTo(0.5, 3);
    const own = await metricsOf({ rolloutWeightClip: null });
    expect(await metricsOf({ rolloutWeightClip: 0.5 }).then((m) => m.loss)).toBe(own.loss);
    const grpo = { algorithm: "grpo" as const, maxRepromptTokens: undefined };
    for (const [changes, scores] of [
      [{}, false],
      [bf16, false],
      [{ miniBatchTasks: 1 }, false],
      [{ ...bf16, miniBatchTasks: 1 }, true],
    ] as const) {
      const metrics = await metricsOf({ ...grpo, ...changes });
      expect(metrics["tokens.train"]).toBeGreaterThan(0);
      expect(metrics["tokens.score"]! > 0).toBe(scores);
    }
  });

  test("learns what the feedback asks for", async () => {
    const { reports } = await train({
      ...{ steps: 20, learningRate: 0.02, rolloutsPerTask: 8 },
      ...{ algorithm: "grpo" as const, maxRepromptTokens: undefined },
    });
    const mean = (some: StepReport[]) =>
      some.reduce((s, r) => s + r.metrics["reward.mean"]!, 0) / some.length;
    expect(mean(reports.slice(-5))).toBeGreaterThan(mean(reports.slice(0, 3)) + 0.15);
  });
});

describe("nothing to learn", () => {
  const silent: Partial<TrainerInput> = {
    data: ["z"],
    tasksPerBatch: 1,
    maxCompletionTokens: 1,
    steps: 4,
    weightDecay: 0.5,
  };

  test("takes no optimizer step, leaves the teacher alone, and warns after three steps", async () => {
    const before = await Trainer.create(base(), { device });
    const initial = await before.model.flat("weight").readFloats();
    before.dispose();
    const { reports, slots } = await train(silent);
    const expected = { weight: initial, teacher: initial };
    expect(sameBits({ weight: slots.weight!, teacher: slots.teacher! }, expected)).toBe(true);
    expect(reports.map(({ metrics }) => metrics.empty_updates)).toEqual([1, 1, 1, 1]);
    expect(reports.map(({ metrics }) => metrics.loss)).toEqual([0, 0, 0, 0]);
    expect(reports.map(({ warnings }) => warnings.length)).toEqual([0, 0, 1, 0]);
    expect(reports[2]!.warnings[0]).toMatch(/no rollout had a successful attempt.*sdpo sft/);
  });
});

describe("non-finite losses", () => {
  test("skip the update without side effects, once", async () => {
    let calls = 0;
    const hook = { tokenWeights: () => undefined };
    const clean = await train({ steps: 1 }, hook);
    const poison: TrainerHooks = {
      tokenWeights: ({ rollouts }, index) =>
        calls++ === 0 ? new Float32Array(rollouts[index]!.ids.length).fill(Number.NaN) : undefined,
    };
    const trainer = await Trainer.create({ ...base(), steps: 2 }, { device, ...poison });
    const initial = await trainer.model.flat("weight").readFloats();
    const steps = trainer.run();
    const first = (await steps.next()).value as StepReport;
    expect(first.metrics).toMatchObject({ skipped_steps: 1, updates: 0, empty_updates: 0, loss: 0 });
    expect(first.warnings[0]).toMatch(/not finite/);
    const now = {
      weight: await trainer.model.flat("weight").readFloats(),
      teacher: await trainer.model.flat("teacher").readFloats(),
    };
    expect(sameBits(now, { weight: initial, teacher: initial })).toBe(true);
    expect((await trainer.model.flat("first_moment").readFloats()).every((x) => x === 0)).toBe(true);
    const second = (await steps.next()).value as StepReport;
    expect(second.metrics).toMatchObject({ skipped_steps: 0, updates: 1 });
    trainer.dispose();
    expect(clean.reports[0]!.metrics.updates).toBe(1);
  });

  test("three in a row end the run with a dump of the batch", async () => {
    const output = join(folder, "numerics");
    const poison: TrainerHooks = {
      tokenWeights: ({ rollouts }, index) => new Float32Array(rollouts[index]!.ids.length).fill(Infinity),
    };
    const run = train({ output, steps: 9 }, poison);
    await expect(run).rejects.toMatchObject({
      code: "ERR_SDPO_NUMERICS",
      message: expect.stringMatching(/step 3: .*step-3\.jsonl/),
    });
    const lines = (await readFile(join(output, "rollouts/step-3.jsonl"), "utf8")).trim().split("\n");
    expect(lines).toHaveLength(8);
    expect(JSON.parse(lines[0]!).teacherPrompt).toMatch(/Too short|Write the letter/);
  });
});

describe("the run folder", () => {
  test("holds configuration, metrics, rollouts and checkpoints; evaluation is part of the metrics", async () => {
    const output = join(folder, "run");
    const notices: string[] = [];
    const { reports } = await train(
      { output, evaluateEvery: 2, evaluationData: ["x", "y"], evaluationRollouts: 2, checkpointEvery: 2 },
      { log: (message) => notices.push(message) },
    );
    const lines = (await readFile(join(output, "metrics.jsonl"), "utf8")).trim().split("\n");
    expect(lines.map((line) => JSON.parse(line))).toEqual(
      reports.map(({ step, metrics }) => ({ step, ...metrics })),
    );
    expect(reports.map(({ metrics }) => "evaluation.avg@2" in metrics)).toEqual([false, true, true]);
    const rollouts = (await readFile(join(output, "rollouts/step-2.jsonl"), "utf8")).trim().split("\n");
    expect(rollouts).toHaveLength(8);
    const row = JSON.parse(rollouts[0]!);
    expect(row).toMatchObject({ group: 0, rollout: 0, weightVersion: 1 });
    expect(row.prompt).toContain("Write the letter");
    expect(notices.join("\n")).toMatch(/data: 5 tasks/);
    await expect(train({ output })).rejects.toMatchObject({ code: "ERR_SDPO_CONFIG" });
  });

  test("a resumed run goes on bit for bit", async () => {
    const straight = await train({ steps: 4, output: join(folder, "straight"), miniBatchTasks: 1 });
    const output = join(folder, "stopped");
    const changes = { output, steps: 4, miniBatchTasks: 1, checkpointEvery: 2 };
    const trainer = await Trainer.create({ ...base(), ...changes }, { device });
    for await (const { step } of trainer.run()) if (step === 3) break;
    trainer.dispose();
    const resumed = await train({ ...changes, resume: true });
    expect(resumed.reports.map(({ step }) => step)).toEqual([3, 4]);
    expect(resumed.reports.map(untimed)).toEqual(straight.reports.slice(2).map(untimed));
    expect(sameBits(resumed.slots, straight.slots)).toBe(true);
    const lines = (await readFile(join(output, "metrics.jsonl"), "utf8")).trim().split("\n");
    expect(lines.map((line) => JSON.parse(line).step)).toEqual([1, 2, 3, 4]);
  });
});

describe("refusals, of a dry run too", () => {
  const stopped = { output: "stopped", steps: 4, miniBatchTasks: 1, checkpointEvery: 2 };
  test.each([
    [
      { evaluateEvery: 1, evaluationData: ["x ".repeat(90)] },
      "ERR_SDPO_DATA",
      /evaluationData: the shortest/,
    ],
    [{ environment: "exact", data: "/nowhere.jsonl", warmupSteps: 1 }, "ERR_SDPO_DATA", /nowhere\.jsonl/],
    [{ device: "cuda:63" }, "ERR_SDPO_DEVICE", /cuda/],
    [{ output: "run" }, "ERR_SDPO_CONFIG", /is not empty/],
    [{ output: "stopped/config.json" }, "ERR_SDPO_CONFIG", /is not a folder/],
    [{ output: "none", resume: true }, "ERR_SDPO_CHECKPOINT", /holds no checkpoint/],
    [{ ...stopped, resume: true, seed: 9 }, "ERR_SDPO_CHECKPOINT", /seed was 3, is 9/],
    [{ ...stopped, resume: true, data: ["q", "r"] }, "ERR_SDPO_CHECKPOINT", /other training tasks/],
    [{ ...stopped, resume: true, microBatchTokens: 99 }, "ERR_SDPO_CHECKPOINT", /microBatchTokens was/],
    [{ ...stopped, resume: true, steps: 3 }, "ERR_SDPO_CHECKPOINT", /is of step 4, steps is 3/],
    [{ maxCompletionTokens: 4000 }, "ERR_SDPO_CONFIG", /maxCompletionTokens: 4000 .* 1024 positions/],
    [{ maxPromptTokens: 3 }, "ERR_SDPO_DATA", /the shortest of 5 prompts has \d+ tokens/],
    [{ environment: "letters" }, "ERR_SDPO_CONFIG", /unknown name "letters"/],
    [{ environmentOptions: { a: 1 } }, "ERR_SDPO_CONFIG", /environmentOptions/],
    [{ environment: { name: "x" } as never }, "ERR_SDPO_ENVIRONMENT", /load must be a function/],
    [{ model: "/nowhere" }, "ERR_SDPO_FILE", /nowhere/],
  ] as [Partial<TrainerInput>, string, RegExp][])("%j", async (changes, code, message) => {
    const { output } = changes;
    const input = { ...base(), ...changes, ...(output && { output: join(folder, output) }) };
    const expected = { code, message: expect.stringMatching(message) };
    await expect(dryRun(input)).rejects.toMatchObject(expected);
    const hooks = changes.device ? {} : { device };
    await expect(Trainer.create(input, hooks)).rejects.toMatchObject(expected);
  });

  test("a dry run changes nothing, and takes what a run takes", async () => {
    const before = await readdir(join(folder, "stopped"));
    const checked = await dryRun({ ...base(), output: join(folder, "fresh") });
    expect([checked.data.tasks, checked.step.updates]).toEqual([5, 1]);
    await dryRun({ ...base(), ...stopped, output: join(folder, "stopped"), resume: true });
    expect(await readdir(join(folder, "stopped"))).toEqual(before);
    expect(await readdir(folder)).not.toContain("fresh");
  });

  test("weights for tokens must be one a token", async () => {
    const run = train({ steps: 1 }, { tokenWeights: () => new Float32Array(99) });
    await expect(run).rejects.toMatchObject({
      code: "ERR_SDPO_ARGUMENT",
      message: expect.stringMatching(/expected \d+ numbers/),
    });
  });

  test("an abort ends a step at once", async () => {
    const controller = new AbortController();
    const onPhase = () => controller.abort();
    const trainer = await Trainer.create(base(), { device, onPhase });
    const run = trainer.run({ signal: controller.signal }).next();
    await expect(run).rejects.toMatchObject({ code: "ERR_SDPO_ABORTED" });
    trainer.dispose();
  });
});
