import { expect } from "vitest";
import { type Device, openDevice } from "../../lib/native/device.js";
import { addon, type DType } from "../../lib/native/load.js";
import type { OpAttributes, OpInputs, OpName } from "../../lib/native/ops.generated.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { currentTarget } from "./targets.js";

export const device = await openDevice("cpu");
export const instructionSets = addon().buildInfo().instructionSets;
export const useInstructionSet = (name: string) => addon().setInstructionSet(name);

/** Why products that round activations to bfloat16 do not run here; undefined where they do. */
export function reasonAgainstBf16(): string | undefined {
  try {
    addon().setGemm("bf16");
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    addon().setGemm("fastest");
  }
}

/** What an op test gives for a tensor: numbers, a shape, a dtype. */
export interface Host {
  data: Float32Array | Int32Array;
  shape: number[];
  dtype: DType;
}

const count = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

export const f32 = (shape: number[], fill: ArrayLike<number> | (() => number)): Host => ({
  data:
    typeof fill === "function" ? Float32Array.from({ length: count(shape) }, fill) : Float32Array.from(fill),
  shape,
  dtype: "f32",
});
export const i32 = (shape: number[], fill: ArrayLike<number>): Host => ({
  data: Int32Array.from(fill),
  shape,
  dtype: "i32",
});
/** Values that bfloat16 holds exactly, so that an oracle may read `data`. */
export const bf16 = (shape: number[], fill: ArrayLike<number> | (() => number)): Host => {
  const host = f32(shape, fill);
  return { data: host.data.map(roundBf16) as Float32Array, shape, dtype: "bf16" };
};

/** Rounds to the nearest bfloat16, ties to even. */
export function roundBf16(x: number): number {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0]!;
  if (!Number.isFinite(x)) return x;
  return new Float32Array(
    Uint32Array.of((((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) << 16) >>> 0).buffer,
  )[0]!;
}

/** A small generator (mulberry32): uniform in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Normal deviates (Box-Muller). */
export function normals(seed: number, scale = 1): () => number {
  const uniform = generator(seed);
  return () => scale * Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Leaves NaN in the blocks that outputs and scratch up to 64 KiB will get. */
function poison(device: Device): void {
  device.trim();
  const blocks: Tensor[] = [];
  for (let bytes = 64, step = 64; bytes <= 1 << 16; bytes += step) {
    while (step * 16 <= bytes) step *= 2;
    for (let copy = 0; copy < 2; copy++) {
      blocks.push(Tensor.from(device, new Float32Array(bytes / 4).fill(Number.NaN), [bytes / 4]));
    }
  }
  for (const block of blocks) block.dispose();
}

type Outputs = Record<string, Float32Array | Int32Array>;

async function runOnce(
  device: Device,
  op: OpName,
  inputs: Record<string, Host | undefined>,
  attributes: object,
  threads: number,
): Promise<Outputs> {
  const tensors: Record<string, Tensor> = {};
  for (const [name, host] of Object.entries(inputs)) {
    if (host) tensors[name] = Tensor.from(device, host.data, host.shape, { dtype: host.dtype });
  }
  poison(device);
  addon().setThreads(threads);
  const outputs = (await run(
    device,
    op,
    tensors as unknown as OpInputs[typeof op],
    attributes as OpAttributes[typeof op],
  )) as unknown as Record<string, Tensor>;
  const read: Outputs = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    read[name] = (await tensor.read()) as Float32Array | Int32Array;
    tensor.dispose();
  }
  for (const tensor of Object.values(tensors)) tensor.dispose();
  return read;
}

/**
 * Runs an op on the current target, into poisoned memory, and returns its outputs. On the CPU with 1 and 3
 * threads, on a GPU twice: both must agree bit for bit.
 */
export async function runOp(
  op: OpName,
  inputs: Record<string, Host | undefined>,
  attributes: object = {},
): Promise<Outputs> {
  const threads = addon().buildInfo().threads;
  const { device, name: target } = currentTarget();
  try {
    const many = await runOnce(device, op, inputs, attributes, 3);
    if (target === "simt") return many;
    const one = await runOnce(device, op, inputs, attributes, 1);
    for (const name of Object.keys(many)) {
      const bytes = (a: Float32Array | Int32Array) => Buffer.from(a.buffer, a.byteOffset, a.byteLength);
      expect(
        bytes(one[name]!).equals(bytes(many[name]!)),
        `${op} ${name} on ${target}: two runs differ`,
      ).toBe(true);
    }
    return many;
  } finally {
    addon().setThreads(threads);
  }
}

/** Every |actual - expected| is within `tolerance` times the larger of 1 and |expected|. */
export function expectClose(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    const gap = Math.abs(actual[i]! - expected[i]!) / Math.max(1, Math.abs(expected[i]!));
    if (!(gap <= tolerance)) {
      expect.fail(`element ${i}: ${actual[i]}, expected ${expected[i]} within ${tolerance}`);
    }
  }
}

/** d/dx of a scalar function by central differences, in the float64 oracle's own arithmetic. */
export function finiteDifference(f: (x: Float64Array) => number, at: ArrayLike<number>): Float64Array {
  const x = Float64Array.from(at);
  return x.map((value, i) => {
    const step = 1e-5 * Math.max(1, Math.abs(value));
    x[i] = value + step;
    const high = f(x);
    x[i] = value - step;
    const low = f(x);
    x[i] = value;
    return (high - low) / (2 * step);
  });
}
