import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model } from "../../lib/models/model.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { copySlot, learningRateAt, Optimizer } from "../../lib/trainer/optimizer.js";
import { generator } from "../ops/helpers.js";
import { writeTinyModel } from "../tiny-model.js";

let device: Device;
let path: string;
beforeAll(async () => {
  device = await openDevice("cpu");
  path = await writeTinyModel({ device });
});
afterAll(() => device.dispose());

const settings = { beta1: 0.9, beta2: 0.99, weightDecay: 0.1, clipNorm: 0.5 };

/** A model with a teacher and a random gradient (0 in the gaps between parameters). */
async function prepared(dtype: "f32" | "bf16" = "f32", changes: Partial<typeof settings> = {}) {
  const model = await Model.load(path, { device, dtype });
  const optimizer = await Optimizer.create(model, { ...settings, ...changes });
  model.addSlot("teacher", "f32");
  await copySlot(model, "weight", "teacher");
  await randomGradient(model, 1);
  return { model, optimizer };
}

async function randomGradient(model: Model, seed: number) {
  await model.zeroGradient();
  const uniform = generator(seed);
  for (const { name, shape } of model.parameters) {
    const size = shape.reduce((a, b) => a * b, 1);
    const y = Tensor.from(
      device,
      Float32Array.from({ length: size }, () => uniform() - 0.5),
      shape,
    );
    await run(device, "lerp", { x: model.parameter("gradient", name), y }, { rate: 1 });
  }
}

const floats = (model: Model, slot: string, part: "all" | "matrices" | "vectors" = "all") =>
  model.flat(slot, part).readFloats();
const worst = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((m, x, i) => Math.max(m, Math.abs(x - b[i]!)), 0);

describe("learningRateAt", () => {
  const base = { learningRate: 2, schedule: "constant" as const, warmupSteps: 4, steps: 12 };

  test("grows to the full rate in the warm-up, the last step of which has it", () => {
    expect([1, 2, 3, 4, 5, 12].map((step) => learningRateAt(base, step))).toEqual([0.5, 1, 1.5, 2, 2, 2]);
    expect(learningRateAt({ ...base, warmupSteps: 0 }, 1)).toBe(2);
  });

  test("linear and cosine fall from the full rate towards 0, which no step has", () => {
    const rates = (schedule: "linear" | "cosine") =>
      [5, 9, 12].map((step) => learningRateAt({ ...base, schedule }, step));
    expect(rates("linear")).toEqual([2, 1, 0.25]);
    const [first, middle, last] = rates("cosine");
    expect(first).toBe(2);
    expect(middle).toBeCloseTo(1, 12);
    expect(last).toBeCloseTo(1 + Math.cos((Math.PI * 7) / 8), 12);
  });
});

describe("Optimizer", () => {
  test("takes AdamW steps: clipped, decoupled decay of matrices alone, bias corrected", async () => {
    const { model, optimizer } = await prepared();
    const before = {
      matrices: await floats(model, "weight", "matrices"),
      vectors: await floats(model, "weight", "vectors"),
    };
    const moments = { m: new Float64Array(1e6), v: new Float64Array(1e6) };
    const expected = {
      matrices: Float64Array.from(before.matrices),
      vectors: Float64Array.from(before.vectors),
    };
    for (const step of [1, 2]) {
      await randomGradient(model, step);
      const g = await floats(model, "gradient");
      const norm = Math.sqrt(g.reduce((s, x) => s + x * x, 0));
      const measured = await optimizer.gradientNorm();
      expect(measured / norm).toBeCloseTo(1, 5);
      await optimizer.update(0.01, measured);
      const scale = Math.min(1, 0.5 / (norm + 1e-6));
      let at = 0;
      for (const part of ["matrices", "vectors"] as const) {
        const decay = part === "matrices" ? 0.1 : 0;
        expected[part].forEach((theta, i) => {
          const x = g[at]! * scale;
          moments.m[at] = 0.9 * moments.m[at]! + 0.1 * x;
          moments.v[at] = 0.99 * moments.v[at]! + 0.01 * x * x;
          const m = moments.m[at]! / (1 - 0.9 ** step);
          const v = moments.v[at]! / (1 - 0.99 ** step);
          expected[part][i] = theta * (1 - 0.01 * decay) - (0.01 * m) / (Math.sqrt(v) + 1e-8);
          at++;
        });
      }
    }
    expect(optimizer.updates).toBe(2);
    for (const part of ["matrices", "vectors"] as const)
      expect(worst(await floats(model, "weight", part), expected[part])).toBeLessThan(2e-6);
    model.dispose();
  });

  test("no clipping where clipNorm is null or the norm is small", async () => {
    const first = async (changes: object, norm: number) => {
      const { model, optimizer } = await prepared("f32", changes);
      await optimizer.update(0.01, norm);
      const moment = await floats(model, "first_moment");
      model.dispose();
      return moment;
    };
    const free = await first({ clipNorm: null }, 1e3);
    expect(worst(free, await first({ clipNorm: 1e4 }, 1e3))).toBe(0);
    expect(worst(free, await first({ clipNorm: 1 }, 1e3))).toBeGreaterThan(0);
  });

  test.each(["f32", "bf16"] as const)(
    "the teacher in the same pass equals one pass after it (%s)",
    async (dtype) => {
      const fused = await prepared(dtype);
      await fused.optimizer.update(0.01, 3, 0.05);
      const apart = await prepared(dtype);
      await apart.optimizer.update(0.01, 3);
      await apart.optimizer.updateTeacher(0.05);
      for (const slot of ["weight", "first_moment", "second_moment"])
        expect(worst(await floats(fused.model, slot), await floats(apart.model, slot))).toBe(0);
      const teacher = await floats(fused.model, "teacher");
      expect(worst(teacher, await floats(apart.model, "teacher"))).toBeLessThan(1e-7);
      const start = await Model.load(path, { device, dtype });
      expect(worst(teacher, await floats(start, "weight"))).toBeGreaterThan(0);
      for (const model of [fused.model, apart.model, start]) model.dispose();
    },
  );

  test("bf16 weights are their f32 masters rounded, and small steps are not lost", async () => {
    const { model, optimizer } = await prepared("bf16");
    const before = await floats(model, "master");
    for (let i = 0; i < 3; i++) await optimizer.update(1e-6, 3);
    const master = await floats(model, "master");
    expect(worst(before, master)).toBeGreaterThan(1e-6);
    const rounded = Tensor.from(device, master, [master.length], { dtype: "bf16" });
    expect(worst(await floats(model, "weight"), await rounded.readFloats())).toBe(0);
    expect(optimizer.slots).toEqual(["first_moment", "second_moment", "master"]);
    model.dispose();
  });

  test("a gradient that is not finite has norm NaN", async () => {
    const { model, optimizer } = await prepared();
    for (const bad of [Number.NaN, Infinity]) {
      const x = model.parameter("gradient", "model.norm.weight");
      const y = Tensor.from(device, new Float32Array(32).fill(bad), [32]);
      await run(device, "lerp", { x, y }, { rate: 1 });
      expect(await optimizer.gradientNorm()).toBeNaN();
    }
    model.dispose();
  });
});
