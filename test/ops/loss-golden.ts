import { readFileSync } from "node:fs";
import { addon } from "../../lib/native/load.js";

export type Numbers = Float32Array | Float64Array | Int32Array | Uint8Array;

const arrays = { F32: Float32Array, F64: Float64Array, I32: Int32Array, U8: Uint8Array };
const root = new URL("../golden/loss/", import.meta.url);

/** The tensors of a safetensors file below test/golden/loss. */
export function goldenTensors(file: string): Record<string, Numbers> {
  const bytes = readFileSync(new URL(file, root));
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString());
  delete header.__metadata__;
  const tensors: Record<string, Numbers> = {};
  for (const [name, spec] of Object.entries<{ dtype: keyof typeof arrays; data_offsets: [number, number] }>(
    header,
  )) {
    const [begin, end] = spec.data_offsets;
    const body = Uint8Array.from(bytes.subarray(8 + headerBytes + begin, 8 + headerBytes + end));
    tensors[name] = new arrays[spec.dtype](body.buffer);
  }
  return tensors;
}

export function goldenCases<Case>(manifest: string): Case[] {
  return JSON.parse(readFileSync(new URL(manifest, root), "utf8")).cases;
}

/** Each instruction set that this processor runs, weakest first. */
export const instructionSets = addon().buildInfo().instructionSets;

/** The largest |got - expected| - (absolute + relative * |expected|); NaN where a value is NaN in one alone. */
export function excess(
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  absolute: number,
  relative: number | ((expected: number) => number),
): number {
  if (got.length !== expected.length) return Number.NaN;
  let worst = -Infinity;
  for (let i = 0; i < got.length; i++) {
    const a = got[i]!;
    const b = expected[i]!;
    if (Object.is(a, b) || (Number.isNaN(a) && Number.isNaN(b))) continue;
    const allowed = absolute + (typeof relative === "function" ? relative(b) : relative * Math.abs(b));
    const over = Math.abs(a - b) - allowed;
    if (Number.isNaN(over)) return Number.NaN;
    worst = Math.max(worst, over);
  }
  return worst;
}

/** Whether losses and row statistics agree: 1e-5 + 1e-4 |expected|. */
export const agrees = (got: ArrayLike<number>, expected: ArrayLike<number>) =>
  excess(got, expected, 1e-5, 1e-4) <= 0;

/** Whether gradients agree: 1e-6 + 1e-4 max|expected|. */
export function gradientAgrees(got: ArrayLike<number>, expected: ArrayLike<number>): boolean {
  let largest = 0;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i]!));
  return excess(got, expected, 1e-6, () => 1e-4 * largest) <= 0;
}
