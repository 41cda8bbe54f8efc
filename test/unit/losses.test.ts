import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SdpoError } from "../../lib/errors.js";
import { aggregationCoefficients, aggregations } from "../../lib/losses/aggregation.js";
import { type DistillationInputs, distillationLoss } from "../../lib/losses/distillation.js";
import { groupAdvantages } from "../../lib/losses/group-advantages.js";
import { linearDistillationLoss } from "../../lib/losses/linear-distillation.js";
import { policyLoss } from "../../lib/losses/policy.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { Tensor } from "../../lib/native/tensor.js";

const [B, T, V] = [2, 3, 5];
let device: Device;
beforeAll(async () => {
  device = await openDevice("cpu");
});
afterAll(() => device.dispose());

const floats = (n: number, seed = 1) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * 7.1 + seed));
const distillation = (): DistillationInputs => ({
  studentLogits: floats(B * T * V),
  teacherLogits: floats(B * T * V, 2),
  tokenIds: [
    [0, 1, 2],
    [3, 4, 0],
  ],
  completionMask: [
    [1, 1, 0],
    [1, 1, 1],
  ],
});
const policy = () => ({
  shape: [B, T, V] as [number, number, number],
  logits: floats(B * T * V),
  tokenIds: new Int32Array(B * T),
  completionMask: [1, 1, 0, 1, 1, 1],
  oldLogprobs: floats(B * T).map((x) => x - 2),
  advantages: [1, -1],
});
const linear = () => ({
  ...{ studentHidden: floats(B * T * 2), studentHead: floats(V * 2) },
  ...{ teacherHidden: floats(B * T * 3), teacherHead: floats(V * 3) },
  tokenIds: distillation().tokenIds,
  completionMask: distillation().completionMask,
});

describe("aggregationCoefficients", () => {
  const mask = [1, 1, 0, /**/ 0, 0, 0, 0, /**/ 1, 0];
  const lengths = [3, 4, 2];

  test.each([
    ["token-mean", {}, [1 / 3, 1 / 3, 1 / 3]],
    ["token-mean", { normalizer: 10 }, [1 / 10, 1 / 10, 1 / 10]],
    ["seq-mean-token-sum", {}, [1 / 2, 0, 1 / 2]],
    ["seq-mean-token-mean", {}, [1 / 4, 0, 1 / 2]],
    ["seq-mean-token-mean", { normalizer: 3 }, [1 / 6, 0, 1 / 3]],
    ["seq-mean-token-sum-norm", {}, [1 / 4, 0, 1 / 4]],
    ["seq-mean-token-sum-norm", { maxTokens: 8 }, [1 / 8, 0, 1 / 8]],
    ["seq-mean-token-sum-norm", { normalizer: 16 }, [1 / 16, 0, 1 / 16]],
  ] as const)("%s %o", (aggregation, options, expected) => {
    const coefficients = aggregationCoefficients(mask, lengths, { aggregation, ...options });
    expect([0, 3, 7].map((first) => coefficients[first])).toEqual([...expected]);
    lengths.reduce((start, length) => {
      expect(new Set(coefficients.slice(start, start + length)).size).toBe(1);
      return start + length;
    }, 0);
  });

  test.each(aggregations)("%s: all masked, and no sequences", (aggregation) => {
    const coefficients = aggregationCoefficients([0, 0, 0], [1, 2], { aggregation });
    expect(coefficients.every(Number.isFinite)).toBe(true);
    expect(aggregationCoefficients([], [], { aggregation }).length).toBe(0);
  });

  test("refuses lengths that do not fit and names that it does not know", () => {
    expect(() => aggregationCoefficients(mask, [3, 4], { aggregation: "token-mean" })).toThrow(
      /lengths: expected a sum of 9/,
    );
    expect(() => aggregationCoefficients(mask, lengths, { aggregation: "mean" as never })).toThrow(
      /aggregation: expected "token-mean"/,
    );
  });
});

describe("groupAdvantages", () => {
  test("groups, deviations with n - 1, groups of one", () => {
    const rewards = [1, 0, 5, 0.5, 1];
    const groups = ["a", "a", "b", "c", "c"];
    const deviation = Math.SQRT1_2 + 1e-6;
    const small = Math.sqrt(0.125) + 1e-6;
    const expected = [0.5 / deviation, -0.5 / deviation, 5 / (1 + 1e-6), -0.25 / small, 0.25 / small];
    groupAdvantages(rewards, groups).forEach((a, i) => {
      expect(a).toBeCloseTo(expected[i]!, 5);
    });
    expect([...groupAdvantages(rewards, groups, { normalizeByStd: false })]).toEqual([
      0.5, -0.5, 5, -0.25, 0.25,
    ]);
  });

  test("equal rewards give 0", () => {
    expect([...groupAdvantages([0.1, 0.1, 0.1], [7, 7, 7])].map(Math.abs)).toEqual([0, 0, 0]);
  });

  test("refusals", () => {
    expect(() => groupAdvantages([1, 2], [1])).toThrow(/groupIds: expected an array of 2/);
    expect(() => groupAdvantages([1, Number.NaN], [1, 1])).toThrow(/rewards\[1\]: expected a finite number/);
    expect(() => groupAdvantages([1], [1], { normaliseByStd: true } as never)).toThrow(
      /did you mean 'normalizeByStd'/,
    );
  });
});

describe("arguments of distillationLoss", () => {
  test("shape from nested tokenIds, from `shape`, from Tensors: the same result", async () => {
    const nested = await distillationLoss(device, distillation());
    const flat = await distillationLoss(device, {
      ...distillation(),
      shape: [B, T, V],
      tokenIds: Int32Array.of(0, 1, 2, 3, 4, 0),
      completionMask: [true, true, false, true, true, true],
    });
    const tensors = await distillationLoss(device, {
      studentLogits: Tensor.from(device, floats(B * T * V), [B, T, V]),
      teacherLogits: Tensor.from(device, floats(B * T * V, 2), [B, T, V]),
      tokenIds: Tensor.from(device, Int32Array.of(0, 1, 2, 3, 4, 0), [B, T]),
      completionMask: Tensor.from(device, Uint8Array.of(1, 1, 0, 1, 1, 1), [B, T]),
      distillationMask: Tensor.from(device, Float32Array.of(1, 1), [B]),
    });
    expect(flat.loss).toBe(nested.loss);
    expect(tensors.loss).toBe(nested.loss);
    expect(tensors.dStudentLogits.shape).toEqual([B, T, V]);
    expect(tensors.entropy.shape).toEqual([B, T]);
  });

  test("the defaults are those of the contract", async () => {
    const inputs = { ...distillation(), oldLogprobs: floats(B * T).map((x) => x - 3) };
    const out = await distillationLoss(device, inputs);
    const spelt = await distillationLoss(device, inputs, {
      ...{ distillation: "logit", alpha: 0.5, topK: 100, tail: true, isClip: 2 },
      ...{ aggregation: "token-mean", temperature: 1, inPlace: false },
    });
    expect(spelt.loss).toBe(out.loss);
    const other = await distillationLoss(device, inputs, { topK: null, isClip: null });
    expect(other.loss).not.toBe(out.loss);
  });

  test("all masked: loss and gradient are 0, even of NaN", async () => {
    const out = await distillationLoss(device, {
      ...distillation(),
      studentLogits: floats(B * T * V).fill(Number.NaN),
      rolloutWeights: floats(B * T).fill(Number.NaN),
      distillationMask: [0, 0],
    });
    expect(out.loss).toBe(0);
    expect((await out.dStudentLogits.readFloats()).every((g) => g === 0)).toBe(true);
  });

  test("keeps its inputs, and lets go of all it made", async () => {
    using own = await openDevice("cpu");
    const studentLogits = Tensor.from(own, floats(B * T * V), [B, T, V]);
    const inputs = { ...distillation(), studentLogits, oldLogprobs: floats(B * T) };
    const before = own.memory().current;
    for (const options of [{}, { distillation: "sequence", alpha: 1 }] as const) {
      const { loss, ...tensors } = await distillationLoss(own, inputs, options);
      expect(Number.isFinite(loss)).toBe(true);
      for (const tensor of Object.values(tensors)) tensor.dispose();
      expect(own.memory().current).toBe(before);
    }
    await expect(distillationLoss(own, { ...inputs, teacherLogits: floats(7) })).rejects.toThrow(SdpoError);
    expect(own.memory().current).toBe(before);
    expect(await studentLogits.readFloats()).toEqual(floats(B * T * V));
  });

  test("alpha near 0 or 1 warns once", async () => {
    const warnings: string[] = [];
    const listener = (warning: Error & { code?: string }) => warnings.push(String(warning.code));
    process.on("warning", listener);
    for (const alpha of [0, 0.05, 0.5, 0.95, 1, 0.01, 0.97, 0.01])
      await distillationLoss(device, distillation(), { alpha });
    await new Promise((resolve) => setImmediate(resolve));
    process.off("warning", listener);
    expect(warnings).toEqual(["SDPO_ALPHA"]);
  });
});

type Bad = [name: string, call: () => Promise<unknown>, message: RegExp];
const distil = (inputs: object, options: object = {}) =>
  distillationLoss(device, { ...distillation(), ...inputs } as never, options as never);
const play = (inputs: object, options: object = {}) =>
  policyLoss(device, { ...policy(), ...inputs } as never, options as never);
const tokens = Int32Array.of(0, 1, 2, 3, 4, 0);

const bad: Bad[] = [
  ["no device", () => distillationLoss({} as never, distillation()), /^device: expected a Device/],
  ["no inputs", () => distillationLoss(device, null as never), /^inputs: expected an object/],
  ["a misspelt input", () => distil({ tokenID: 1 }), /^inputs: .*'tokenID'; did you mean 'tokenIds'/],
  ["a misspelt option", () => distil({}, { topk: 1 }), /^options: .*'topk'; did you mean 'topK'/],
  ["logits of numbers", () => distil({ studentLogits: [1, 2] }), /^studentLogits: expected a Float32Array/],
  [
    "no shape to be seen",
    () => distil({ tokenIds: tokens, completionMask: tokens }),
    /^shape: expected \[B,T,V\]/,
  ],
  ["a shape of two", () => distil({ shape: [6, 5] }), /^shape: expected \[B,T,V\], three sizes/],
  ["a shape that does not fit", () => distil({ shape: [2, 3, 6] }), /^studentLogits: .*36 elements/],
  ["teacher of another size", () => distil({ teacherLogits: floats(31) }), /^teacherLogits: .*30 elements/],
  [
    "a token too many",
    () => distil({ tokenIds: new Int32Array(7), shape: [B, T, V] }),
    /^tokenIds: expected 6/,
  ],
  ["ragged tokens", () => distil({ tokenIds: [[0, 1, 2], [3]] }), /^tokenIds: expected 6 numbers/],
  [
    "a token outside",
    () =>
      distil({
        tokenIds: [
          [0, 1, 2],
          [3, 5, 0],
        ],
      }),
    /^tokenIds\[4\]: expected a token id from 0 to 4, got 5/,
  ],
  [
    "a token that is no number",
    () =>
      distil({
        tokenIds: [
          [0, 1, 2],
          [3, "4", 0],
        ],
      }),
    /^tokenIds\[4\]: expected a number, got "4"/,
  ],
  ["no mask", () => distil({ completionMask: undefined }), /^completionMask: expected 6 numbers/],
  [
    "a mask of 2",
    () =>
      distil({
        completionMask: [
          [1, 2, 0],
          [1, 1, 1],
        ],
      }),
    /^completionMask\[1\]: expected 0 or 1, got 2/,
  ],
  [
    "a mask for each token",
    () => distil({ distillationMask: tokens }),
    /^distillationMask: expected 2 numbers/,
  ],
  [
    "an infinite weight",
    () => distil({ tokenWeights: floats(6).fill(Infinity) }),
    /^tokenWeights\[0\]: expected a f/,
  ],
  ["NaN weights", () => distil({ rolloutWeights: floats(6).fill(Number.NaN) }), /^rolloutWeights\[0\]/],
  ["alpha 2", () => distil({}, { alpha: 2 }), /^alpha: expected a number from 0 to 1, got 2/],
  ["alpha NaN", () => distil({}, { alpha: Number.NaN }), /^alpha: expected a number from 0 to 1, got NaN/],
  ["topK 0", () => distil({}, { topK: 0 }), /^topK: expected an integer from 1/],
  ["topK 1.5", () => distil({}, { topK: 1.5 }), /^topK: expected an integer from 1/],
  ["tail 1", () => distil({}, { tail: 1 }), /^tail: expected true or false, got 1/],
  ["isClip 0", () => distil({}, { isClip: 0 }), /^isClip: expected a number above 0/],
  [
    "an unknown credit",
    () => distil({}, { distillation: "tokens" }),
    /^distillation: expected "logit" \| "token"/,
  ],
  [
    "token credit, alpha 0.5",
    () => distil({}, { distillation: "token" }),
    /^alpha: expected 1.* "token" needs/,
  ],
  [
    "a clip, alpha 0",
    () => distil({}, { alpha: 0, advantageClip: 5 }),
    /^alpha: expected 1.*advantageClip needs/,
  ],
  ["an unknown mean", () => distil({}, { aggregation: "mean" }), /^aggregation: expected "token-mean"/],
  ["temperature 0", () => distil({}, { temperature: 0 }), /^temperature: expected a number from/],
  ["normalizer 0", () => distil({}, { normalizer: 0 }), /^normalizer: expected a number above 0/],
  ["a rate alone", () => distil({}, { teacherRate: 0.1 }), /^teacherRate: expected an initial teacher/],
  [
    "in place of an array",
    () => distil({}, { inPlace: true }),
    /^studentLogits: expected a Tensor, as inPlace/,
  ],
  ["dualClip below 1", () => play({}, { dualClip: 0.5 }), /^dualClip: expected a number from 1/],
  ["clipLow 2", () => play({}, { clipLow: 2 }), /^clipLow: expected a number from 0 to 1/],
  ["KL without reference", () => play({}, { klCoefficient: 1 }), /^klCoefficient: expected 0, as/],
  ["an unknown KL", () => play({}, { klKind: "k4" }), /^klKind: expected "k1" \| "k2" \| "k3"/],
  ["three advantages", () => play({ advantages: [1, 2, 3] }), /^advantages: expected 6 numbers/],
  ["no oldLogprobs", () => play({ oldLogprobs: undefined }), /^oldLogprobs: expected 6 numbers/],
  [
    "a head of another width",
    () => linearDistillationLoss(device, { ...linear(), teacherHead: floats(7) }),
    /^teacherHead: expected a Tensor or a Float32Array of 15/,
  ],
  [
    "hidden states that do not divide",
    () => linearDistillationLoss(device, { ...linear(), teacherHidden: floats(7) }),
    /^teacherHidden: expected a Tensor or a Float32Array of shape \[2,3,D\]/,
  ],
  [
    "half a trust region",
    () => linearDistillationLoss(device, { ...linear(), initialTeacherHead: floats(5) }),
    /^initialTeacherHidden: expected/,
  ],
  [
    "half a chunk",
    () => linearDistillationLoss(device, linear(), { chunkTokens: 0.5 }),
    /^chunkTokens: expected an integer from 0/,
  ],
];

describe("refused, naming the argument", () => {
  test.each(bad)("%s", async (_, call, message) => {
    const error = await call().then(
      () => undefined,
      (reason) => reason,
    );
    expect(error).toBeInstanceOf(SdpoError);
    expect(error.code).toBe("ERR_SDPO_ARGUMENT");
    expect(error.message).toMatch(message);
  });

  test("a tensor of another device, of another dtype, or disposed of", async () => {
    using other = await openDevice("cpu");
    const shape = [B, T, V];
    const studentLogits = Tensor.from(other, floats(B * T * V), shape);
    await expect(distil({ studentLogits })).rejects.toThrow(
      /^studentLogits: expected a Tensor on the device/,
    );
    const whole = Tensor.from(device, new Int32Array(B * T * V), shape);
    await expect(distil({ studentLogits: whole })).rejects.toThrow(/expected a Tensor f32\|bf16 \[2,3,5\]/);
    const gone = Tensor.from(device, floats(B * T * V), shape);
    gone.dispose();
    await expect(distil({ studentLogits: gone })).rejects.toMatchObject({ code: "ERR_SDPO_DISPOSED" });
  });
});
