// A loss over the output matrix is one op, however many rows it has: its signal must reach it between chunks.
import { expect, test } from "vitest";
import type { OpAttributes, OpInputs } from "../../lib/native/ops.generated.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { device, normals } from "./helpers.js";

const [N, V, D] = [60_000, 512, 32];

const random = (shape: number[], seed: number) =>
  Tensor.from(device, Float32Array.from({ length: shape.reduce((a, b) => a * b) }, normals(seed)), shape);
const model = { hidden: random([N, D], 1), head: random([V, D], 2) };
const tokenIds = Tensor.from(device, new Int32Array(N), [N]);
const ones = Tensor.from(device, new Float32Array(N).fill(1), [N]);
const rows = { tokenIds, weights: ones, coefficients: ones };

type LinearOp = "linear_cross_entropy" | "linear_policy_loss" | "linear_distill_loss" | "linear_statistics";
const inputs: { [op in LinearOp]: OpInputs[op] } = {
  linear_cross_entropy: { ...model, ...rows },
  linear_policy_loss: { ...model, ...rows, oldLogprobs: ones, advantages: ones },
  linear_distill_loss: {
    studentHidden: model.hidden,
    studentHead: model.head,
    teacherHidden: model.hidden,
    teacherHead: model.head,
    ...rows,
  },
  linear_statistics: { ...model, tokenIds },
};

test.each(Object.keys(inputs) as LinearOp[])("%s ends between chunks and frees what it took", async (op) => {
  const attributes = { chunkTokens: 1 } as OpAttributes[typeof op];
  const before = device.memory().current;
  const controller = new AbortController();
  const running = run(device, op, inputs[op], attributes, { signal: controller.signal });
  setTimeout(() => controller.abort(new Error("enough")), 25);
  await expect(running).rejects.toMatchObject({
    code: "ERR_SDPO_ABORTED",
    cause: expect.objectContaining({ message: "enough" }),
  });
  expect(device.memory().current).toBe(before);
});
