import { describe, expect, test } from "vitest";
import { run } from "../../lib/native/run.js";
import {
  configured,
  cpu,
  digest,
  floats,
  type Inputs,
  instructionSets,
  integer,
  naiveAttention,
  random,
  randomForest,
  type Segment,
  type Sizes,
  segmentTensor,
  tensor,
  visibleRows,
  worst,
} from "./attention-oracle.js";

interface Options {
  window?: number;
  scale?: number | null;
}

function tensors({ q, k, v }: Inputs, { T, H, K, E }: Sizes) {
  return { q: tensor(q, T, H, E), k: tensor(k, T, K, E), v: tensor(v, T, K, E) };
}

async function forward(inputs: Inputs, sizes: Sizes, segments: Segment[], options: Options = {}) {
  const given = { ...tensors(inputs, sizes), segments: segmentTensor(segments) };
  const { out, lse } = await run(cpu, "attention_fwd", given, options);
  return { out: await out.readFloats(), lse: await lse.readFloats() };
}

async function gradients(
  inputs: Inputs,
  sizes: Sizes,
  segments: Segment[],
  dout: Float32Array,
  options: Options = {},
) {
  const given = { ...tensors(inputs, sizes), segments: segmentTensor(segments) };
  const { out, lse } = await run(cpu, "attention_fwd", given, options);
  const { T, H, E } = sizes;
  const result = await run(
    cpu,
    "attention_bwd",
    { ...given, out, lse, dout: tensor(dout, T, H, E) },
    options,
  );
  return {
    dq: await result.dq.readFloats(),
    dk: await result.dk.readFloats(),
    dv: await result.dv.readFloats(),
  };
}

const randomInputs = (next: () => number, { T, H, K, E }: Sizes, size = 1): Inputs => ({
  q: floats(next, T * H * E, size * 2),
  k: floats(next, T * K * E, size * 2),
  v: floats(next, T * K * E, size),
});

const HEADS = [
  [1, 1],
  [4, 4],
  [9, 3],
  [6, 1],
  [5, 1],
  [4, 2],
  [100, 1],
] as const;
const WIDTHS = [8, 12, 14, 16, 20, 32, 33, 64, 80, 128, 256];

/** A forest with its inputs; the seed picks sizes, heads, width, window. */
function randomCase(seed: number) {
  const next = random(seed);
  const [H, K] = HEADS[seed % HEADS.length]!;
  const E = WIDTHS[seed % WIDTHS.length]!;
  const longest = H * E > 2000 ? 12 : seed % 4 === 0 ? 150 : 40;
  const { segments, T } = randomForest(next, integer(next, 1, 12), longest);
  const sizes = { T, H, K, E };
  const window = seed % 3 === 0 ? integer(next, 1, 90) : 0;
  const scale = 1 / Math.sqrt(E);
  const inputs = randomInputs(next, sizes);
  const dout = floats(next, T * H * E);
  const naive = () => naiveAttention(inputs, sizes, visibleRows(segments, T, window), scale, dout);
  return { sizes, segments, window, scale, inputs, dout, naive };
}

const expectations = new Map<number, ReturnType<typeof naiveAttention>>();

describe.each(instructionSets)("attention on %s", (instructionSet) => {
  test.each(Array.from({ length: 22 }, (_, i) => i))("forest %i equals float64", async (seed) => {
    const { sizes, segments, window, scale, inputs, dout, naive: compute } = randomCase(seed);
    const naive = expectations.get(seed) ?? compute();
    expectations.set(seed, naive);
    const { out, lse } = await configured({ instructionSet }, () =>
      forward(inputs, sizes, segments, { window, scale }),
    );
    expect(worst(out, naive.out)).toBeLessThan(3e-6);
    expect(worst(lse, naive.lse)).toBeLessThan(3e-6);
    const result = await configured({ instructionSet }, () =>
      gradients(inputs, sizes, segments, dout, { window, scale }),
    );
    expect(worst(result.dq, naive.dq)).toBeLessThan(1e-5);
    expect(worst(result.dk, naive.dk)).toBeLessThan(1e-5);
    expect(worst(result.dv, naive.dv)).toBeLessThan(1e-5);
  });

  test("a shared prompt equals separate sequences", async () => {
    const { tree, separate, expanded, copies } = sharedPrompt();
    const [one, many] = await configured({ instructionSet }, () =>
      Promise.all([
        forward(tree.inputs, tree.sizes, tree.segments),
        forward(separate.inputs, separate.sizes, separate.segments),
      ]),
    );
    // Rows of a tree have the bits of the same rows in sequences of their own.
    const { H, E, T } = separate.sizes;
    expect(many.out.length).toBe(T * H * E);
    expect(digest(expanded(one.out, H * E), expanded(one.lse, H))).toBe(digest(many.out, many.lse));

    const next = random(77);
    const perCopy = floats(next, many.out.length);
    const summed = collect(perCopy, copies, tree.sizes.T);
    const [shared, apart] = await configured({ instructionSet }, () =>
      Promise.all([
        gradients(tree.inputs, tree.sizes, tree.segments, Float32Array.from(summed)),
        gradients(separate.inputs, separate.sizes, separate.segments, perCopy),
      ]),
    );
    for (const name of ["dq", "dk", "dv"] as const)
      expect(worst(shared[name], collect(apart[name], copies, tree.sizes.T))).toBeLessThan(1e-5);
  });

  test("the number of threads changes no bit", async () => {
    for (const seed of [0, 4, 8]) {
      const { sizes, segments, window, inputs, dout } = randomCase(seed);
      const results = [];
      for (const threads of [1, 2, 5])
        results.push(
          await configured({ instructionSet, threads }, async () => {
            const { out, lse } = await forward(inputs, sizes, segments, { window });
            const { dq, dk, dv } = await gradients(inputs, sizes, segments, dout, { window });
            return digest(out, lse, dq, dk, dv);
          }),
        );
      expect(new Set(results).size).toBe(1);
    }
  });

  test("every window around the edges of blocks", async () => {
    const sizes = { T: 200, H: 1, K: 1, E: 8 };
    const next = random(12);
    const inputs = randomInputs(next, sizes);
    const dout = floats(next, 200 * 8);
    for (const [window, prompt] of [1, 2, 31, 63, 64, 65, 66, 96, 97, 127, 128, 129, 130, 199].flatMap((w) =>
      [0, 1, 64, 67, 100].map((p) => [w, p] as const),
    )) {
      const segments: Segment[] = [
        [0, prompt, -1, 0],
        [prompt, 200 - prompt, 0, prompt],
      ];
      const naive = naiveAttention(inputs, sizes, visibleRows(segments, 200, window), 0.5, dout);
      const options = { window, scale: 0.5 };
      await configured({ instructionSet }, async () => {
        expect(worst((await forward(inputs, sizes, segments, options)).out, naive.out)).toBeLessThan(3e-6);
        const result = await gradients(inputs, sizes, segments, dout, options);
        for (const name of ["dq", "dk", "dv"] as const)
          expect(worst(result[name], naive[name])).toBeLessThan(1e-5);
      });
    }
  });

  test("what a row does not see changes no bit of it", async () => {
    const sizes = { T: 130, H: 2, K: 1, E: 16 };
    const inputs = randomInputs(random(15), sizes);
    const first = (x: Float32Array, width: number) => x.slice(0, 100 * width);
    const alone = { q: first(inputs.q, 32), k: first(inputs.k, 16), v: first(inputs.v, 16) };
    inputs.v.fill(3e38, 100 * 16);
    await configured({ instructionSet }, async () => {
      const all = await forward(inputs, sizes, [[0, 130, -1, 0]]);
      const expected = await forward(alone, { ...sizes, T: 100 }, [[0, 100, -1, 0]]);
      expect(digest(first(all.out, 32), first(all.lse, 2))).toBe(digest(expected.out, expected.lse));
    });
  });

  test("large scores and values", async () => {
    const sizes = { T: 130, H: 2, K: 1, E: 16 };
    const inputs = randomInputs(random(5), sizes, 100);
    inputs.v.fill(1e4, 0, 320);
    const segments: Segment[] = [[0, 130, -1, 0]];
    const naive = naiveAttention(inputs, sizes, visibleRows(segments, 130, 0), 1);
    const { out, lse } = await configured({ instructionSet }, () =>
      forward(inputs, sizes, segments, { scale: 1 }),
    );
    expect(out.every(Number.isFinite)).toBe(true);
    // Scores near 1e5: float32 leaves them an error of 1e-2, which is what the weights feel.
    expect(worst(lse, naive.lse)).toBeLessThan(1e-6);
    expect(worst(out, naive.out)).toBeLessThan(2e-2);
  });
});

/** A prompt with three answers, one of them with two continuations; and the four sequences of that tree. */
function sharedPrompt() {
  const segments: Segment[] = [
    [0, 70, -1, 0],
    [70, 31, 0, 70],
    [101, 5, 0, 70],
    [106, 64, 0, 70],
    [170, 20, 2, 75],
    [190, 33, 2, 75],
  ];
  const paths = [
    [0, 1],
    [0, 3],
    [0, 2, 4],
    [0, 2, 5],
  ];
  const sizes = { T: 223, H: 6, K: 2, E: 24 };
  const inputs = randomInputs(random(31), sizes);
  const copies: number[] = [];
  const sequences: Segment[] = paths.map((path) => {
    const start = copies.length;
    for (const s of path) for (let i = 0; i < segments[s]![1]; i++) copies.push(segments[s]![0] + i);
    return [start, copies.length - start, -1, 0];
  });
  const expanded = (rows: Float32Array, width: number) =>
    Float32Array.from(copies.flatMap((row) => Array.from(rows.subarray(row * width, (row + 1) * width))));
  const { H, K, E } = sizes;
  return {
    tree: { inputs, sizes, segments },
    separate: {
      inputs: {
        q: expanded(inputs.q, H * E),
        k: expanded(inputs.k, K * E),
        v: expanded(inputs.v, K * E),
      },
      sizes: { ...sizes, T: copies.length },
      segments: sequences,
    },
    expanded,
    copies,
  };
}

/** Adds up the rows that are copies of the same row. */
function collect(rows: ArrayLike<number>, copies: number[], T: number): Float64Array {
  const width = rows.length / copies.length;
  const sums = new Float64Array(T * width);
  copies.forEach((row, i) => {
    for (let e = 0; e < width; e++) sums[row * width + e]! += rows[i * width + e]!;
  });
  return sums;
}

test("finite differences", async () => {
  const next = random(9);
  const sizes = { T: 11, H: 2, K: 1, E: 8 };
  const segments: Segment[] = [
    [0, 4, -1, 0],
    [4, 3, 0, 4],
    [7, 4, 0, 4],
  ];
  const inputs = randomInputs(next, sizes);
  const dout = floats(next, sizes.T * sizes.H * sizes.E);
  const visible = visibleRows(segments, sizes.T, 5);
  const loss = (point: { [name in keyof Inputs]: Float64Array }) => {
    const { out } = naiveAttention(point, sizes, visible, 0.4);
    return out.reduce((sum, x, i) => sum + x * dout[i]!, 0);
  };
  const result = await gradients(inputs, sizes, segments, dout, { window: 5, scale: 0.4 });
  for (const name of ["q", "k", "v"] as const) {
    const numeric = inputs[name].map((_, i) => {
      const at = (step: number) => {
        const point = {
          q: Float64Array.from(inputs.q),
          k: Float64Array.from(inputs.k),
          v: Float64Array.from(inputs.v),
        };
        point[name][i]! += step;
        return loss(point);
      };
      return (at(1e-5) - at(-1e-5)) / 2e-5;
    });
    expect(worst(result[`d${name}`], numeric)).toBeLessThan(1e-5);
  }
});

test("scale null is 1 / sqrt(E); an empty batch gives empty results", async () => {
  const sizes = { T: 9, H: 2, K: 2, E: 20 };
  const inputs = randomInputs(random(2), sizes);
  const segments: Segment[] = [[0, 9, -1, 3]];
  const plain = await forward(inputs, sizes, segments);
  expect(plain).toEqual(await forward(inputs, sizes, segments, { scale: 1 / Math.sqrt(20), window: 9 }));
  const none = { T: 0, H: 2, K: 2, E: 20 };
  const empty = await forward(randomInputs(random(2), none), none, []);
  expect(empty.out.length).toBe(0);
  expect((await gradients(randomInputs(random(2), none), none, [[0, 0, -1, 0]], empty.out)).dk.length).toBe(
    0,
  );
});

describe("refused", () => {
  const refuse = async (segments: Segment[], message: RegExp, sizes: Sizes = { T: 10, H: 2, K: 1, E: 8 }) => {
    const inputs = randomInputs(random(1), sizes);
    const expected = { code: "ERR_SDPO_OP", message: expect.stringMatching(message) };
    await expect(forward(inputs, sizes, segments)).rejects.toMatchObject(expected);
    const { T, H, E } = sizes;
    const dout = tensor(floats(random(1), T * H * E), T, H, E);
    const lse = tensor(new Float32Array(T * H), T, H);
    const given = { ...tensors(inputs, sizes), segments: segmentTensor(segments), out: dout, lse, dout };
    await expect(run(cpu, "attention_bwd", given)).rejects.toMatchObject(expected);
  };
  const cases: [string, Segment[], RegExp][] = [
    ["a start below 0", [[-1, 10, -1, 0]], /segments\[0\]: start -1, length 10.*10/],
    [
      "a length below 0",
      [
        [0, 10, -1, 0],
        [5, -2, -1, 0],
      ],
      /segments\[1\]: start 5, length -2/,
    ],
    ["rows past the end", [[0, 11, -1, 0]], /segments\[0\]: start 0, length 11: expected rows within.*10/],
    ["a start near 2^31", [[2147483647, 2147483647, -1, 0]], /segments\[0\]: start 2147483647/],
    ["a parent below -1", [[0, 10, -2, 0]], /segments\[0\]: parent -2: expected -1 or an earlier segment/],
    [
      "a segment as its own parent",
      [
        [0, 5, -1, 0],
        [5, 5, 1, 5],
      ],
      /segments\[1\]: parent 1/,
    ],
    [
      "a later parent",
      [
        [0, 5, 1, 5],
        [5, 5, -1, 0],
      ],
      /segments\[0\]: parent 1/,
    ],
    [
      "a position that is not the parent's end",
      [
        [0, 5, -1, 0],
        [5, 5, 0, 4],
      ],
      /segments\[1\]: position 4: expected 5/,
    ],
    [
      "a position past the parent's end",
      [
        [0, 5, -1, 0],
        [5, 5, 0, 6],
      ],
      /segments\[1\]: position 6: expected 5/,
    ],
    ["a position below 0", [[0, 10, -1, -3]], /segments\[0\]: position -3/],
    ["positions past 2^31", [[0, 10, -1, 2147483640]], /segments\[0\]: position 2147483640/],
    [
      "overlapping segments",
      [
        [0, 6, -1, 0],
        [5, 5, -1, 0],
      ],
      /segments\[1\]: row 5 is also in segment 0/,
    ],
    [
      "a row in no segment",
      [
        [0, 4, -1, 0],
        [5, 5, -1, 0],
      ],
      /row 4 of 10 is in no segment/,
    ],
    ["no segments", [], /row 0 of 10 is in no segment/],
  ];
  test.each(cases)("%s", async (_, segments, message) => {
    await refuse(segments, message);
  });

  test("heads that are no multiple of kv heads", async () => {
    await refuse([[0, 10, -1, 0]], /H = 3, kv heads K = 2/, { T: 10, H: 3, K: 2, E: 8 });
  });

  test("a window below 0 and a scale that is no number", async () => {
    const sizes = { T: 10, H: 2, K: 1, E: 8 };
    const inputs = randomInputs(random(1), sizes);
    const segments: Segment[] = [[0, 10, -1, 0]];
    await expect(forward(inputs, sizes, segments, { window: -1 })).rejects.toThrow(/window.*-1/);
    await expect(forward(inputs, sizes, segments, { window: 1.5 })).rejects.toThrow(/window.*1.5/);
    await expect(forward(inputs, sizes, segments, { scale: Number.NaN })).rejects.toThrow(/scale/);
  });
});
