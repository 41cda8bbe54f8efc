/** Random batches for distill_loss, and what it should give for them. */
import { expect } from "vitest";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { agrees, gradientAgrees } from "./loss-golden.js";
import { type NaiveOptions, type NaiveRow, naiveGradient, naiveRow } from "./loss-naive.js";
import { currentTarget } from "./targets.js";

/** A generator of its own for each case, so that a failure can be run again alone. */
export function random(seed: number) {
  let state = (seed * 2654435761) >>> 0;
  const uniform = () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 0x9e3779b9) >>> 0;
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(uniform() + 1e-12)) * Math.cos(2 * Math.PI * uniform());
  const pick = <T>(values: readonly T[]) => values[Math.floor(uniform() * values.length)]!;
  return { uniform, normal, pick };
}

type Columns = Record<"student" | "teacher" | "initial", Float32Array>;

export interface Batch extends Columns {
  n: number;
  v: number;
  tokenIds: Int32Array;
  weights: Float32Array;
  coefficients: Float32Array;
  old: Float32Array;
}

export function batchOf(n: number, v: number, seed: number, scale = 2): Batch {
  const { normal, uniform } = random(seed);
  const student = Float32Array.from({ length: n * v }, () => scale * normal());
  return {
    ...{ n, v, student },
    teacher: student.map((z) => z + 0.8 * normal()),
    initial: student.map((z) => z + normal()),
    tokenIds: Int32Array.from({ length: n }, () => Math.floor(uniform() * v)),
    weights: Float32Array.from({ length: n }, (_, i) => (i % 4 === 3 ? 0 : 0.3 + uniform())),
    coefficients: Float32Array.from({ length: n }, () => 0.1 + uniform()),
    old: Float32Array.from({ length: n }, () => -Math.log(v) + normal()),
  };
}

export interface Use {
  initial: boolean;
  old: boolean;
  inPlace?: boolean;
  bf16?: boolean;
}

/** Runs it, on the current target unless told otherwise. */
export function execute(batch: Batch, options: NaiveOptions, use: Use, device = currentTarget().device) {
  const { n, v } = batch;
  const dtype = use.bf16 ? "bf16" : "f32";
  const matrix = (data: Float32Array) => Tensor.from(device, data, [n, v], { dtype });
  return run(
    device,
    "distill_loss",
    {
      studentLogits: matrix(batch.student),
      teacherLogits: matrix(batch.teacher),
      ...(use.initial ? { initialTeacherLogits: matrix(batch.initial) } : {}),
      tokenIds: Tensor.from(device, batch.tokenIds, [n]),
      weights: Tensor.from(device, batch.weights, [n]),
      coefficients: Tensor.from(device, batch.coefficients, [n]),
      ...(use.old ? { oldLogprobs: Tensor.from(device, batch.old, [n]) } : {}),
    },
    { ...options, inPlace: use.inPlace ?? false },
  );
}

export function rowOf(batch: Batch, i: number, use: Use): NaiveRow {
  const { v } = batch;
  const part = (data: Float32Array) => Float64Array.from(data.subarray(i * v, (i + 1) * v));
  return {
    student: part(batch.student),
    teacher: part(batch.teacher),
    initial: use.initial ? part(batch.initial) : undefined,
    token: batch.tokenIds[i]!,
    weight: batch.weights[i]!,
    old: use.old ? batch.old[i]! : undefined,
  };
}

export async function expectNaive(batch: Batch, options: NaiveOptions, use: Use, withGradient = true) {
  const out = await execute(batch, options, use);
  const rows = Array.from({ length: batch.n }, (_, i) => rowOf(batch, i, use));
  const expected = rows.map((row) => naiveRow(row, options));
  for (const name of Object.keys(expected[0]!) as (keyof (typeof expected)[number])[]) {
    const got = await out[name].readFloats();
    expect(
      agrees(
        got,
        expected.map((row) => row[name]),
      ),
      `${name}: ${got}, expected ${expected.map((row) => row[name])}`,
    ).toBe(true);
  }
  if (!withGradient) return;
  const gradient = rows.flatMap((row, i) =>
    naiveGradient(row, options).map((g) => g * batch.coefficients[i]!),
  );
  expect(gradientAgrees(await out.dlogits!.readFloats(), gradient), "gradient").toBe(true);
}

export const plain: NaiveOptions = {
  credit: "logit",
  alpha: 0.5,
  topK: null,
  tail: true,
  isClip: 2,
  advantageClip: null,
  teacherRate: null,
  temperature: 1,
};
export const none: Use = { initial: false, old: false };
