import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  expectClose,
  f32,
  type Host,
  i32,
  instructionSets,
  normals,
  runOp,
  useInstructionSet,
} from "./helpers.js";

const frequencies = (half: number) =>
  f32(
    [half],
    Array.from({ length: half }, (_, f) => 10000 ** (-f / half)),
  );

function rotated(x: Host, positions: number[], invFreq: Host, factor: number, sign: number): Float64Array {
  const [, heads, size] = x.shape as [number, number, number];
  const half = size / 2;
  const y = Float64Array.from(x.data);
  positions.forEach((position, t) => {
    for (let h = 0; h < heads; h++) {
      for (let f = 0; f < half; f++) {
        const angle = Math.fround(position * invFreq.data[f]!);
        const c = Math.cos(angle) * factor;
        const s = Math.sin(angle) * factor * sign;
        const low = (t * heads + h) * size + f;
        y[low] = x.data[low]! * c - x.data[low + half]! * s;
        y[low + half] = x.data[low + half]! * c + x.data[low]! * s;
      }
    }
  });
  return y;
}

describe.each(instructionSets)("rope on %s", (set) => {
  beforeAll(() => useInstructionSet(set));
  afterAll(() => useInstructionSet(instructionSets.at(-1)!));

  test.each([
    [3, 2, 2],
    [5, 3, 34],
    [4, 9, 64],
    [70, 2, 128],
  ])("[%i, %i, %i], both directions", async (tokens, heads, size) => {
    const x = f32([tokens, heads, size], normals(tokens));
    const places = Array.from({ length: tokens }, (_, t) => (t * 7919) % 131072);
    const invFreq = frequencies(size / 2);
    for (const inverse of [false, true]) {
      const expected = rotated(x, places, invFreq, 1.25, inverse ? -1 : 1);
      const { x: y } = await runOp(
        "rope",
        { x, positions: i32([tokens], places), invFreq },
        { attentionFactor: 1.25, inverse },
      );
      expectClose(y!, expected, 1e-6);
    }
  });

  test("the cosine and sine are right to the last place or the one beside it", async () => {
    const half = 48;
    const places = [0, 1, 2, 3, 1000, 32767, 131071, 1048575];
    const x = f32(
      [places.length, 1, 2 * half],
      Array.from({ length: places.length * 2 * half }, (_, i) => (i % (2 * half) < half ? 1 : 0)),
    );
    const invFreq = frequencies(half);
    const { x: y } = await runOp("rope", { x, positions: i32([places.length], places), invFreq });
    for (let i = 0; i < y!.length; i++) {
      const f = i % half;
      const angle = Math.fround(places[Math.floor(i / (2 * half))]! * invFreq.data[f]!);
      const exact = i % (2 * half) < half ? Math.cos(angle) : Math.sin(angle);
      expect(Math.abs(y![i]! - exact)).toBeLessThanOrEqual(2 ** -23 * Math.abs(exact));
    }
  });

  test("the inverse undoes it", async () => {
    const x = f32([6, 2, 20], normals(5));
    const positions = i32([6], [0, 5, 17, 100, 4000, 9]);
    const there = await runOp("rope", { x, positions, invFreq: frequencies(10) });
    const back = await runOp(
      "rope",
      { x: f32([6, 2, 20], there.x!), positions, invFreq: frequencies(10) },
      { inverse: true },
    );
    expectClose(back.x!, x.data, 1e-6);
  });
});

test("the number of frequencies must be half the head size", async () => {
  const x = f32([1, 1, 8], normals(1));
  await expect(runOp("rope", { x, positions: i32([1], [0]), invFreq: frequencies(3) })).rejects.toThrow(
    "[rope] inv_freq: expected 4 frequencies for heads of 8, got 3",
  );
});
