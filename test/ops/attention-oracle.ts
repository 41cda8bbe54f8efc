// Attention in float64, one query at a time, and random inputs for its tests.

import { createHash } from "node:crypto";
import { type Device, openDevice } from "../../lib/native/device.js";
import { addon } from "../../lib/native/load.js";
import { Tensor } from "../../lib/native/tensor.js";

export type Random = () => number;

/** Uniform in [0, 1) from a linear congruential generator. */
export function random(seed: number): Random {
  let state = BigInt(seed) * 7919n + 12345n;
  return () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number(state >> 40n) / 2 ** 24;
  };
}

export const integer = (next: Random, least: number, most: number) =>
  least + Math.floor(next() * (most - least + 1));

export const floats = (next: Random, count: number, size = 1) =>
  Float32Array.from({ length: count }, () => (next() * 2 - 1) * size);

/** start, length, parent, position */
export type Segment = [number, number, number, number];

export interface Sizes {
  T: number;
  H: number;
  K: number;
  E: number;
}

/** Segments in a random order of rows; depth up to 3, some empty, some roots not at position 0. */
export function randomForest(
  next: Random,
  count: number,
  longest: number,
): { segments: Segment[]; T: number } {
  const depth: number[] = [];
  const segments: Segment[] = [];
  for (let i = 0; i < count; i++) {
    const candidates = depth.flatMap((d, j) => (d < 2 ? [j] : []));
    const root = candidates.length === 0 || next() < 0.25;
    const parent = root ? -1 : candidates[integer(next, 0, candidates.length - 1)]!;
    depth.push(root ? 0 : depth[parent]! + 1);
    const length = next() < 0.1 ? 0 : integer(next, 1, longest);
    const above = segments[parent];
    segments.push([0, length, parent, above ? above[3] + above[1] : next() < 0.3 ? 5 : 0]);
  }
  let T = 0;
  const order = segments.map((_, i) => ({ i, key: next() })).sort((a, b) => a.key - b.key);
  for (const { i } of order) {
    segments[i]![0] = T;
    T += segments[i]![1];
  }
  return { segments, T };
}

/** For each row, the rows that it sees. */
export function visibleRows(segments: Segment[], T: number, window: number): number[][] {
  const chain = (index: number): number[] => (index < 0 ? [] : [...chain(segments[index]![2]), index]);
  const rows: number[][] = Array.from({ length: T }, () => []);
  segments.forEach(([start, length], s) => {
    const keys = chain(s).flatMap((c) => {
      const [from, n, , position] = segments[c]!;
      return Array.from({ length: n }, (_, j) => ({ row: from + j, position: position + j }));
    });
    for (let i = 0; i < length; i++) {
      const position = segments[s]![3] + i;
      rows[start + i] = keys
        .filter((key) => key.position <= position && (window === 0 || key.position > position - window))
        .map((key) => key.row);
    }
  });
  return rows;
}

export interface Inputs {
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
}

export interface Gradients {
  dq: Float64Array;
  dk: Float64Array;
  dv: Float64Array;
}

/** out, lse and, for the gradient dout of out, the gradients: all in float64. */
export function naiveAttention(
  { q, k, v }: { [name in keyof Inputs]: ArrayLike<number> },
  { T, H, K, E }: Sizes,
  visible: number[][],
  scale: number,
  dout?: ArrayLike<number>,
): { out: Float64Array; lse: Float64Array } & Gradients {
  const out = new Float64Array(T * H * E);
  const lse = new Float64Array(T * H);
  const [dq, dk, dv] = [q, k, v].map((x) => new Float64Array(x.length)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const dot = (a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number) => {
    let sum = 0;
    for (let e = 0; e < E; e++) sum += a[i + e]! * b[j + e]!;
    return sum;
  };
  for (let t = 0; t < T; t++)
    for (let h = 0; h < H; h++) {
      const at = (t * H + h) * E;
      const keys = visible[t]!.map((row) => (row * K + Math.floor(h / (H / K))) * E);
      const scores = keys.map((key) => scale * dot(q, at, k, key));
      const top = Math.max(...scores);
      const mass = scores.reduce((sum, s) => sum + Math.exp(s - top), 0);
      lse[t * H + h] = top + Math.log(mass);
      const p = scores.map((s) => Math.exp(s - lse[t * H + h]!));
      keys.forEach((key, j) => {
        for (let e = 0; e < E; e++) out[at + e]! += p[j]! * v[key + e]!;
      });
      if (!dout) continue;
      const mean = dot(dout, at, out, at);
      keys.forEach((key, j) => {
        const ds = p[j]! * (dot(dout, at, v, key) - mean) * scale;
        for (let e = 0; e < E; e++) {
          dq[at + e]! += ds * k[key + e]!;
          dk[key + e]! += ds * q[at + e]!;
          dv[key + e]! += p[j]! * dout[at + e]!;
        }
      });
    }
  return { out, lse, dq, dk, dv };
}

/** The largest difference, relative to the largest expected value (at least 1). */
export function worst(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let size = 1;
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!);
    if (!(d <= difference)) difference = Number.isNaN(d) ? Number.POSITIVE_INFINITY : d;
    size = Math.max(size, Math.abs(expected[i]!));
  }
  return difference / size;
}

/** A digest of the bits of arrays; comparing it is much faster than comparing elements. */
export function digest(...arrays: Float32Array[]): string {
  const hash = createHash("sha256");
  for (const array of arrays) hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  return hash.digest("hex");
}

export const cpu: Device = await openDevice("cpu");
export const instructionSets = addon().buildInfo().instructionSets;
const preferred = addon().buildInfo();

/** Runs `body` with an instruction set and a number of threads, then sets back what was there. */
export async function configured<T>(
  wish: { instructionSet?: string; threads?: number },
  body: () => Promise<T>,
): Promise<T> {
  addon().setInstructionSet(wish.instructionSet ?? preferred.instructionSet);
  addon().setThreads(wish.threads ?? preferred.threads);
  try {
    return await body();
  } finally {
    addon().setInstructionSet(preferred.instructionSet);
    addon().setThreads(preferred.threads);
  }
}

export const tensor = (data: Float32Array | Int32Array, ...shape: number[]) => Tensor.from(cpu, data, shape);
export const segmentTensor = (segments: Segment[]) =>
  tensor(Int32Array.from(segments.flat()), segments.length, 4);
