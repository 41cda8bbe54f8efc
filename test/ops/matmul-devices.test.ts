// matmul on other devices than the CPU, against the CPU's (which matmul.test.ts holds against float64).
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Device, openDevice } from "../../lib/native/device.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { f32, normals } from "./helpers.js";
import { resetTarget, targetsOf, useTarget } from "./targets.js";

const cpu = await openDevice("cpu");
const devices = targetsOf("matmul").filter(({ device }) => device.name !== "cpu");
afterAll(resetTarget);

/** m, n, k: nothing, one, odd, around tiles of 64 and steps of 16 and 32. */
const sizes = [
  [0, 5, 3],
  [4, 3, 0],
  [1, 1, 1],
  [3, 2, 17],
  [5, 13, 33],
  [64, 64, 32],
  [65, 63, 31],
  [130, 101, 70],
] as const;
const dtypes = ["f32", "bf16"] as const;

describe.each(devices)("matmul on $name", (target) => {
  let device: Device;
  beforeAll(() => {
    device = useTarget(target);
  });

  test.each(sizes)("%i x %i x %i: every dtype and transpose, alone and added", async (m, n, k) => {
    const stored = (d: Device, rows: number, columns: number, flip: boolean, dtype: "f32" | "bf16") =>
      Tensor.from(
        d,
        f32([rows, columns], normals(rows + columns)).data as Float32Array,
        flip ? [columns, rows] : [rows, columns],
        {
          dtype,
        },
      );
    for (const aType of dtypes)
      for (const bType of dtypes)
        for (const transposeA of [false, true])
          for (const transposeB of [false, true]) {
            const product = async (d: Device, c: boolean) => {
              const inputs = {
                a: stored(d, m, k, transposeA, aType),
                b: stored(d, k, n, transposeB, bType),
                ...(c && { c: Tensor.from(d, f32([m, n], normals(9)).data as Float32Array, [m, n]) }),
              };
              return (await run(d, "matmul", inputs, { transposeA, transposeB })).c.readFloats();
            };
            for (const add of [false, true]) {
              const got = await product(device, add);
              const expected = await product(cpu, add);
              expect(got.length).toBe(m * n);
              const bound = 1e-5 * (1 + Math.sqrt(k));
              expect(got.every((x, i) => Math.abs(x - expected[i]!) <= bound)).toBe(true);
            }
          }
  });

  test("row_invariant: a row alone has the bits that it has among others", async () => {
    const [m, n, k] = [70, 66, 45];
    const rows = f32([m, k], normals(3)).data as Float32Array;
    const b = Tensor.from(device, f32([n, k], normals(4)).data as Float32Array, [n, k]);
    const product = async (data: Float32Array, count: number) => {
      const a = Tensor.from(device, data, [count, k]);
      const out = await run(device, "matmul", { a, b }, { transposeB: true, rowInvariant: true });
      return out.c.readFloats();
    };
    const all = await product(rows, m);
    const one = await product(rows.slice(67 * k, 68 * k), 1);
    expect(one).toEqual(all.slice(67 * n, 68 * n));
  });
});
