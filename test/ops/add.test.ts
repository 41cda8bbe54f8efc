import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  bf16,
  expectClose,
  f32,
  instructionSets,
  normals,
  roundBf16,
  runOp,
  useInstructionSet,
} from "./helpers.js";

describe.each(instructionSets)("element-wise ops on %s", (set) => {
  beforeAll(() => useInstructionSet(set));
  afterAll(() => useInstructionSet(instructionSets.at(-1)!));

  test.each([[[]], [[1]], [[3, 5, 7]], [[70001]]])("add and scale of %j", async (shape) => {
    const x = f32(shape, normals(1));
    const y = f32(shape, normals(2));
    const sum = await runOp("add", { x, y });
    expect(sum.x).toEqual(x.data.map((v, i) => Math.fround(v + y.data[i]!)));
    const scaled = await runOp("scale", { x }, { factor: 0.3 });
    expect(scaled.x).toEqual(x.data.map((v) => v * Math.fround(0.3)));
  });

  test.each([
    ["f32", "f32", f32, f32],
    ["f32", "bf16", f32, bf16],
    ["bf16", "f32", bf16, f32],
    ["bf16", "bf16", bf16, bf16],
  ] as const)("lerp of %s towards %s", async (kind, _, makeX, makeY) => {
    const x = makeX([333], normals(3));
    const y = makeY([333], normals(4));
    const { x: mixed } = await runOp("lerp", { x, y }, { rate: 0.05 });
    const expected = Float64Array.from(x.data, (v, i) => 0.95 * v + 0.05 * y.data[i]!);
    expectClose(mixed!, expected, kind === "f32" ? 1e-6 : 2 ** -8);
    if (kind === "bf16") expect(mixed).toEqual(mixed!.map(roundBf16));
    const whole = await runOp("lerp", { x, y }, { rate: 1 });
    expectClose(whole.x!, y.data, kind === "f32" ? 0 : 2 ** -8);
  });
});

test.each(instructionSets)("storing bf16 rounds ties to even and keeps NaN on %s", async (set) => {
  useInstructionSet(set);
  const ulp = 2 ** -7;
  const values = [1 + ulp / 2, 1 + 1.5 * ulp, -1 - ulp / 2, 1 + 0.51 * ulp, 3.4e38, 1e-40, Number.NaN];
  const y = f32([3, 7], [...values, ...values, ...values]);
  const { x } = await runOp("lerp", { x: bf16([3, 7], () => 0), y }, { rate: 1 });
  expect(x).toEqual(y.data.map(roundBf16));
  expect(x!.slice(0, 4)).toEqual(Float32Array.of(1, 1 + 2 * ulp, -1, 1 + ulp));
});

test("shapes must agree and the rate lies in [0, 1]", async () => {
  const x = f32([4], normals(1));
  await expect(runOp("add", { x, y: f32([5], normals(2)) })).rejects.toThrow("[add] y: expected f32");
  await expect(runOp("lerp", { x, y: x }, { rate: 1.5 })).rejects.toThrow("[lerp] rate: expected a number");
});
