import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Model } from "../../lib/models/model.js";
import { packSequences } from "../../lib/models/packing.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { microBatches, planBatch, type Sample } from "../../lib/trainer/batch.js";
import { scoreOldLogprobs } from "../../lib/trainer/old-logprobs.js";
import { copySlot } from "../../lib/trainer/optimizer.js";
import type { LossSettings } from "../../lib/trainer/part.js";
import { miniBatchGradient } from "../../lib/trainer/update.js";
import { generator } from "../ops/helpers.js";
import { loadTinyModel } from "../tiny-model.js";

let model: Model;
let v: number;
beforeAll(async () => {
  model = await loadTinyModel({ scale: 0.35 });
  v = model.config.vocabSize;
  // A teacher and an initial model that differ from the student.
  const other = await loadTinyModel({ scale: 0.35, seed: 2, device: model.device });
  for (const slot of ["teacher", "initial"]) {
    model.addSlot(slot, "f32");
    await copySlot(model, "weight", slot);
  }
  for (const [slot, rate] of [
    ["teacher", 0.2],
    ["initial", 0.4],
  ] as const)
    await run(model.device, "lerp", { x: model.flat(slot), y: other.flat("weight") }, { rate });
  other.dispose();
});
afterAll(() => model.dispose());

const settings: LossSettings & Parameters<typeof planBatch>[1] = {
  algorithm: "sdpo",
  lambda: 0.9,
  aggregation: "token-mean",
  normalizer: "distilled",
  maxCompletionTokens: 16,
  alpha: 0.5,
  distillation: "logit",
  distillationTopK: 20,
  tail: true,
  isClip: 2,
  rolloutWeightClip: 2,
  advantageClip: null,
  teacher: "ema",
  teacherRate: 0.05,
  temperature: 1,
  clipLow: 0.2,
  clipHigh: 0.28,
  dualClip: 3,
  klCoefficient: 0,
  klKind: "k3",
  microBatchTokens: 1 << 20,
  recompute: false,
};

/** Two tasks with rollouts of various lengths, masks, weights; the teacher's prompts differ in each group. */
function batch(options: { rollouts?: number; distilled?: (i: number) => boolean } = {}): Sample[] {
  const { rollouts = 4, distilled = (i) => i % 3 !== 1 } = options;
  const random = generator(7);
  const ids = (n: number) => Int32Array.from({ length: n }, () => Math.floor(random() * v));
  return [0, 1].flatMap((task) => {
    const promptIds = ids(12 + task);
    const teacherHead = ids(15);
    return Array.from({ length: rollouts }, (_, i): Sample => {
      const length = 1 + Math.floor(random() * 9);
      const header = promptIds.subarray(-3);
      const teacherPrompt = Int32Array.from([...teacherHead, ...ids(2 + (i % 3)), ...header]);
      return {
        rollout: {
          promptIds,
          ids: ids(length),
          mask: Uint8Array.from({ length }, (_, t) => (length > 3 && t === 2 ? 0 : 1)),
          logprobs: Float32Array.from({ length }, () => -6 - 3 * random()),
        },
        teacherPrompt: distilled(task * rollouts + i) ? teacherPrompt : undefined,
        advantage: [0.7, -0.4, 0, -0.3][i % 4]!,
        tokenWeights: Float32Array.from({ length }, () => 0.5 + random()),
      };
    });
  });
}

type Settings = typeof settings;

async function gradientOf(samples: readonly Sample[], changes: Partial<Settings> = {}, importance = false) {
  const all = { ...settings, ...changes };
  const options = { importance, samplerDiffers: false };
  const result = await miniBatchGradient(model, planBatch(samples, all), all, options);
  return { ...result, gradient: await model.flat("gradient").readFloats() };
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  const scale = a.reduce((m, x) => Math.max(m, Math.abs(x)), 1e-30);
  return a.reduce((m, x, i) => Math.max(m, Math.abs(x - b[i]!)), 0) / scale;
}

async function setWeights(values: Float32Array): Promise<void> {
  const y = Tensor.from(model.device, values, [values.length]);
  await run(model.device, "lerp", { x: model.flat("weight"), y }, { rate: 1 });
}

/** Moves the weights this part of the way to the initial model's. */
async function shiftWeights(rate: number): Promise<void> {
  await run(model.device, "lerp", { x: model.flat("weight"), y: model.flat("initial") }, { rate });
}

/** Next-token probabilities at a completion's positions; the logits are the slots' in these shares. */
async function probabilities(
  prompt: Int32Array,
  ids: Int32Array,
  positions: number[],
  slots: Record<string, number>,
): Promise<number[][]> {
  const sequence = Int32Array.from([...prompt, ...ids]);
  const mixed = new Float64Array(sequence.length * v);
  for (const [slot, share] of Object.entries(slots)) {
    const [logits] = await model.logits([sequence], { slot });
    for (const [i, z] of logits!.entries()) mixed[i]! += share * z;
  }
  return positions.map((t) => {
    const at = (prompt.length + t - 1) * v;
    const e = Array.from(mixed.subarray(at, at + v), (z) => Math.exp(z));
    const z = e.reduce((a, b) => a + b, 0);
    return e.map((x) => x / z);
  });
}

const sum = (a: Float32Array, b: Float32Array, wa: number, wb: number) =>
  a.map((x, i) => wa * x + wb * b[i]!);

const modes: [string, Partial<Settings>][] = [
  ["SDPO", {}],
  ["SDPO, seq-mean-token-mean", { aggregation: "seq-mean-token-mean" }],
  ["SDPO, paper-micro-batch", { aggregation: "seq-mean-token-mean", normalizer: "paper-micro-batch" }],
  ["SDPO, trust region", { teacher: "trust-region", teacherRate: 0.3 }],
  ["SDPO, live", { teacher: "live" }],
  ["SDPO, token credit", { distillation: "token", alpha: 1 }],
  ["SDPO, sequence credit", { distillation: "sequence", alpha: 1, advantageClip: 0.05 }],
  ["GRPO", { algorithm: "grpo" }],
  [
    "GRPO with KL, seq-mean-token-sum",
    { algorithm: "grpo", klCoefficient: 0.1, aggregation: "seq-mean-token-sum" },
  ],
  ["blend", { algorithm: "blend", lambda: 0.6, aggregation: "seq-mean-token-sum-norm" }],
];

describe("micro-batches and packing change nothing beyond rounding", () => {
  test.each(modes)("%s", async (_, changes) => {
    const whole = await gradientOf(batch(), changes, true);
    expect(whole.gradient.some((x) => x !== 0)).toBe(true);
    for (const microBatchTokens of [1, 40, 90]) {
      const cut = await gradientOf(batch(), { ...changes, microBatchTokens }, true);
      expect(largestDifference(whole.gradient, cut.gradient)).toBeLessThan(2e-5);
      expect(Math.abs(cut.loss / whole.loss - 1)).toBeLessThan(1e-5);
      expect(cut.rows.values("entropy").length).toBe(whole.rows.values("entropy").length);
    }
    const recomputed = await gradientOf(batch(), { ...changes, recompute: true }, true);
    expect(recomputed.gradient).toEqual(whole.gradient);
  });

  test("a group of eight computes its prompt once, and gives what eight separate sequences give", async () => {
    const samples = batch({ rollouts: 8 });
    const shared = await gradientOf(samples);
    const separate = await gradientOf(samples, { microBatchTokens: 1 });
    expect(largestDifference(shared.gradient, separate.gradient)).toBeLessThan(2e-5);
    expect(separate.train.computed).toBe(shared.train.withoutSharing);
    const distilled = samples.filter(({ teacherPrompt }) => teacherPrompt);
    const completions = distilled.reduce((n, { rollout }) => n + rollout.ids.length, 0);
    expect(shared.train.computed).toBe(12 + 13 + completions);
    expect(shared.score.computed).toBeLessThan(shared.score.withoutSharing);
  });
});

describe("micro-batches", () => {
  test("hold at most the limit on either side, each sample once, distilled ones first", () => {
    const planned = planBatch(batch({ rollouts: 8 }), { ...settings, algorithm: "blend" });
    const parts = microBatches(planned, 60);
    expect(parts.length).toBeGreaterThan(2);
    expect(new Set(parts.flat()).size).toBe(planned.length);
    const packed = (sequences: Int32Array[]) => packSequences(sequences).ids.length;
    const largest = (part: typeof planned) =>
      Math.max(
        packed(part.map(({ student }) => student)),
        packed(part.flatMap(({ teacher }) => teacher ?? [])),
      );
    let taken = 0;
    for (const part of parts) {
      taken += part.length;
      expect(part.length === 1 || largest(part) <= 60).toBe(true);
      if (taken < planned.length) expect(largest([...part, planned[taken]!])).toBeGreaterThan(60);
    }
    for (const part of parts) {
      const first = part.findIndex(({ teacher }) => !teacher);
      if (first >= 0) expect(part.slice(first).some(({ teacher }) => teacher)).toBe(false);
    }
  });
});

describe("the loss", () => {
  const jsd = (p: number[], q: number[]) =>
    p.reduce((sum, pv, i) => {
      const m = (pv + q[i]!) / 2;
      return sum + 0.5 * pv * Math.log(pv / m) + 0.5 * q[i]! * Math.log(q[i]! / m);
    }, 0);
  /** Losses of a completion's tokens from both sides' probabilities. */
  type Credit = (p: number[][], q: number[][], ids: number[]) => number[];
  const logit: Credit = (p, q) => p.map((row, i) => jsd(row, q[i]!));
  const token: Credit = (p, q, ids) =>
    ids.map((id, i) => Math.log(p[i]![id]! / q[i]![id]!) * Math.log(p[i]![id]!));
  const sequence: Credit = (p, q, ids) => {
    const gaps = ids.map((id, i) => Math.log(q[i]![id]! / p[i]![id]!));
    const advantage = gaps.reduce((a, b) => a + b, 0) / gaps.length;
    return ids.map((id, i) => -Math.min(Math.max(advantage, -1.5), 1.5) * Math.log(p[i]![id]!));
  };

  test.each([
    ["ema", { teacher: "ema" }, { teacher: 1 }, logit],
    ["live", { teacher: "live" }, { weight: 1 }, logit],
    ["trust region", { teacher: "trust-region" }, { initial: 0.7, weight: 0.3 }, logit],
    ["token credit", { distillation: "token", alpha: 1 }, { teacher: 1 }, token],
    ["sequence credit", { distillation: "sequence", alpha: 1, advantageClip: 1.5 }, { teacher: 1 }, sequence],
  ] as [string, Partial<Settings>, Record<string, number>, Credit][])(
    "is that of logits computed one by one, in float64: %s",
    async (_, changes, mix, credit) => {
      const samples = batch();
      const { loss } = await gradientOf(samples, { distillationTopK: null, teacherRate: 0.3, ...changes });
      let total = 0;
      let count = 0;
      for (const { rollout, teacherPrompt, tokenWeights } of samples) {
        if (!teacherPrompt) continue;
        const positions = [...rollout.mask.keys()].filter((t) => rollout.mask[t] !== 0);
        const p = await probabilities(rollout.promptIds, rollout.ids, positions, { weight: 1 });
        const q = await probabilities(teacherPrompt, rollout.ids, positions, mix);
        const ids = positions.map((t) => rollout.ids[t]!);
        credit(p, q, ids).forEach((x, i) => {
          total += tokenWeights![positions[i]!]! * x;
          count++;
        });
      }
      expect(Math.abs(loss / (total / count) - 1)).toBeLessThan(1e-5);
    },
  );

  test("falls along its gradient by what the gradient says", async () => {
    const full = { distillationTopK: null };
    for (const changes of [full, { ...full, algorithm: "blend" as const, lambda: 0.5 }]) {
      const samples = batch();
      const { gradient, loss } = await gradientOf(samples, changes);
      const squares = gradient.reduce((s, x) => s + x * x, 0);
      const before = await model.flat("weight").readFloats();
      const h = (0.0003 * Math.abs(loss)) / squares;
      await setWeights(before.map((x, i) => x - h * gradient[i]!));
      const less = (await gradientOf(samples, changes)).loss;
      await setWeights(before.map((x, i) => x + h * gradient[i]!));
      const more = (await gradientOf(samples, changes)).loss;
      await setWeights(before);
      expect((more - less) / (2 * h * squares)).toBeCloseTo(1, 1);
    }
  });
});

describe("the blend", () => {
  const all = () => batch({ distilled: () => true });

  test("with lambda 0 is SDPO, with lambda 1 GRPO, and between their weighted sum", async () => {
    const sdpo = await gradientOf(all(), {}, true);
    const grpo = await gradientOf(all(), { algorithm: "grpo" }, true);
    for (const [lambda, expected] of [
      [0, sdpo.gradient],
      [1, grpo.gradient],
      [0.3, sum(grpo.gradient, sdpo.gradient, 0.3, 0.7)],
    ] as const) {
      const blend = await gradientOf(all(), { algorithm: "blend", lambda }, true);
      expect(largestDifference(expected, blend.gradient)).toBeLessThan(2e-5);
      expect(blend.loss).toBeCloseTo(lambda * grpo.loss + (1 - lambda) * sdpo.loss, 4);
    }
  });

  test("counts over the completion mask where not all is distilled", async () => {
    const samples = batch();
    const tokens = (some: Sample[]) =>
      some.reduce((n, { rollout }) => n + rollout.mask.reduce((a, b) => a + b, 0), 0);
    const share = tokens(samples.filter(({ teacherPrompt }) => teacherPrompt)) / tokens(samples);
    const sdpo = await gradientOf(samples);
    const blend = await gradientOf(samples, { algorithm: "blend", lambda: 0 });
    expect(blend.loss).toBeCloseTo(share * sdpo.loss, 5);
    expect(
      largestDifference(
        sdpo.gradient.map((x) => share * x),
        blend.gradient,
      ),
    ).toBeLessThan(2e-5);
  });
});

describe("a sampler of another arithmetic", () => {
  /** The trainer's own logprobs of a sample's tokens in float64, and min(p_old / p_sampler, clip). */
  async function oldOf({ rollout }: Sample, clip: number) {
    const positions = [...rollout.ids.keys()];
    const p = await probabilities(rollout.promptIds, rollout.ids, positions, { weight: 1 });
    const logprobs = Float32Array.from(rollout.ids, (id, t) => Math.log(p[t]![id]!));
    return { logprobs, weights: logprobs.map((x, t) => Math.min(Math.exp(x - rollout.logprobs[t]!), clip)) };
  }

  /** The batch as a sampler with the trainer's arithmetic would have given it, and the weights apart. */
  const corrected = (samples: Sample[], clip: number) =>
    Promise.all(
      samples.map(async (sample): Promise<Sample> => {
        const { logprobs, weights } = await oldOf(sample, clip);
        const tokenWeights = sample.tokenWeights!.map((w, t) => w * weights[t]!);
        return { ...sample, rollout: { ...sample.rollout, logprobs }, tokenWeights };
      }),
    );

  const cases: [string, Partial<Settings>][] = [
    ["SDPO", {}],
    ["GRPO", { algorithm: "grpo" }],
    ["blend", { algorithm: "blend", lambda: 0.5 }],
  ];

  test.each(cases)(
    "is made up for by rollout weights, and ratios start from p_old: %s",
    async (_, changes) => {
      const samples = batch();
      for (const [clip, importance] of [
        [2, false],
        [0.8, false],
        [null, false],
        [2, true],
      ] as const) {
        const all = { ...settings, ...changes, microBatchTokens: 60, rolloutWeightClip: clip };
        const options = { importance, samplerDiffers: true };
        const planned = planBatch(samples, all);
        const expectedSamples = await corrected(samples, clip ?? Infinity);
        if (clip === null)
          for (const [i, sample] of expectedSamples.entries()) sample.tokenWeights = samples[i]!.tokenWeights;
        const before = await model.flat("weight").readFloats();
        if (importance) {
          const { computed } = await scoreOldLogprobs(model, planned, all, options);
          expect(computed).toBeGreaterThan(0);
          // As a first update would have done.
          await shiftWeights(0.02);
        }
        const { loss, rows } = await miniBatchGradient(model, planned, all, options);
        const gradient = await model.flat("gradient").readFloats();
        const expected = await gradientOf(expectedSamples, { ...changes, microBatchTokens: 60 }, importance);
        await setWeights(before);
        expect(largestDifference(expected.gradient, gradient)).toBeLessThan(2e-4);
        expect(Math.abs(loss - expected.loss)).toBeLessThan(1e-4 * Math.max(1, Math.abs(expected.loss)));
        const ratios = [...rows.values("ratio")];
        expect(ratios.length).toBeGreaterThan(0);
        expect(ratios.every((r) => Math.abs(r - 1) < 1e-5)).toBe(!importance);
      }
      const plain = await gradientOf(samples, changes);
      const weighted = await gradientOf(await corrected(samples, 0.8), changes);
      expect(largestDifference(plain.gradient, weighted.gradient)).toBeGreaterThan(0.05);
    },
  );
});

describe("nothing to learn", () => {
  test("a batch without teacher contexts has loss 0, gradient 0 and no rows", async () => {
    const { loss, gradient, rows, train } = await gradientOf(batch({ distilled: () => false }));
    expect(loss).toBe(0);
    expect(gradient.every((x) => x === 0)).toBe(true);
    expect(rows.values("kl")).toHaveLength(0);
    expect(train.computed).toBe(0);
  });

  test("samples without advantage take no part in GRPO, nor completions that are masked throughout", () => {
    const samples = batch();
    samples[0]!.rollout.mask.fill(0);
    const planned = planBatch(samples, { ...settings, algorithm: "grpo" });
    expect(planned).toHaveLength(samples.filter(({ advantage }) => advantage !== 0).length - 1);
    const withKl = planBatch(samples, { ...settings, algorithm: "grpo", klCoefficient: 0.1 });
    expect(withKl).toHaveLength(samples.length - 1);
  });

  test("paper-micro-batch counts undistilled rollouts as 0", () => {
    const samples = batch();
    const changes = { aggregation: "seq-mean-token-mean", normalizer: "paper-micro-batch" } as const;
    for (const { distillCoefficients } of planBatch(samples, { ...settings, ...changes })) {
      const total = distillCoefficients!.reduce((a, b) => a + b, 0);
      expect(total).toBeCloseTo(1 / samples.length, 6);
    }
  });
});
