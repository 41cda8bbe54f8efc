import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  bf16,
  expectClose,
  f32,
  finiteDifference,
  instructionSets,
  normals,
  runOp,
  useInstructionSet,
} from "./helpers.js";

const eps = 1e-5;

function forward(x: ArrayLike<number>, weight: ArrayLike<number>, d: number) {
  const rows = x.length / d;
  const y = new Float64Array(x.length);
  const rstd = new Float64Array(rows);
  for (let t = 0; t < rows; t++) {
    let squares = 0;
    for (let j = 0; j < d; j++) squares += x[t * d + j]! ** 2;
    rstd[t] = 1 / Math.sqrt(squares / d + eps);
    for (let j = 0; j < d; j++) y[t * d + j] = x[t * d + j]! * rstd[t]! * weight[j]!;
  }
  return { y, rstd };
}

const shapes = [
  [1, 1],
  [5, 8],
  [3, 17],
  [300, 64],
  [2, 128],
  [9, 130],
  [3, 577],
];

describe.each(instructionSets)("rmsnorm on %s", (set) => {
  beforeAll(() => useInstructionSet(set));
  afterAll(() => useInstructionSet(instructionSets.at(-1)!));

  test.each(shapes)("forward of [%i, %i]", async (rows, d) => {
    for (const make of [f32, bf16]) {
      const x = f32([rows!, d!], normals(rows! + d!, 3));
      const weight = make([d!], normals(7));
      const expected = forward(x.data, weight.data, d!);
      const { y, rstd } = await runOp("rmsnorm_fwd", { x, weight }, { eps });
      expectClose(y!, expected.y, 2e-6);
      expectClose(rstd!, expected.rstd, 2e-6);
    }
  });

  test.each([
    [2, 5],
    [3, 17],
    [2, 64],
  ])("gradients of [%i, %i] equal finite differences", async (rows, d) => {
    const x = f32([rows, d], normals(1));
    const weight = bf16([d], normals(2));
    const dy = f32([rows, d], normals(3));
    const loss = (x64: ArrayLike<number>, w64: ArrayLike<number>) =>
      forward(x64, w64, d).y.reduce((sum, y, i) => sum + y * dy.data[i]!, 0);
    const dx64 = finiteDifference((x64) => loss(x64, weight.data), x.data);
    const dw64 = finiteDifference((w64) => loss(x.data, w64), weight.data);
    const rstd = f32([rows], forward(x.data, weight.data, d).rstd);
    const fresh = await runOp("rmsnorm_bwd", { x, weight, rstd, dy });
    expectClose(fresh.dx!, dx64, 1e-5);
    expectClose(fresh.dweight!, dw64, 1e-5);

    const dx = f32([rows, d], normals(4));
    const dweight = f32([d], normals(5));
    const added = await runOp("rmsnorm_bwd", { x, weight, rstd, dy, dx, dweight });
    expectClose(
      added.dx!,
      dx64.map((g, i) => g + dx.data[i]!),
      1e-5,
    );
    expectClose(
      added.dweight!,
      dw64.map((g, i) => g + dweight.data[i]!),
      1e-5,
    );
  });

  test("the weight's gradient over many rows", async () => {
    const rows = 1000;
    const d = 24;
    const x = f32([rows, d], normals(6));
    const weight = f32([d], normals(7));
    const dy = f32([rows, d], normals(8));
    const rstd = forward(x.data, weight.data, d).rstd;
    const expected = new Float64Array(d);
    for (let i = 0; i < rows * d; i++)
      expected[i % d]! += dy.data[i]! * x.data[i]! * rstd[Math.floor(i / d)]!;
    const { dweight } = await runOp("rmsnorm_bwd", { x, weight, rstd: f32([rows], rstd), dy });
    expectClose(dweight!, expected, 1e-5);
  });

  test("a row does not depend on the others", async () => {
    const all = f32([40, 66], normals(9));
    const weight = f32([66], normals(10));
    const { y } = await runOp("rmsnorm_fwd", { x: all, weight });
    const alone = await runOp("rmsnorm_fwd", { x: f32([1, 66], all.data.slice(13 * 66, 14 * 66)), weight });
    expect(alone.y).toEqual(y!.slice(13 * 66, 14 * 66));
  });
});

test("a weight of another width is refused", async () => {
  const x = f32([2, 8], normals(1));
  await expect(runOp("rmsnorm_fwd", { x, weight: f32([7], normals(2)) })).rejects.toThrow(
    "[rmsnorm_fwd] weight: expected f32|bf16 [D] = [8], got f32 [7]",
  );
});
