// Every vectorised file must follow setInstructionSet at each call. The baseline has no fused multiply-add, so
// its bits differ from those of the others wherever a product is added to something.
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { addon } from "../../lib/native/load.js";
import type { OpName } from "../../lib/native/ops.generated.js";
import {
  bf16,
  f32,
  generator,
  type Host,
  i32,
  instructionSets,
  normals,
  runOp,
  useInstructionSet,
} from "./helpers.js";

const initial = addon().buildInfo().instructionSet;
const best = instructionSets.at(-1)!;
afterAll(() => useInstructionSet(initial));

const random = (shape: number[], seed: number, scale = 1) => f32(shape, normals(seed, scale));
const ones = (n: number) => f32([n], new Float32Array(n).fill(1));

const qkv = { q: random([24, 2, 20], 1), k: random([24, 2, 20], 2), v: random([24, 2, 20], 3) };
const segments = i32([1, 4], [0, 24, -1, 0]);
const lossRows = { tokenIds: i32([3], [0, 5, 9]), weights: ones(3), coefficients: ones(3) };
const moments = { firstMoment: random([100], 2), secondMoment: f32([100], generator(3)) };

type Case = [op: OpName, inputs: Record<string, Host>, attributes?: object];
const cases: Record<string, Case> = {
  "native/backends/cpu/gemm.simd.cpp": ["matmul", { a: random([40, 33], 1), b: bf16([33, 50], normals(2)) }],
  "native/backends/cpu/gemm_rows.simd.cpp": [
    "matmul",
    { a: random([3, 33], 1), b: random([50, 33], 2) },
    { transposeB: true, rowInvariant: true },
  ],
  "native/ops/add.simd.cpp": ["lerp", { x: random([100], 1), y: random([100], 2) }, { rate: 0.3 }],
  "native/ops/attention_rows.simd.cpp": ["attention_fwd", { ...qkv, segments }],
  "native/ops/attention_bwd.simd.cpp": [
    "attention_bwd",
    {
      ...qkv,
      out: random([24, 2, 20], 4),
      lse: f32([24, 2], new Float32Array(48).fill(4)),
      dout: qkv.q,
      segments,
    },
  ],
  "native/ops/loss_rows.simd.cpp": [
    "distill_loss",
    { studentLogits: random([3, 97], 1, 3), teacherLogits: random([3, 97], 2, 3), ...lossRows },
  ],
  "native/ops/optimizer.simd.cpp": [
    "adamw",
    { parameter: random([100], 1), gradient: random([100], 4), ...moments },
    { learningRate: 0.01, step: 3 },
  ],
  "native/ops/rmsnorm.simd.cpp": ["rmsnorm_fwd", { x: random([50, 770], 1), weight: random([770], 2) }],
  "native/ops/rope.simd.cpp": [
    "rope",
    {
      x: random([6, 2, 20], 1),
      positions: i32([6], [0, 3, 9, 70, 500, 3000]),
      invFreq: f32([10], generator(2)),
    },
  ],
  "native/ops/sample.simd.cpp": [
    "sample",
    {
      logits: random([40, 300], 1, 3),
      parameters: f32([40, 3], Array.from({ length: 40 }, (_, i) => [0.3 + i / 20, 1, 0]).flat()),
      topK: i32([40], new Int32Array(40)),
      counters: i32([40, 6], new Int32Array(240)),
    },
  ],
  "native/ops/swiglu.simd.cpp": ["swiglu_fwd", { gate: random([50, 100], 1, 3), up: random([50, 100], 2) }],
};

async function bitsOf(isa: string, [op, inputs, attributes]: Case): Promise<string> {
  useInstructionSet(isa);
  const outputs = Object.values(await runOp(op, inputs, attributes));
  return outputs.map(({ buffer }) => Buffer.from(buffer).toString("hex")).join();
}

const files = ["native/ops", "native/backends/cpu"].flatMap((folder) =>
  readdirSync(new URL(`../../${folder}`, import.meta.url)).map((name) => `${folder}/${name}`),
);

test("each vectorised file has a case here", () => {
  expect(Object.keys(cases).sort()).toEqual(files.filter((file) => file.endsWith(".simd.cpp")).sort());
});

test("only the dispatching functions name an instruction set's namespace: no pointer can be kept", () => {
  for (const file of files) {
    const source = readFileSync(new URL(`../../${file}`, import.meta.url), "utf8");
    expect(source, file).not.toMatch(/\b(avx2|avx512|baseline)::/);
  }
});

describe.skipIf(best === "baseline")(`baseline and ${best}, in turn`, () => {
  test.each(Object.entries(cases))("%s", async (_, given) => {
    const first = await bitsOf(best, given);
    const baseline = await bitsOf("baseline", given);
    expect(baseline).not.toBe(first);
    expect(await bitsOf(best, given)).toBe(first);
    expect(await bitsOf("baseline", given)).toBe(baseline);
  });
});
