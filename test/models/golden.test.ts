// Seven tiny models against transformers in float64 (test/golden/models): logits, loss, every gradient, greedy
// tokens, the SDPO loss under two prefixes, AdamW and EMA.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model } from "../../lib/models/model.js";
import { packSequences } from "../../lib/models/packing.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import {
  type GoldenTensor,
  goldenJson,
  goldenPath,
  goldenTensors,
  maxAbs,
  maxDifference,
} from "../golden-tensors.js";

interface Manifest {
  tolerance: { float32: Record<string, number> };
  top_k: number;
  models: Record<string, { adamw?: { losses: number[]; grad_norms: number[]; loss_after: number } }>;
}

const manifest = goldenJson<Manifest>("models", "manifest.json");
const tolerance = manifest.tolerance.float32;
const names = Object.keys(manifest.models);

function sequencesOf(golden: Map<string, GoldenTensor>): Int32Array[] {
  const ids = golden.get("input_ids")!.data as Int32Array;
  const bounds = golden.get("cu_seqlens")!.data;
  return [0, 1, 2].map((i) => ids.slice(bounds[i]!, bounds[i + 1]!));
}

/** Every parameter's gradient against `prefix + name`, by its own maximum and all together by L2. */
function checkGradients(
  gradients: Map<string, Float32Array>,
  golden: Map<string, GoldenTensor>,
  prefix: string,
) {
  let difference = 0;
  let total = 0;
  let compared = 0;
  for (const [name, gradient] of gradients) {
    const expected = golden.get(prefix + name)!.data;
    const error = maxDifference(gradient, expected) / maxAbs(expected);
    expect(error, `${prefix}${name}`).toBeLessThanOrEqual(tolerance.grad_max_abs_over_max_of_parameter!);
    gradient.forEach((g, i) => {
      difference += (g - expected[i]!) ** 2;
      total += expected[i]! ** 2;
    });
    compared++;
  }
  expect(compared).toBe([...golden.keys()].filter((name) => name.startsWith(prefix)).length);
  expect(Math.sqrt(difference / total)).toBeLessThanOrEqual(tolerance.grad_global_rel_l2!);
}

async function allGradients(model: Model): Promise<Map<string, Float32Array>> {
  const gradients = new Map<string, Float32Array>();
  for (const { name } of model.parameters)
    gradients.set(name, await model.parameter("gradient", name).readFloats());
  return gradients;
}

describe.each(names)("%s", (name) => {
  const golden = goldenTensors("models", name, "golden.safetensors");
  const sequences = sequencesOf(golden);
  let device: Device;
  let model: Model;
  beforeAll(async () => {
    device = await openDevice("cpu");
    model = await Model.load(goldenPath("models", name), { device });
  });
  afterAll(() => model.dispose());

  test("logits", async () => {
    const logits = await model.logits(sequences);
    const flat = Float32Array.from(logits.flatMap((rows) => [...rows]));
    expect(maxDifference(flat, golden.get("logits")!.data)).toBeLessThanOrEqual(tolerance.logits_max_abs!);
  });

  test.each([false, true])("cross entropy and every gradient, recompute %s", async (recompute) => {
    const { loss, gradients } = await model.backward(sequences, { recompute });
    expect(Math.abs(loss - golden.get("ce.loss")!.data[0]!)).toBeLessThanOrEqual(tolerance.loss_abs!);
    checkGradients(gradients, golden, "ce.grad.");
  });

  test("greedy continuation with the cache", async () => {
    const expected = golden.get("generated_ids")!;
    const margins = golden.get("generated_margin")!.data;
    const steps = expected.shape[1]!;
    for (const [i, prompt] of sequences.entries()) {
      const got: number[] = [];
      const options = { maxTokens: steps, temperature: 0, ignoreEos: true };
      for await (const { id } of model.generate(prompt, options)) got.push(id);
      const wanted = expected.data.slice(i * steps, (i + 1) * steps);
      const doubtful = margins.slice(i * steps, (i + 1) * steps).findIndex((margin) => margin < 1e-3);
      const sure = doubtful < 0 ? steps : doubtful;
      expect(got.slice(0, sure)).toEqual([...wanted.slice(0, sure)]);
      expect(got.length).toBe(steps);
    }
  });

  test.each([
    ["jsd_topk", { alpha: 0.5, topK: manifest.top_k, tail: true }],
    ["fkl_full", { alpha: 0, topK: null }],
  ] as const)("SDPO loss under two prefixes: %s", async (kind, attributes) => {
    const ids = (part: string) => [...golden.get(`sdpo.${part}`)!.data];
    const completion = ids("completion");
    const n = completion.length;
    const hiddenOf = async (prefix: number[], keep: boolean) => {
      const packed = packSequences([Int32Array.from([...prefix, ...completion])]);
      return model.forward(packed, packed.rows[0]!.subarray(prefix.length - 1, -1), { keep });
    };
    const teacher = await hiddenOf(ids("teacher_prefix"), false);
    await model.zeroGradient();
    const student = await hiddenOf(ids("student_prefix"), true);
    const inputs = {
      studentHidden: student.hidden,
      studentHead: model.head(),
      teacherHidden: teacher.hidden,
      teacherHead: model.head(),
      tokenIds: Tensor.from(device, Int32Array.from(completion), [n]),
      weights: Tensor.from(device, new Float32Array(n).fill(1), [n]),
      coefficients: Tensor.from(device, new Float32Array(n).fill(1 / n), [n]),
      dHead: model.head("gradient"),
    };
    const { tokenLoss, dHidden } = await run(device, "linear_distill_loss", inputs, {
      ...attributes,
      isClip: null,
    });
    const losses = await tokenLoss.readFloats();
    expect(maxDifference(losses, golden.get(`sdpo.${kind}.token_loss`)!.data)).toBeLessThanOrEqual(2e-5);
    const loss = losses.reduce((sum, x) => sum + x / n, 0);
    expect(Math.abs(loss - golden.get(`sdpo.${kind}.loss`)!.data[0]!)).toBeLessThanOrEqual(
      tolerance.loss_abs!,
    );
    await model.backwardHidden(student.tape!, dHidden!);
    checkGradients(await allGradients(model), golden, `sdpo.${kind}.grad.`);
  });

  const expected = manifest.models[name]!.adamw;
  if (!expected) return;
  test("three AdamW steps and the EMA teacher", async () => {
    using trained = await Model.load(goldenPath("models", name), { device, dtype: "f32" });
    for (const slot of ["first_moment", "second_moment", "ema"]) trained.addSlot(slot);
    await run(device, "lerp", { x: trained.flat("ema"), y: trained.flat("weight") }, { rate: 1 });
    for (let step = 1; step <= 3; step++) {
      const { loss } = await trained.backward(sequences);
      expect(Math.abs(loss - expected.losses[step - 1]!)).toBeLessThanOrEqual(tolerance.adamw_losses_abs!);
      const { norm } = await run(device, "grad_norm", { gradient: trained.flat("gradient") });
      const [size] = await norm.readFloats();
      expect(size! / expected.grad_norms[step - 1]!).toBeCloseTo(1, 4);
      const settings = { learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, step };
      for (const part of ["matrices", "vectors"] as const) {
        const flat = (slot: string) => trained.flat(slot, part);
        const inputs = {
          parameter: flat("weight"),
          gradient: flat("gradient"),
          firstMoment: flat("first_moment"),
          secondMoment: flat("second_moment"),
          ema: flat("ema"),
        };
        const weightDecay = part === "matrices" ? 0.1 : 0;
        const gradientScale = Math.min(1, 1 / (size! + 1e-6));
        await run(device, "adamw", inputs, { ...settings, weightDecay, gradientScale, emaRate: 0.05 });
      }
    }
    const { loss } = await trained.backward(sequences);
    expect(Math.abs(loss - expected.loss_after)).toBeLessThanOrEqual(tolerance.adamw_losses_abs!);
    for (const { name: parameter } of trained.parameters) {
      const weight = await trained.parameter("weight", parameter).readFloats();
      const final = golden.get(`adamw.final.${parameter}`)!.data;
      const errors = Float64Array.from(weight, (w, i) => Math.abs(w - final[i]!)).sort();
      expect(errors.at(-1)).toBeLessThanOrEqual(tolerance.adamw_final_max_abs!);
      expect(errors[Math.floor(errors.length * 0.999) - 1]).toBeLessThanOrEqual(
        tolerance.adamw_final_p999_abs!,
      );
      const ema = await trained.parameter("ema", parameter).readFloats();
      expect(maxDifference(ema, golden.get(`adamw.ema.${parameter}`)!.data)).toBeLessThanOrEqual(
        tolerance.ema_max_abs!,
      );
    }
  });
});
