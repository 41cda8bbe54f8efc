import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DistillationOptions, distillationLoss } from "../../lib/losses/distillation.js";
import { linearDistillationLoss } from "../../lib/losses/linear-distillation.js";
import type { Device } from "../../lib/native/device.js";
import type { OpAttributes, OpInputs } from "../../lib/native/ops.generated.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { agrees, excess, gradientAgrees } from "./loss-golden.js";
import { currentTarget, resetTarget, targetsOf, useTarget } from "./targets.js";

const [N, V, D] = [23, 67, 12];
const wave =
  (seed: number, scale = 1) =>
  (_: unknown, i: number) =>
    Math.fround(scale * (Math.sin(i * 12.9898 + seed * 78.233) + Math.sin(i * 3.7 + seed)));
const floats = (n: number, seed: number, scale = 1) => Float32Array.from({ length: n }, wave(seed, scale));

let device: Device = currentTarget().device;
afterAll(resetTarget);
const targets = targetsOf(
  "matmul",
  "linear_distill_loss",
  "linear_policy_loss",
  "linear_cross_entropy",
  "linear_statistics",
);

const tensor = (data: Float32Array | Int32Array, shape: number[], dtype?: "bf16") =>
  Tensor.from(device, data, shape, dtype ? { dtype } : {});
const hidden = () => tensor(floats(N * D, 1), [N, D]);
const head = (dtype?: "bf16") => tensor(floats(V * D, 2, 0.7), [V, D], dtype);
/** Every seventh row has weight 0; rows 4 to 11 have coefficient 0, a whole chunk of 4. */
const perRow = () => ({
  tokenIds: tensor(
    Int32Array.from({ length: N }, (_, i) => (i * 29) % V),
    [N],
  ),
  weights: tensor(
    Float32Array.from({ length: N }, (_, i) => (i % 7 === 3 ? 0 : 0.5 + (i % 3))),
    [N],
  ),
  coefficients: tensor(
    Float32Array.from({ length: N }, (_, i) => (i >= 4 && i < 12 ? 0 : 0.1 * (1 + (i % 4)))),
    [N],
  ),
});
const oldLogprobs = () => tensor(floats(N, 7, 0.3).map((x) => x - 4) as Float32Array, [N]);
const advantages = () => tensor(floats(N, 8), [N]);

async function logitsOf(h: Tensor, w: Tensor) {
  return (await run(device, "matmul", { a: h, b: w }, { transposeB: true })).c;
}

/** d_hidden and d_head of given dlogits, by products of their own. */
async function chained(dlogits: Tensor, h: Tensor, w: Tensor) {
  const dHidden = (await run(device, "matmul", { a: dlogits, b: w })).c;
  const dHead = (await run(device, "matmul", { a: dlogits, b: h }, { transposeA: true })).c;
  return { dHidden: await dHidden.readFloats(), dHead: await dHead.readFloats() };
}

async function expectSame(
  linear: Record<string, Tensor | undefined>,
  whole: Record<string, Tensor | undefined>,
  h: Tensor,
  w: Tensor,
) {
  const { dlogits, ...rows } = whole;
  for (const [name, expected] of Object.entries(rows))
    expect(agrees(await linear[name]!.read(), await expected!.read()), name).toBe(true);
  if (!dlogits) return;
  const { dHidden, dHead } = await chained(dlogits, h, w);
  expect(gradientAgrees(await linear.dHidden!.readFloats(), dHidden), "dHidden").toBe(true);
  expect(gradientAgrees(await linear.dHead!.readFloats(), dHead), "dHead").toBe(true);
  expect(dHidden.some((x) => x !== 0)).toBe(true);
}

const chunks = [0, 1, 4, 7, N, N + 5];

describe.each(targets)("linear losses equal those of the whole logits, $name", (target) => {
  beforeAll(() => {
    device = useTarget(target);
  });

  test.each(chunks)("linear_distill_loss, chunks of %i", async (chunkTokens) => {
    const [h, w] = [hidden(), head()];
    const [th, tw] = [tensor(floats(N * 5, 3), [N, 5]), tensor(floats(V * 5, 4), [V, 5])];
    const [ih, iw] = [tensor(floats(N * 9, 5), [N, 9]), tensor(floats(V * 9, 6, 0.4), [V, 9])];
    const attributes = { alpha: 0.3, topK: 9, isClip: 1.5, teacherRate: 0.25, temperature: 1.3 };
    const rows = { ...perRow(), oldLogprobs: oldLogprobs() };
    const whole = await run(
      device,
      "distill_loss",
      {
        studentLogits: await logitsOf(h, w),
        teacherLogits: await logitsOf(th, tw),
        initialTeacherLogits: await logitsOf(ih, iw),
        ...rows,
      },
      attributes,
    );
    const models = {
      studentHidden: h,
      studentHead: w,
      teacherHidden: th,
      teacherHead: tw,
      initialTeacherHidden: ih,
      initialTeacherHead: iw,
    };
    const linear = await run(
      device,
      "linear_distill_loss",
      { ...models, ...rows },
      { ...attributes, chunkTokens },
    );
    await expectSame({ ...linear }, { ...whole }, h, w);
  });

  test.each(chunks)("linear_policy_loss, chunks of %i", async (chunkTokens) => {
    const [h, w] = [hidden(), head(device.name === "cpu" ? "bf16" : undefined)];
    const rows = { ...perRow(), oldLogprobs: oldLogprobs(), advantages: advantages() };
    const whole = await run(device, "policy_loss", { logits: await logitsOf(h, w), ...rows });
    const linear = await run(device, "linear_policy_loss", { hidden: h, head: w, ...rows }, { chunkTokens });
    await expectSame({ ...linear }, { ...whole }, h, w);
  });

  test.each(chunks)("linear_cross_entropy and linear_statistics, chunks of %i", async (chunkTokens) => {
    const [h, w] = [hidden(), head()];
    const logits = await logitsOf(h, w);
    const rows = perRow();
    const whole = await run(device, "cross_entropy", { logits, ...rows });
    const linear = await run(
      device,
      "linear_cross_entropy",
      { hidden: h, head: w, ...rows },
      { chunkTokens },
    );
    await expectSame({ ...linear }, { ...whole }, h, w);
    const { tokenIds } = rows;
    const statistics = await run(device, "row_statistics", { logits, tokenIds }, { temperature: 0.6 });
    const chunked = await run(
      device,
      "linear_statistics",
      { hidden: h, head: w, tokenIds },
      { temperature: 0.6, chunkTokens },
    );
    await expectSame({ ...chunked }, { ...statistics }, h, w);
  });
});

describe.each(targets)("linear losses on $name", (target) => {
  beforeAll(() => {
    device = useTarget(target);
  });

  test("bf16 heads: as f32 ones of the same values, up to bf16's rounding on a GPU", async () => {
    const share = device.name === "cpu" ? 1e-5 : 1 / 32;
    const rows = { ...perRow(), oldLogprobs: oldLogprobs() };
    const both = async (dtype: "bf16" | undefined) => {
      // bf16 values in either dtype.
      const rounded = async (seed: number) => {
        using narrow = tensor(floats(V * D, seed, 0.7), [V, D], "bf16");
        return tensor(await narrow.readFloats(), [V, D], dtype);
      };
      const models = {
        studentHidden: hidden(),
        studentHead: await rounded(2),
        teacherHidden: hidden(),
        teacherHead: await rounded(4),
      };
      const out = await run(
        device,
        "linear_distill_loss",
        { ...models, ...rows },
        { topK: 9, chunkTokens: 7 },
      );
      const { tokenLoss, studentLogprobs, dHidden, dHead } = out;
      return Promise.all([tokenLoss, studentLogprobs, dHidden!, dHead!].map((x) => x.readFloats()));
    };
    const [narrow, wide] = [await both("bf16"), await both(undefined)];
    for (const [i, expected] of wide.entries()) {
      const largest = expected.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
      expect(largest).toBeGreaterThan(0);
      expect(excess(narrow[i]!, expected, share * largest, 0)).toBeLessThanOrEqual(0);
    }
  });

  const ceInputs = (): OpInputs["linear_cross_entropy"] => ({ hidden: hidden(), head: head(), ...perRow() });

  test("d_head accumulates onto what is given, in its memory", async () => {
    const alone = await (await run(device, "linear_cross_entropy", ceInputs())).dHead!.readFloats();
    const start = floats(V * D, 9);
    const dHead = tensor(start, [V, D]);
    await run(device, "linear_cross_entropy", { ...ceInputs(), dHead }, { chunkTokens: 4 });
    const expected = alone.map((x, i) => x + start[i]!);
    expect(gradientAgrees(await dHead.readFloats(), expected)).toBe(true);
  });

  test("with nothing to learn the gradients are 0, or what d_head held", async () => {
    const coefficients = tensor(new Float32Array(N), [N]);
    const out = await run(device, "linear_cross_entropy", { ...ceInputs(), coefficients });
    expect((await out.dHidden!.readFloats()).every((x) => x === 0)).toBe(true);
    expect((await out.dHead!.readFloats()).every((x) => x === 0)).toBe(true);
    const start = floats(V * D, 9);
    const dHead = tensor(start, [V, D]);
    await run(device, "linear_cross_entropy", { ...ceInputs(), coefficients, dHead });
    expect(await dHead.readFloats()).toEqual(start);
  });

  test("gradient false makes none and leaves losses alone", async () => {
    const attributes: OpAttributes["linear_cross_entropy"] = { gradient: false };
    const out = await run(device, "linear_cross_entropy", ceInputs(), attributes);
    const full = await run(device, "linear_cross_entropy", ceInputs());
    expect(out.dHidden).toBeUndefined();
    expect(out.dHead).toBeUndefined();
    expect(await out.tokenLoss.readFloats()).toEqual(await full.tokenLoss.readFloats());
  });

  test("no rows", async () => {
    const none = { tokenIds: tensor(new Int32Array(0), [0]) };
    const empty = () => tensor(new Float32Array(0), [0]);
    const out = await run(device, "linear_cross_entropy", {
      hidden: tensor(new Float32Array(0), [0, D]),
      head: head(),
      ...none,
      weights: empty(),
      coefficients: empty(),
    });
    expect((await out.dHead!.readFloats()).every((x) => x === 0)).toBe(true);
  });

  test("chunks that no memory holds are refused, not wrapped around", async () => {
    const [n, v] = [2 ** 20, 2 ** 44];
    const inputs = {
      hidden: tensor(new Float32Array(0), [n, 0]),
      head: tensor(new Float32Array(0), [v, 0]),
      tokenIds: tensor(new Int32Array(n), [n]),
    };
    await expect(run(device, "linear_statistics", inputs, { chunkTokens: n })).rejects.toMatchObject({
      code: "ERR_SDPO_ARGUMENT",
      message: expect.stringMatching(/too large/),
    });
  });

  test("memory does not grow with tokens x vocabulary", async () => {
    const [n, v, d, chunkTokens] = [512, 4096, 8, 16];
    const big = {
      hidden: tensor(floats(n * d, 1), [n, d]),
      head: tensor(floats(v * d, 2), [v, d]),
      tokenIds: tensor(new Int32Array(n), [n]),
      weights: tensor(new Float32Array(n).fill(1), [n]),
      coefficients: tensor(new Float32Array(n).fill(1), [n]),
    };
    const before = device.memory().current;
    device.resetPeakMemory();
    await run(device, "linear_cross_entropy", big, { chunkTokens });
    const used = device.memory().peak - before;
    expect(used).toBeGreaterThan(chunkTokens * v * 4);
    expect(used).toBeLessThan(n * v);
  });
});

describe.each(targets)("linearDistillationLoss on $name", (target) => {
  beforeAll(() => {
    device = useTarget(target);
  });

  const [B, T] = [3, 4];
  const batch = {
    tokenIds: Array.from({ length: B }, (_, b) => Array.from({ length: T }, (_, t) => (b * 5 + t * 11) % V)),
    completionMask: [
      [1, 1, 1, 0],
      [1, 1, 1, 1],
      [1, 1, 0, 0],
    ],
    distillationMask: [1, 0, 1],
  };
  const studentHidden = floats(B * T * D, 1);
  const studentHead = floats(V * D, 2, 0.7);
  const teacherHidden = floats(B * T * D, 3);
  const teacherHead = floats(V * D, 4, 0.5);
  const product = (h: Float32Array, w: Float32Array) =>
    Float32Array.from({ length: B * T * V }, (_, i) => {
      const [row, token] = [Math.floor(i / V), i % V];
      let sum = 0;
      for (let k = 0; k < D; k++) sum += h[row * D + k]! * w[token * D + k]!;
      return sum;
    });

  test.each<DistillationOptions>([
    { topK: 8 },
    { topK: null, alpha: 0 },
    { distillation: "token", alpha: 1 },
    { distillation: "sequence", alpha: 1, aggregation: "seq-mean-token-mean", temperature: 0.8 },
  ])("%o: as distillationLoss of the logits, and its finite differences", async (options) => {
    const inputs = { studentHidden, studentHead, teacherHidden, teacherHead, ...batch };
    const out = await linearDistillationLoss(device, inputs, { ...options, chunkTokens: 5 });
    const lossOf = (h: Float32Array, w: Float32Array) =>
      distillationLoss(
        device,
        { studentLogits: product(h, w), teacherLogits: product(teacherHidden, teacherHead), ...batch },
        options,
      );
    const whole = await lossOf(studentHidden, studentHead);
    expect(agrees([out.loss], [whole.loss])).toBe(true);
    expect(agrees(await out.tokenLoss.readFloats(), await whole.tokenLoss.readFloats())).toBe(true);
    const wholeGradient = tensor(await whole.dStudentLogits.readFloats(), [B * T, V]);
    const expected = await chained(
      wholeGradient,
      tensor(studentHidden, [B * T, D]),
      tensor(studentHead, [V, D]),
    );
    const dHidden = await out.dHidden.readFloats();
    expect(gradientAgrees(dHidden, expected.dHidden)).toBe(true);
    expect(gradientAgrees(await out.dHead.readFloats(), expected.dHead)).toBe(true);
    expect(out.dHidden.shape).toEqual([B, T, D]);
    expect(out.dHead.shape).toEqual([V, D]);
    if (options.distillation) return;
    const h = 2e-3;
    for (const at of [0, 7, 2 * D + 1, 9 * D]) {
      const shifted = (by: number) => studentHidden.map((x, i) => (i === at ? x + by : x)) as Float32Array;
      const up = (await lossOf(shifted(h), studentHead)).loss;
      const down = (await lossOf(shifted(-h), studentHead)).loss;
      expect(Math.abs((up - down) / (2 * h) - dHidden[at]!)).toBeLessThan(1e-4);
    }
  });

  test("tensors, bf16 heads and a dHead to add to", async () => {
    const dHead = tensor(new Float32Array(V * D).fill(1), [V, D]);
    const inputs = {
      studentHidden: tensor(studentHidden, [B, T, D]),
      studentHead: tensor(studentHead, [V, D], "bf16"),
      teacherHidden: tensor(teacherHidden, [B, T, D]),
      teacherHead: tensor(teacherHead, [V, D], "bf16"),
      ...batch,
    };
    const alone = await (await linearDistillationLoss(device, inputs)).dHead.readFloats();
    const out = await linearDistillationLoss(device, { ...inputs, dHead });
    out.dHead.dispose();
    expect(
      gradientAgrees(
        await dHead.readFloats(),
        alone.map((x) => x + 1),
      ),
    ).toBe(true);
  });

  test("lets go of what it made", async () => {
    const before = device.memory().current;
    const inputs = { studentHidden, studentHead, teacherHidden, teacherHead, ...batch };
    const { loss: _, ...tensors } = await linearDistillationLoss(device, inputs, {
      distillation: "sequence",
      alpha: 1,
    });
    for (const out of Object.values(tensors)) (out as Tensor).dispose();
    expect(device.memory().current).toBe(before);
  });
});
