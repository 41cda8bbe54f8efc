// Products that round activations to bfloat16, forced for all sizes (GEMM "bf16"): the golden model's products
// are too small for them otherwise.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model } from "../../lib/models/model.js";
import { openDevice } from "../../lib/native/device.js";
import { addon } from "../../lib/native/load.js";
import { goldenJson, goldenPath, goldenTensors } from "../golden-tensors.js";
import { reasonAgainstBf16 } from "../ops/helpers.js";

interface Errors {
  logits: { max_abs: number; rms: number };
  mean_kl_of_next_token: number;
  ce_grad: { global_rel_l2: number };
}
const name = "llama-bf16";
const golden = goldenTensors("models", name, "golden.safetensors");
const ids = golden.get("input_ids")!.data as Int32Array;
const bounds = golden.get("cu_seqlens")!.data;
const sequences = [0, 1, 2].map((i) => ids.slice(bounds[i]!, bounds[i + 1]!));
const allowed = goldenJson<{ models: Record<string, { transformers_error: { bfloat16: Errors } }> }>(
  "models",
  "manifest.json",
).models[name]!.transformers_error.bfloat16;

function logSoftmax(row: Float32Array): Float64Array {
  const most = Math.max(...row);
  const total = row.reduce((sum, x) => sum + Math.exp(x - most), 0);
  return Float64Array.from(row, (x) => x - most - Math.log(total));
}

/** Distances of logits [T, v] from those in float64, as the manifest has them. */
function errorsOf(logits: Float32Array, exact: ArrayLike<number>, v: number) {
  const wanted = Float32Array.from(exact);
  const gaps = logits.map((x, i) => Math.abs(x - wanted[i]!));
  let kl = 0;
  for (let at = 0; at < logits.length; at += v) {
    const [p, q] = [wanted, logits].map((all) => logSoftmax(all.subarray(at, at + v))) as [
      Float64Array,
      Float64Array,
    ];
    kl += p.reduce((sum, log, i) => sum + Math.exp(log) * (log - q[i]!), 0);
  }
  return {
    max: Math.max(...gaps),
    rms: Math.sqrt(gaps.reduce((sum, x) => sum + x * x, 0) / gaps.length),
    kl: (kl * v) / logits.length,
  };
}

const against = reasonAgainstBf16();
describe.skipIf(against)(`bf16 products${against ? `, skipped: ${against}` : ""}`, () => {
  let model: Model;
  beforeAll(async () => {
    model = await Model.load(goldenPath("models", name), { device: await openDevice("cpu") });
    addon().setGemm("bf16");
  });
  afterAll(() => {
    addon().setGemm("fastest");
    model.dispose();
  });

  const logitsWith = async (gemm: "bf16" | "fastest") => {
    addon().setGemm(gemm);
    return Float32Array.from((await model.logits(sequences)).flatMap((rows) => [...rows]));
  };

  test("golden logits: no further from float64 than transformers in bfloat16", async () => {
    const v = model.config.vocabSize;
    const exact = golden.get("logits")!.data;
    const theirs = errorsOf(Float32Array.from(golden.get("transformers_bf16.logits")!.data), exact, v);
    expect(theirs.rms).toBeCloseTo(allowed.logits.rms, 3);
    const ours = errorsOf(await logitsWith("bf16"), exact, v);
    expect(ours.rms).toBeLessThanOrEqual(1.25 * allowed.logits.rms);
    expect(ours.max).toBeLessThanOrEqual(1.5 * allowed.logits.max_abs);
    expect(ours.kl).toBeLessThanOrEqual(1.5 * allowed.mean_kl_of_next_token);
    // Activations were rounded: float32 is closer by far.
    expect(ours.rms).toBeGreaterThan(100 * errorsOf(await logitsWith("fastest"), exact, v).rms);
  });

  test("golden gradient: no further from float64 than transformers in bfloat16", async () => {
    addon().setGemm("bf16");
    const { gradients } = await model.backward(sequences);
    let difference = 0;
    let total = 0;
    for (const [parameter, gradient] of gradients) {
      const exact = golden.get(`ce.grad.${parameter}`)!.data;
      gradient.forEach((g, i) => {
        difference += (g - exact[i]!) ** 2;
        total += exact[i]! ** 2;
      });
    }
    expect(Math.sqrt(difference / total)).toBeLessThanOrEqual(allowed.ce_grad.global_rel_l2);
    expect(Math.sqrt(difference / total)).toBeGreaterThan(1e-3);
  });
});
