import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { f32, generator, i32, instructionSets, normals, runOp, useInstructionSet } from "./helpers.js";

interface Choice {
  temperature?: number;
  topP?: number;
  minP?: number;
  topK?: number;
}

/** Philox4x32-10 with BigInt: the first word of the block. */
function philox(words: readonly number[]): number[] {
  const mask = 0xffffffffn;
  let [k0, k1, c0, c1, c2, c3] = words.map((w) => BigInt(w >>> 0)) as [
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  for (let round = 0; round < 10; round++) {
    const a = c0 * 0xd2511f53n;
    const b = c2 * 0xcd9e8d57n;
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & mask, (a >> 32n) ^ c3 ^ k1, a & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [c0, c1, c2, c3].map(Number);
}

const uniformOf = (words: readonly number[]) => (philox(words)[0]! + 0.5) / 2 ** 32;

/** The kept tokens with their probabilities, the naive way: sort, then cut. */
function kept(logits: ArrayLike<number>, choice: Choice): Map<number, number> {
  const { temperature = 1, topP = 1, minP = 0, topK = 0 } = choice;
  let most = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) most = Math.max(most, logits[i]!);
  let tokens = Array.from(logits, (z, id) => ({ z, id, p: Math.exp((z - most) / temperature) }));
  tokens.sort((a, b) => b.z - a.z || a.id - b.id);
  if (topK > 0) tokens = tokens.slice(0, topK);
  if (topP < 1) {
    const target = topP * tokens.reduce((sum, t) => sum + t.p, 0);
    let count = 0;
    for (let mass = 0; mass < target; count++) mass += tokens[count]!.p;
    tokens = tokens.slice(0, count);
  }
  tokens = tokens.filter((t) => t.p >= minP * tokens[0]!.p).sort((a, b) => a.id - b.id);
  const total = tokens.reduce((sum, t) => sum + t.p, 0);
  return new Map(tokens.map((t) => [t.id, t.p / total]));
}

function logprob(logits: ArrayLike<number>, id: number, temperature: number): number {
  const z = Array.from(logits, (value) => value / temperature);
  const most = z.reduce((a, b) => Math.max(a, b));
  return z[id]! - most - Math.log(z.reduce((sum, value) => sum + Math.exp(value - most), 0));
}

/** `draws` rows that share their logits and settings, row i with counter (…, i). */
async function sampleMany(logits: ArrayLike<number>, choice: Choice, draws: number, key = 5) {
  const vocabulary = logits.length;
  const { temperature = 1, topP = 1, minP = 0, topK = 0 } = choice;
  const words = Array.from({ length: draws }, (_, i) => [key, 9, 1, 2, 3, i]);
  const repeated = new Float32Array(draws * vocabulary);
  for (let i = 0; i < draws; i++) repeated.set(logits, i * vocabulary);
  const out = await runOp("sample", {
    logits: f32([draws, vocabulary], repeated),
    parameters: f32([draws, 3], Array.from({ length: draws }, () => [temperature, topP, minP]).flat()),
    topK: i32(
      [draws],
      Array.from({ length: draws }, () => topK),
    ),
    counters: i32([draws, 6], words.flat()),
  });
  return { ids: Array.from(out.ids!), logprobs: out.logprobs!, uniforms: words.map(uniformOf) };
}

/** Each id is what the inverse CDF of the naive kept set gives, unless its uniform lies on an edge. */
function expectInverseCdf(ids: number[], uniforms: number[], set: Map<number, number>) {
  let edges = 0;
  ids.forEach((id, i) => {
    let mass = 0;
    let want = -1;
    let gap = 1;
    for (const [token, p] of set) {
      mass += p;
      gap = Math.min(gap, Math.abs(mass - uniforms[i]!));
      if (want < 0 && mass > uniforms[i]!) want = token;
    }
    expect(set.has(id), `row ${i}: ${id} was to be left out`).toBe(true);
    if (gap < 1e-6) edges++;
    else expect(id, `row ${i}, uniform ${uniforms[i]}`).toBe(want);
  });
  expect(edges).toBeLessThan(ids.length / 20 + 2);
}

const cases: [string, Choice][] = [
  ["nothing left out", {}],
  ["temperature", { temperature: 0.6 }],
  ["high temperature", { temperature: 3 }],
  ["top_k", { topK: 7 }],
  ["top_k of many", { topK: 400, temperature: 2 }],
  ["top_k beyond the vocabulary", { topK: 1_000_000 }],
  ["top_k 1", { topK: 1 }],
  ["top_p", { topP: 0.8 }],
  ["top_p small", { topP: 1e-6 }],
  ["top_p near 1", { topP: 0.999, temperature: 1.5 }],
  ["the largest top_p below 1", { topP: 1 - 2 ** -24 }],
  ["min_p", { minP: 0.05 }],
  ["min_p 1", { minP: 1 }],
  ["top_k and top_p", { topK: 20, topP: 0.7 }],
  ["all of them", { temperature: 0.9, topK: 40, topP: 0.95, minP: 0.02 }],
];

describe.each(instructionSets)("sample on %s", (set) => {
  beforeAll(() => useInstructionSet(set));
  afterAll(() => useInstructionSet(instructionSets.at(-1)!));

  describe.each([1, 13, 997])("of %i tokens", (vocabulary) => {
    test.each(cases)("%s", async (_, choice) => {
      const logits = f32([vocabulary], normals(vocabulary, 2)).data;
      const { ids, logprobs, uniforms } = await sampleMany(logits, choice, 60);
      expectInverseCdf(ids, uniforms, kept(logits, choice));
      ids.forEach((id, i) => {
        expect(logprobs[i]).toBeCloseTo(logprob(logits, id, choice.temperature ?? 1), 5);
      });
    });
  });

  test.each(cases)("of equal logits, the lower ids first: %s", async (_, choice) => {
    const draw = generator(3);
    const logits = Float32Array.from({ length: 300 }, () => Math.floor(4 * draw()));
    const { ids, uniforms } = await sampleMany(logits, choice, 60);
    expectInverseCdf(ids, uniforms, kept(logits, choice));
  });

  test.each([{}, { topP: 0.95 }, { topK: 50, topP: 0.9 }, { temperature: 0.7, minP: 0.01 }] as Choice[])(
    "of 151936 tokens with %j",
    async (choice) => {
      const logits = f32([151936], normals(8, 2.5)).data;
      const { ids, uniforms, logprobs } = await sampleMany(logits, choice, 3);
      expectInverseCdf(ids, uniforms, kept(logits, choice));
      expect(logprobs[0]).toBeCloseTo(logprob(logits, ids[0]!, choice.temperature ?? 1), 4);
    },
  );

  test("temperature 0 takes the lowest id of the largest logit", async () => {
    const logits = f32([500], normals(12)).data;
    logits[123] = logits[77] = logits[400] = 9;
    const { ids, logprobs } = await sampleMany(logits, { temperature: 0, topP: 0.1 }, 2);
    expect(ids).toEqual([77, 77]);
    expect(logprobs[0]).toBeCloseTo(logprob(logits, 77, 1), 5);
  });

  test("a token of logit -inf is never drawn", async () => {
    const logits = new Float32Array(40).fill(Number.NEGATIVE_INFINITY);
    logits[3] = 0;
    logits[39] = -1;
    const { ids } = await sampleMany(logits, { temperature: 5 }, 400);
    expect(new Set(ids)).toEqual(new Set([3, 39]));
    const all = await sampleMany(logits, { topK: 30, topP: 0.9999 }, 50);
    expect(all.ids.every((id) => id === 3 || id === 39)).toBe(true);
  });

  test("frequencies follow the distribution (chi-square, 19 degrees of freedom)", async () => {
    const logits = f32([20], normals(13)).data;
    const draws = 40_000;
    const { ids } = await sampleMany(logits, { temperature: 0.8 }, draws, 77);
    const seen = new Array<number>(20).fill(0);
    for (const id of ids) seen[id]!++;
    let chi = 0;
    for (const [id, p] of kept(logits, { temperature: 0.8 }))
      chi += (seen[id]! - draws * p) ** 2 / (draws * p);
    expect(chi).toBeLessThan(50.8); // the 99.99th percentile
    expect(chi).toBeGreaterThan(3.6); // the 0.01th
  });

  test("a row does not depend on the others", async () => {
    const rows = 9;
    const vocabulary = 700;
    const logits = f32([rows, vocabulary], normals(14, 2));
    const parameters = f32(
      [rows, 3],
      Array.from({ length: rows }, (_, i) => [i / 4, 1 - i / 20, i / 100]).flat(),
    );
    const topK = i32(
      [rows],
      Array.from({ length: rows }, (_, i) => i * 7),
    );
    const counters = i32(
      [rows, 6],
      Array.from({ length: rows * 6 }, (_, i) => i * 1234567),
    );
    const all = await runOp("sample", { logits, parameters, topK, counters });
    for (let r = 0; r < rows; r++) {
      const alone = await runOp("sample", {
        logits: f32([1, vocabulary], logits.data.slice(r * vocabulary, (r + 1) * vocabulary)),
        parameters: f32([1, 3], parameters.data.slice(r * 3, r * 3 + 3)),
        topK: i32([1], [topK.data[r]!]),
        counters: i32([1, 6], counters.data.slice(r * 6, r * 6 + 6)),
      });
      expect(alone.ids![0]).toBe(all.ids![r]);
      expect(alone.logprobs![0]).toBe(all.logprobs![r]);
    }
  });
});

describe("sample refuses, naming the row", () => {
  const inf = Number.POSITIVE_INFINITY;
  const ask = (second: number[], choice: [number, number, number], topK = 0) =>
    runOp("sample", {
      logits: f32([2, 3], [1, 2, 3, ...second]),
      parameters: f32([2, 3], [1, 1, 0, ...choice]),
      topK: i32([2], [0, topK]),
      counters: i32([2, 6], new Int32Array(12)),
    });

  test.each([
    [[1, Number.NaN, 2], "logits: row 1: NaN"],
    [[-inf, -inf, -inf], "logits: row 1: the largest is -inf"],
    [[1, inf, 2], "logits: row 1: the largest is inf"],
  ])("logits %j", async (logits, message) => {
    await expect(ask(logits, [1, 1, 0])).rejects.toThrow(message);
    await expect(ask(logits, [0, 1, 0])).rejects.toThrow(message);
  });

  test.each([
    [[-1, 1, 0], "row 1: temperature"],
    [[inf, 1, 0], "row 1: temperature"],
    [[Number.NaN, 1, 0], "row 1: temperature"],
    [[1, 0, 0], "row 1: top_p"],
    [[1, 1.1, 0], "row 1: top_p"],
    [[1, 1, -0.1], "row 1: min_p"],
    [[1, 1, 1.1], "row 1: min_p"],
  ] as [[number, number, number], string][])("parameters %j", async (choice, message) => {
    await expect(ask([1, 2, 3], choice)).rejects.toThrow(message);
  });

  test("a negative top_k", async () => {
    await expect(ask([1, 2, 3], [1, 1, 0], -1)).rejects.toThrow("top_k: row 1: expected at least 0, got -1");
  });
});

test("philox gives the known answers of Random123 and of another implementation", async () => {
  const pi = [0xa4093822, 0x299f31d0, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
  const inputs = [
    new Array<number>(6).fill(0),
    new Array<number>(6).fill(0xffffffff),
    pi,
    [1, 2, 3, 4, 5, 6],
  ];
  const { words } = await runOp("philox", {
    counters: i32(
      [4, 6],
      inputs.flat().map((w) => w | 0),
    ),
  });
  const hex = Array.from(words!, (w) => (w >>> 0).toString(16).padStart(8, "0"));
  expect(hex.slice(0, 12)).toEqual([
    ...["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"],
    ...["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"],
    ...["d16cfe09", "94fdcceb", "5001e420", "24126ea1"],
  ]);
  expect(Array.from(words!.slice(12), (w) => w >>> 0)).toEqual(philox(inputs[3]!));
});
