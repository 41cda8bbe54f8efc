import { readFileSync } from "node:fs";
import { join } from "node:path";

/** A tensor of a golden file: float32 or int32. */
export interface GoldenTensor {
  shape: number[];
  data: Float32Array | Int32Array;
}

const golden = join(import.meta.dirname, "golden");

export function goldenPath(...parts: string[]): string {
  return join(golden, ...parts);
}

export function goldenJson<T>(...parts: string[]): T {
  return JSON.parse(readFileSync(goldenPath(...parts), "utf8")) as T;
}

/** Reads a safetensors file with float32 and int32 tensors, without the code under test. */
export function goldenTensors(...parts: string[]): Map<string, GoldenTensor> {
  const bytes = readFileSync(goldenPath(...parts));
  const headerLength = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = data_offsets;
    const copy = Uint8Array.from(bytes.subarray(8 + headerLength + begin, 8 + headerLength + end)).buffer;
    tensors.set(name, { shape, data: dtype === "I32" ? new Int32Array(copy) : new Float32Array(copy) });
  }
  return tensors;
}

export function maxAbs(values: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) {
    const size = Math.abs(values[i]!);
    if (Number.isNaN(size)) return Number.NaN;
    most = Math.max(most, size);
  }
  return most;
}

/** The largest |a - b|; NaN where any difference is NaN. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`lengths differ: ${a.length} and ${b.length}`);
  return maxAbs(Float64Array.from(a, (x, i) => x - b[i]!));
}
