import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  expectClose,
  f32,
  finiteDifference,
  instructionSets,
  normals,
  runOp,
  useInstructionSet,
} from "./helpers.js";

const silu = (g: number) => g / (1 + Math.exp(-g));

describe.each(instructionSets)("swiglu on %s", (set) => {
  beforeAll(() => useInstructionSet(set));
  afterAll(() => useInstructionSet(instructionSets.at(-1)!));

  test.each([
    [1, 1],
    [3, 19],
    [70, 1001],
  ])("forward of [%i, %i]", async (rows, d) => {
    const gate = f32([rows, d], normals(1, 4));
    const up = f32([rows, d], normals(2));
    const { y } = await runOp("swiglu_fwd", { gate, up });
    expectClose(
      y!,
      Float64Array.from(gate.data, (g, i) => silu(g) * up.data[i]!),
      1e-6,
    );
  });

  test("gates far from 0 give 0 or the gate", async () => {
    const gate = f32([1, 6], [-1e4, -100, -88, 88, 100, 1e4]);
    const up = f32([1, 6], [1, 1, 1, 1, 1, 1]);
    const { y } = await runOp("swiglu_fwd", { gate, up });
    expectClose(y!, [0, 0, 0, 88, 100, 1e4], 1e-6);
    const { dgate } = await runOp("swiglu_bwd", { gate, up, dy: up });
    expectClose(dgate!, [0, 0, 0, 1, 1, 1], 1e-6);
  });

  test.each([
    [2, 3],
    [3, 37],
  ])("gradients of [%i, %i] equal finite differences", async (rows, d) => {
    const gate = f32([rows, d], normals(3, 2));
    const up = f32([rows, d], normals(4));
    const dy = f32([rows, d], normals(5));
    const loss = (g: ArrayLike<number>, u: ArrayLike<number>) =>
      Float64Array.from(dy.data).reduce((sum, w, i) => sum + w * silu(g[i]!) * u[i]!, 0);
    const { dgate, dup } = await runOp("swiglu_bwd", { gate, up, dy });
    expectClose(
      dgate!,
      finiteDifference((g) => loss(g, up.data), gate.data),
      1e-6,
    );
    expectClose(
      dup!,
      finiteDifference((u) => loss(gate.data, u), up.data),
      1e-6,
    );
  });
});

test("shapes must agree", async () => {
  const gate = f32([2, 8], normals(1));
  await expect(runOp("swiglu_fwd", { gate, up: f32([2, 7], normals(2)) })).rejects.toThrow(
    "[swiglu_fwd] up: expected f32 [T,I] = [2,8], got f32 [2,7]",
  );
});
