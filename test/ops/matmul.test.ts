import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Device, openDevice } from "../../lib/native/device.js";
import { addon } from "../../lib/native/load.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { reasonAgainstBf16 } from "./helpers.js";

type Float = "f32" | "bf16";
type Library = "fastest" | "builtin" | "onednn" | "bf16";

const { instructionSets, instructionSet, threads } = addon().buildInfo();
const withOneDnn = addon().buildInfo().gemm.includes("oneDNN");
const paths: [string, Library][] = [
  ...instructionSets.map((isa): [string, Library] => [isa, "builtin"]),
  ...(withOneDnn ? (["onednn", "fastest"] as const) : []).map((name): [string, Library] => [
    instructionSet,
    name,
  ]),
];
const dtypes: [Float, Float][] = [
  ["f32", "f32"],
  ["f32", "bf16"],
  ["bf16", "f32"],
  ["bf16", "bf16"],
];
const transposes: [boolean, boolean][] = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
];
/** m, n, k: nothing, one, odd, around the kernels' tiles, more than one depth block. */
const sizes: [number, number, number][] = [
  [0, 5, 3],
  [3, 0, 5],
  [4, 3, 0],
  [1, 1, 1],
  [1, 7, 5],
  [3, 2, 17],
  [5, 13, 33],
  [12, 96, 16],
  [13, 97, 65],
  [33, 50, 400],
  [130, 101, 37],
  [26, 390, 770],
];

let device: Device;
let seed = 1;
const random = (n: number) =>
  Float32Array.from({ length: n }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 31 - 1;
  });

const bf16Bits = (x: number) => {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0]!;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
};
/** x as the dtype holds it. */
function held(x: Float32Array, dtype: Float): Float32Array {
  if (dtype === "f32") return x;
  return new Float32Array(Uint32Array.from(x, (v) => bf16Bits(v) << 16).buffer);
}

function transposed(x: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from({ length: x.length }, (_, i) => x[(i % rows) * columns + Math.floor(i / rows)]!);
}

/** A matrix [rows, columns] on the device, stored transposed where `flip` holds. */
function matrix(x: Float32Array, rows: number, columns: number, flip: boolean, dtype: Float): Tensor {
  return flip
    ? Tensor.from(device, transposed(x, rows, columns), [columns, rows], { dtype })
    : Tensor.from(device, x, [rows, columns], { dtype });
}

/** A B in float64, and |A| |B| for the error bound. */
function naive(a: Float32Array, b: Float32Array, m: number, n: number, k: number) {
  const value = new Float64Array(m * n);
  const scale = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let l = 0; l < k; l++) {
      for (let j = 0; j < n; j++) {
        const product = a[i * k + l]! * b[l * n + j]!;
        value[i * n + j]! += product;
        scale[i * n + j]! += Math.abs(product);
      }
    }
  }
  return { value, scale };
}

/** The largest error in units of the expected rounding of a sum of k terms. */
function worst(got: Float32Array, want: { value: Float64Array; scale: Float64Array }, k: number): number {
  expect(got.length).toBe(want.value.length);
  let most = 0;
  got.forEach((x, i) => {
    const unit = 2 ** -24 * (4 + Math.sqrt(k)) * (want.scale[i]! + 1e-30);
    const error = Math.abs(x - want.value[i]!) / unit;
    most = Math.max(most, error);
  });
  return most;
}

const sameBits = (a: Float32Array, b: Float32Array) =>
  a.length === b.length && Buffer.compare(new Uint8Array(a.buffer), new Uint8Array(b.buffer)) === 0;

beforeAll(async () => {
  device = await openDevice("cpu");
});
afterAll(() => {
  addon().setInstructionSet(instructionSet);
  addon().setThreads(threads);
  addon().setGemm("fastest");
  device.dispose();
});

describe.each(paths)("matmul on %s, GEMM %s", (isa, library) => {
  beforeAll(() => {
    addon().setInstructionSet(isa);
    addon().setGemm(library);
  });

  test.each(sizes)("[%i, %i], k = %i: float64, every transposition, dtype, thread count", async (m, n, k) => {
    for (const [aType, bType] of dtypes) {
      const a = held(random(m * k), aType);
      const b = held(random(k * n), bType);
      const c = random(m * n);
      const want = naive(a, b, m, n, k);
      const wantSum = {
        value: want.value.map((x, i) => x + c[i]!),
        scale: want.scale.map((x, i) => x + Math.abs(c[i]!)),
      };
      for (const [transposeA, transposeB] of transposes) {
        const inputs = { a: matrix(a, m, k, transposeA, aType), b: matrix(b, k, n, transposeB, bType) };
        const results: Float32Array[] = [];
        for (const count of [1, 2]) {
          addon().setThreads(count);
          Tensor.from(device, new Float32Array(m * n).fill(Number.NaN), [m, n]).dispose();
          const plain = await run(device, "matmul", inputs, { transposeA, transposeB });
          const sum = { ...inputs, c: Tensor.from(device, c, [m, n]) };
          const added = await run(device, "matmul", sum, { transposeA, transposeB });
          results.push(await plain.c.readFloats(), await added.c.readFloats());
        }
        expect(worst(results[0]!, want, k)).toBeLessThan(1);
        expect(worst(results[1]!, wantSum, k)).toBeLessThan(1);
        expect(sameBits(results[2]!, results[0]!)).toBe(true);
        expect(sameBits(results[3]!, results[1]!)).toBe(true);
      }
    }
  });

  test.each([
    ["f32", 0],
    ["f32", 37],
    ["bf16", 37],
    ["f32", 576],
    ["bf16", 576],
    ["f32", 3],
  ] as const)("rowInvariant with %s weights, k = %i: a row is the same bits whatever m", async (bType, k) => {
    const m = 33;
    const n = 53;
    const a = random(m * k);
    const b = held(random(k * n), bType);
    const weights = matrix(b, k, n, true, bType);
    const options = { transposeB: true, rowInvariant: true };
    addon().setThreads(2);
    const all = await run(device, "matmul", { a: Tensor.from(device, a, [m, k]), b: weights }, options);
    const whole = await all.c.readFloats();
    expect(worst(whole, naive(a, b, m, n, k), k)).toBeLessThan(1);
    for (let rows = 1; rows <= 5; rows++) {
      for (let i = 0; i + rows <= m; i += rows) {
        const some = Tensor.from(device, a.slice(i * k, (i + rows) * k), [rows, k]);
        const part = await run(device, "matmul", { a: some, b: weights }, options);
        expect(sameBits(await part.c.readFloats(), whole.slice(i * n, (i + rows) * n))).toBe(true);
      }
    }
  });
});

const libraries = new Set(paths.map(([, library]) => library));
if (!reasonAgainstBf16()) libraries.add("bf16");

describe.each([...libraries])("bf16Compute, GEMM %s", (library) => {
  test.each([
    [70, 300, 210],
    [3, 5, 7],
  ])("[%i, %i], k = %i: widens bf16 weights, or rounds a and nothing else", async (m, n, k) => {
    addon().setInstructionSet(instructionSet);
    addon().setGemm(library);
    const a = random(m * k);
    const b = held(random(k * n), "bf16");
    const c = random(m * n);
    const permitted = { builtin: [a], bf16: [held(a, "bf16")] };
    const operands = library in permitted ? permitted[library as "bf16"] : [a, held(a, "bf16")];
    const wants = operands.map((x) => naive(x, b, m, n, k));
    for (const [transposeA, transposeB] of transposes) {
      const inputs = { a: matrix(a, m, k, transposeA, "f32"), b: matrix(b, k, n, transposeB, "bf16") };
      const results: Float32Array[] = [];
      for (const count of [1, 2]) {
        addon().setThreads(count);
        const sum = { ...inputs, c: Tensor.from(device, c, [m, n]) };
        const options = { transposeA, transposeB, bf16Compute: true };
        results.push(await (await run(device, "matmul", inputs, options)).c.readFloats());
        results.push(await (await run(device, "matmul", sum, options)).c.readFloats());
      }
      expect(Math.min(...wants.map((want) => worst(results[0]!, want, k)))).toBeLessThan(1);
      expect(sameBits(results[2]!, results[0]!)).toBe(true);
      expect(sameBits(results[3]!, results[1]!)).toBe(true);
      const added = results[0]!.map((x, i) => x + c[i]!);
      expect(added.every((x, i) => Math.abs(x - results[1]![i]!) <= 1e-5 * (1 + Math.abs(x)))).toBe(true);
    }
  });
});

test("rowInvariant with many rows and few threads", async () => {
  const [m, n, k] = [300, 100, 250];
  const a = random(m * k);
  const b = random(k * n);
  const inputs = { a: Tensor.from(device, a, [m, k]), b: matrix(b, k, n, true, "f32") };
  const results: Float32Array[] = [];
  for (const count of [1, 2]) {
    addon().setThreads(count);
    const { c } = await run(device, "matmul", inputs, { transposeB: true, rowInvariant: true });
    results.push(await c.readFloats());
  }
  expect(worst(results[0]!, naive(a, b, m, n, k), k)).toBeLessThan(1);
  expect(sameBits(results[1]!, results[0]!)).toBe(true);
});

describe("matmul refuses", () => {
  const zeros = (...shape: number[]) => Tensor.zeros(device, shape);
  const refused = (code: string, part: string) =>
    expect.objectContaining({ code, message: expect.stringContaining(part) });

  test("inner sizes that differ", async () => {
    await expect(run(device, "matmul", { a: zeros(2, 3), b: zeros(4, 5) })).rejects.toEqual(
      refused("ERR_SDPO_OP", "inner size 4, but a has 3"),
    );
  });

  test("a sum of another shape", async () => {
    const inputs = { a: zeros(2, 3), b: zeros(3, 5), c: zeros(2, 4) };
    await expect(run(device, "matmul", inputs)).rejects.toEqual(refused("ERR_SDPO_OP", "c"));
  });

  test("rowInvariant without transposeB", async () => {
    const inputs = { a: zeros(2, 3), b: zeros(3, 5) };
    await expect(run(device, "matmul", inputs, { rowInvariant: true })).rejects.toEqual(
      refused("ERR_SDPO_OP", "row_invariant"),
    );
  });
});

test("a GEMM of another name is refused", () => {
  const refused = expect.objectContaining({ code: "ERR_SDPO_ARGUMENT" });
  expect(() => addon().setGemm("blas" as Library)).toThrow(refused);
});

test.skipIf(withOneDnn)("oneDNN is refused where the addon lacks it", () => {
  for (const name of ["onednn", "bf16"] as const)
    expect(() => addon().setGemm(name)).toThrow(expect.objectContaining({ code: "ERR_SDPO_DEVICE" }));
});
