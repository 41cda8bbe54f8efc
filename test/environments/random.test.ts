import { describe, expect, test } from "vitest";
import { Random, shuffled } from "../../lib/environments/random.js";

describe("Random", () => {
  // Expected numbers: sfc32 written independently in Python, the seed in its first two words, the stream in the third.
  test.each([
    { seed: 0, stream: 0, expected: [947923937, 2491578854, 3964400089, 2091952393] },
    { seed: 7, stream: 0, expected: [3891143111, 2994695642, 1852364411, 1948228013] },
    { seed: 2 ** 53 - 1, stream: 2 ** 32 - 1, expected: [2228909368, 1976297037, 2316481001, 830113521] },
  ])("gives sfc32's numbers for seed $seed, stream $stream", ({ seed, stream, expected }) => {
    const random = new Random(seed, stream);
    expect(expected.map(() => random.uint32())).toEqual(expected);
  });

  test("stays right after a thousand numbers", () => {
    const random = new Random(3);
    for (let i = 0; i < 1000; i++) random.uint32();
    expect(random.uint32()).toBe(2326730193);
  });

  test("below() is even: chi-square of 60,000 throws of seven sides is under 22.5 (p = 0.001)", () => {
    const random = new Random(11);
    const counts = Array.from({ length: 7 }, () => 0);
    for (let i = 0; i < 60_000; i++) counts[random.below(7)]! += 1;
    const expected = 60_000 / 7;
    expect(counts.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0)).toBeLessThan(22.5);
  });

  test("below() has no bias where n is not far from 2^32", () => {
    const random = new Random(13);
    const low = Array.from({ length: 6000 }, () => random.below(3 * 2 ** 30)).filter(
      (value) => value < 2 ** 30,
    );
    expect(Math.abs(low.length - 2000)).toBeLessThan(150);
  });

  test("uniform() is in [0, 1) with mean one half", () => {
    const random = new Random(12);
    const values = Array.from({ length: 20_000 }, () => random.uniform());
    expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...values)).toBeLessThan(1);
    expect(values.reduce((a, b) => a + b) / values.length).toBeCloseTo(0.5, 1);
  });

  test("sample() takes different places", () => {
    const items = Array.from({ length: 72 }, (_, i) => i);
    expect(new Set(new Random(1).sample(items, 40)).size).toBe(40);
    expect(items).toHaveLength(72);
  });

  test.each([-1, 0.5, Number.NaN, 2 ** 53])("refuses the seed %d", (seed) => {
    expect(() => new Random(seed)).toThrow(expect.objectContaining({ code: "ERR_SDPO_ARGUMENT" }));
  });
});

describe("shuffled", () => {
  const items = Array.from({ length: 50 }, (_, i) => i);

  test("keeps every item, the same order for the same seed, another for another seed or stream", () => {
    const order = shuffled(items, 5);
    expect([...order].sort((a, b) => a - b)).toEqual(items);
    expect(shuffled(items, 5)).toEqual(order);
    expect(shuffled(items, 6)).not.toEqual(order);
    expect(shuffled(items, 5, 1)).not.toEqual(order);
  });

  test("puts each item at each place alike: chi-square of 24,000 orders of four is under 49.7 (23 degrees)", () => {
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 24_000; seed++) {
      const key = shuffled([0, 1, 2, 3], seed).join("");
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    expect(counts.size).toBe(24);
    expect([...counts.values()].reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0)).toBeLessThan(49.7);
  });
});
