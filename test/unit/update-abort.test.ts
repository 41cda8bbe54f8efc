// An abort that comes while an update is computed: its tapes, activations and gradients of losses are freed.
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Model } from "../../lib/models/model.js";
import { planBatch, type Sample } from "../../lib/trainer/batch.js";
import { miniBatchGradient } from "../../lib/trainer/update.js";
import { loadTinyModel } from "../tiny-model.js";

let model: Model;
beforeAll(async () => {
  model = await loadTinyModel();
});
afterAll(() => model.dispose());

const settings = {
  algorithm: "blend",
  lambda: 0.5,
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
  teacher: "live",
  teacherRate: 0.05,
  temperature: 1,
  clipLow: 0.2,
  clipHigh: 0.28,
  dualClip: 3,
  klCoefficient: 0,
  klKind: "k3",
  microBatchTokens: 40,
  recompute: false,
} as const;

const ids = (n: number, first: number) =>
  Int32Array.from({ length: n }, (_, i) => 1 + ((first + 7 * i) % 50));
const samples = Array.from(
  { length: 160 },
  (_, i): Sample => ({
    rollout: {
      promptIds: ids(12, i),
      ids: ids(9, 3 * i),
      mask: new Uint8Array(9).fill(1),
      logprobs: new Float32Array(9).fill(-4),
    },
    teacherPrompt: ids(20, i),
    advantage: 0.5,
    tokenWeights: undefined,
  }),
);

test.each([0, 3, 6, 12, 25])("after %i ms", async (delay) => {
  await model.zeroGradient();
  const before = model.device.memory().current;
  const controller = new AbortController();
  const options = { importance: true, samplerDiffers: false, signal: controller.signal };
  const update = miniBatchGradient(model, planBatch(samples, settings), settings, options);
  setTimeout(() => controller.abort(), delay);
  await expect(update).rejects.toMatchObject({ code: "ERR_SDPO_ABORTED" });
  expect(model.device.memory().current).toBe(before);
});
