import { describe, expect, test } from "vitest";
import { bf16, expectClose, f32, normals, runOp } from "./helpers.js";

describe.each([
  [1, 1],
  [5, 67],
  [400, 130],
])("bias of [%i, %i]", (rows, n) => {
  test.each([
    ["f32", f32],
    ["bf16", bf16],
  ] as const)("is added to every row (%s)", async (_, make) => {
    const x = f32([rows, n], normals(1));
    const bias = make([n], normals(2));
    const { x: y } = await runOp("bias_add", { x, bias });
    expect(y).toEqual(x.data.map((v, i) => Math.fround(v + bias.data[i % n]!)));
  });

  test("gradient: column sums onto what is there", async () => {
    const dy = f32([rows, n], normals(3));
    const dbias = f32([n], normals(4));
    const expected = Float64Array.from(dbias.data);
    dy.data.forEach((g, i) => {
      expected[i % n]! += g;
    });
    const out = await runOp("bias_bwd", { dy, dbias });
    expectClose(out.dbias!, expected, 1e-6);
  });
});

test("a bias of another width is refused", async () => {
  const x = f32([2, 8], normals(1));
  await expect(runOp("bias_add", { x, bias: f32([7], normals(2)) })).rejects.toThrow(
    "[bias_add] bias: expected",
  );
});
