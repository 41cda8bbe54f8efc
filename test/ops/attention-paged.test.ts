import { describe, expect, test } from "vitest";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import {
  configured,
  cpu,
  digest,
  floats,
  instructionSets,
  integer,
  naiveAttention,
  type Random,
  random,
  segmentTensor,
  tensor,
  worst,
} from "./attention-oracle.js";

interface Sizes {
  H: number;
  K: number;
  E: number;
}

interface Options {
  window?: number;
  scale?: number | null;
}

/** A cache: pages of `pageTokens` tokens and, by sequence, (page, tokens in it). */
interface Cache {
  pageTokens: number;
  pages: [number, number][][];
  k: Float32Array;
  v: Float32Array;
}

/** Puts each sequence's keys and values into pages in random order; what is not used holds NaN. */
function fillPages(
  next: Random,
  sequences: { k: Float32Array; v: Float32Array }[],
  { K, E }: Sizes,
  pageTokens: number,
  partial: boolean,
): Cache {
  const size = K * E;
  const pages = sequences.map(({ k }) => {
    const list: [number, number][] = [];
    for (let left = k.length / size; left > 0; ) {
      const count = Math.min(left, partial ? integer(next, 0, pageTokens) : pageTokens);
      list.push([0, count]);
      left -= count;
    }
    return list;
  });
  const all = pages.flat();
  const order = all.map((entry) => ({ entry, key: next() })).sort((a, b) => a.key - b.key);
  order.forEach(({ entry }, id) => {
    entry[0] = id + 1;
  });
  const count = (all.length + 2) * pageTokens * size;
  const cache = {
    pageTokens,
    pages,
    k: new Float32Array(count).fill(Number.NaN),
    v: new Float32Array(count),
  };
  cache.v.fill(Number.NaN);
  pages.forEach((list, s) => {
    let token = 0;
    for (const [page, tokens] of list) {
      const [from, to] = [token * size, (token + tokens) * size];
      cache.k.set(sequences[s]!.k.subarray(from, to), page * pageTokens * size);
      cache.v.set(sequences[s]!.v.subarray(from, to), page * pageTokens * size);
      token += tokens;
    }
  });
  return cache;
}

async function paged(
  q: Float32Array,
  cache: Cache,
  rows: [number, number][],
  { H, K, E }: Sizes,
  options: Options = {},
) {
  const starts = [0];
  for (const list of cache.pages) starts.push(starts.at(-1)! + list.length);
  const pages = cache.pages.flat(2);
  const shape = [cache.k.length / (cache.pageTokens * K * E), cache.pageTokens, K, E];
  const { out } = await run(
    cpu,
    "attention_paged",
    {
      q: tensor(q, rows.length, H, E),
      kPages: tensor(cache.k, ...shape),
      vPages: tensor(cache.v, ...shape),
      rows: tensor(Int32Array.from(rows.flat()), rows.length, 2),
      pageStarts: tensor(Int32Array.from(starts), starts.length),
      pages: tensor(Int32Array.from(pages), pages.length / 2, 2),
    },
    options,
  );
  return out.readFloats();
}

const SHAPES: (Sizes & { window: number; pageTokens: number })[] = [
  { H: 9, K: 3, E: 64, window: 0, pageTokens: 16 },
  { H: 4, K: 4, E: 12, window: 0, pageTokens: 1 },
  { H: 4, K: 1, E: 14, window: 33, pageTokens: 7 },
  { H: 2, K: 2, E: 32, window: 1, pageTokens: 64 },
  { H: 100, K: 1, E: 16, window: 0, pageTokens: 5 },
  { H: 7, K: 1, E: 80, window: 100, pageTokens: 128 },
  { H: 1, K: 1, E: 256, window: 0, pageTokens: 32 },
];

function randomCase(index: number) {
  const next = random(100 + index);
  const { window, pageTokens, ...sizes } = SHAPES[index]!;
  const { H, K, E } = sizes;
  const lengths = [integer(next, 1, 9), 200, integer(next, 60, 70), 64, 128].slice(0, H > 9 ? 3 : 5);
  const sequences = lengths.map((n) => ({ k: floats(next, n * K * E, 2), v: floats(next, n * K * E) }));
  const rows = lengths.flatMap((n, s) => {
    const count = s === 1 ? 40 : integer(next, 1, 4);
    return Array.from({ length: count }, () => [s, integer(next, 1, n)] as [number, number]);
  });
  const q = floats(next, rows.length * H * E, 2);
  return { next, sizes, window, pageTokens, sequences, rows, q };
}

/** The oracle sees each row as a token of a batch in which every cached token has a row. */
function naive({ sizes, window, sequences, rows, q }: ReturnType<typeof randomCase>, scale: number) {
  const { H, K, E } = sizes;
  const size = K * E;
  return rows.flatMap(([s, visible], n) => {
    const last = visible - 1;
    const first = window ? Math.max(0, visible - window) : 0;
    const T = visible;
    const full = new Float32Array(T * H * E);
    full.set(q.subarray(n * H * E, (n + 1) * H * E), last * H * E);
    const seen = Array.from({ length: T }, (_, t) =>
      t === last ? Array.from({ length: visible - first }, (_, j) => first + j) : [t],
    );
    const { k, v } = sequences[s]!;
    const inputs = { q: full, k: k.subarray(0, T * size), v: v.subarray(0, T * size) };
    return Array.from(naiveAttention(inputs, { T, H, K, E }, seen, scale).out.subarray(last * H * E));
  });
}

describe.each(instructionSets)("paged attention on %s", (instructionSet) => {
  test.each(SHAPES.map((shape, i) => [JSON.stringify(shape), i] as const))("%s", async (_, index) => {
    const given = randomCase(index);
    const { next, sizes, window, pageTokens, sequences, rows, q } = given;
    const options = { window, scale: 0.2 };
    await configured({ instructionSet }, async () => {
      const cache = fillPages(next, sequences, sizes, pageTokens, false);
      const out = await paged(q, cache, rows, sizes, options);
      expect(worst(out, naive(given, 0.2))).toBeLessThan(5e-6);

      // Any cut into pages, full or partly filled, gives the same bits.
      for (const tokens of [pageTokens, 3, 50]) {
        const cut = fillPages(next, sequences, sizes, tokens, true);
        expect(digest(await paged(q, cut, rows, sizes, options))).toBe(digest(out));
      }
      // So does each row by itself, and the rows in another order.
      const width = sizes.H * sizes.E;
      const row = (x: Float32Array, n: number) => x.subarray(n * width, (n + 1) * width);
      const order = rows.map((_, n) => n).sort((a, b) => ((a * 7919) % 31) - ((b * 7919) % 31));
      const mixed = await paged(
        Float32Array.from(order.flatMap((n) => Array.from(row(q, n)))),
        cache,
        order.map((n) => rows[n]!),
        sizes,
        options,
      );
      for (const [at, n] of order.entries()) {
        expect(digest(row(mixed, at))).toBe(digest(row(out, n)));
        if (at % 5) continue;
        const alone = await paged(Float32Array.from(row(q, n)), cache, [rows[n]!], sizes, options);
        expect(digest(alone)).toBe(digest(row(out, n)));
      }
    });
    for (const threads of [1, 2, 7]) {
      const cache = fillPages(next, sequences, sizes, pageTokens, true);
      const again = await configured({ instructionSet, threads }, () =>
        paged(q, cache, rows, sizes, options),
      );
      const once = await configured({ instructionSet }, () => paged(q, cache, rows, sizes, options));
      expect(digest(again)).toBe(digest(once));
    }
  });

  test("stored and attended to in one go or token by token: the bits of attention_fwd", async () => {
    const [T, H, K, E, B] = [150, 6, 2, 20, 16] as const;
    const next = random(3);
    const [q, k, v] = [floats(next, T * H * E, 2), floats(next, T * K * E, 2), floats(next, T * K * E)];
    const window = 70;
    const order = Array.from({ length: 10 }, (_, i) => (i * 7) % 10);
    const pages = Int32Array.from(order.flatMap((page, i) => [page, i === 9 ? T - 9 * B : B]));
    await configured({ instructionSet }, async () => {
      const inputs = { q: tensor(q, T, H, E), k: tensor(k, T, K, E), v: tensor(v, T, K, E) };
      const segments = segmentTensor([[0, T, -1, 0]]);
      const expected = await run(cpu, "attention_fwd", { ...inputs, segments }, { window });
      for (const step of [T, 1]) {
        const nothing = new Float32Array(10 * B * K * E).fill(Number.NaN);
        const cache = { kPages: tensor(nothing, 10, B, K, E), vPages: tensor(nothing, 10, B, K, E) };
        const parts: Float32Array[] = [];
        for (let t = 0; t < T; t += step) {
          const tokens = Array.from({ length: step }, (_, i) => t + i);
          const slots = Int32Array.from(tokens, (i) => order[Math.floor(i / B)]! * B + (i % B));
          const rows = Int32Array.from(tokens.flatMap((i) => [0, i + 1]));
          const given = { k: inputs.k.rows(t, t + step), v: inputs.v.rows(t, t + step) };
          await run(cpu, "kv_store", { ...given, slots: tensor(slots, step), ...cache });
          const table = { pageStarts: tensor(Int32Array.from([0, 10]), 2), pages: tensor(pages, 10, 2) };
          const row = { q: inputs.q.rows(t, t + step), rows: tensor(rows, step, 2) };
          const { out } = await run(cpu, "attention_paged", { ...row, ...cache, ...table }, { window });
          parts.push(await out.readFloats());
        }
        expect(digest(...parts)).toBe(digest(await expected.out.readFloats()));
      }
    });
  });

  test("bfloat16 pages", async () => {
    const sizes = { H: 4, K: 2, E: 21 };
    const next = random(6);
    const [k, v, q] = [floats(next, 90 * 42), floats(next, 90 * 42), floats(next, 3 * 84)];
    const shape = [6, 15, 2, 21];
    const empty = () => Tensor.zeros(cpu, shape, { dtype: "bf16" });
    const pages: [number, number][] = [5, 4, 3, 2, 1, 0].map((page) => [page, 15]);
    const slots = tensor(
      Int32Array.from({ length: 90 }, (_, i) => pages[Math.floor(i / 15)]![0] * 15 + (i % 15)),
      90,
    );
    await configured({ instructionSet }, async () => {
      const given = { k: tensor(k, 90, 2, 21), v: tensor(v, 90, 2, 21), slots };
      const stored = await run(cpu, "kv_store", { ...given, kPages: empty(), vPages: empty() });
      const rounded = { k: await stored.kPages.readFloats(), v: await stored.vPages.readFloats() };
      expect(worst(rounded.k.subarray(5 * 15 * 42), k.subarray(0, 15 * 42))).toBeLessThan(2 ** -8);
      const rows: [number, number][] = [
        [0, 90],
        [0, 1],
        [0, 64],
      ];
      const expected = await paged(q, { pageTokens: 15, pages: [pages], ...rounded }, rows, sizes);
      const { out } = await run(cpu, "attention_paged", {
        q: tensor(q, 3, 4, 21),
        kPages: stored.kPages,
        vPages: stored.vPages,
        rows: tensor(Int32Array.from(rows.flat()), 3, 2),
        pageStarts: tensor(Int32Array.from([0, 6]), 2),
        pages: tensor(Int32Array.from(pages.flat()), 6, 2),
      });
      expect(digest(await out.readFloats())).toBe(digest(expected));
    });
  });
});

describe("attention_paged refuses", () => {
  const good = {
    rows: [0, 3, 1, 6],
    starts: [0, 1, 3],
    pages: [1, 3, 0, 4, 2, 2],
    window: 0,
    heads: 2,
    dtype: "f32" as "f32" | "bf16",
  };
  const attempt = (change: Partial<typeof good>) => {
    const { rows, starts, pages, window, heads, dtype } = { ...good, ...change };
    return run(
      cpu,
      "attention_paged",
      {
        q: Tensor.zeros(cpu, [rows.length / 2, heads, 8]),
        kPages: Tensor.zeros(cpu, [3, 4, 2, 8]),
        vPages: Tensor.zeros(cpu, [3, 4, 2, 8], { dtype }),
        rows: tensor(Int32Array.from(rows), rows.length / 2, 2),
        pageStarts: tensor(Int32Array.from(starts), starts.length),
        pages: tensor(Int32Array.from(pages), pages.length / 2, 2),
      },
      { window },
    );
  };

  test("nothing that is right", async () => {
    expect((await attempt({})).out.shape).toEqual([2, 2, 8]);
    expect((await attempt({ rows: [] })).out.shape).toEqual([0, 2, 8]);
    expect((await attempt({ rows: [], starts: [0], pages: [] })).out.shape).toEqual([0, 2, 8]);
  });

  const cases: [string, Partial<typeof good>, RegExp][] = [
    ["a sequence past the last", { rows: [0, 3, 2, 1] }, /rows\[1\]: sequence 2: there are 2/],
    ["a sequence below 0", { rows: [-1, 3] }, /rows\[0\]: sequence -1/],
    ["no visible token", { rows: [0, 0] }, /rows\[0\]: 0 visible tokens/],
    [
      "more visible tokens than there are",
      { rows: [0, 3, 0, 4] },
      /rows\[1\]: 4 visible tokens: sequence 0 has 3/,
    ],
    [
      "a page past the last",
      { pages: [3, 3, 0, 4, 2, 2] },
      /pages\[0\]: page 3 with 3 tokens: expected one of 3/,
    ],
    ["a page below 0", { pages: [1, 3, -1, 4, 2, 2] }, /pages\[1\]: page -1/],
    [
      "more tokens than a page holds",
      { pages: [1, 3, 0, 5, 2, 2] },
      /pages\[1\]: page 0 with 5 tokens.*of 4/,
    ],
    ["fewer tokens than none", { pages: [1, 3, 0, 4, 2, -1] }, /pages\[2\]: page 2 with -1 tokens/],
    ["descending page starts", { starts: [0, 2, 1] }, /page_starts\[2\]: 1/],
    ["page starts below 0", { starts: [-1, 1, 3] }, /page_starts\[0\]: -1/],
    ["page starts past the table", { starts: [0, 1, 4] }, /page_starts\[2\]: 4.* 3 pages/],
    ["no page starts", { starts: [] }, /page_starts: expected at least one/],
    ["a window below 0", { window: -1 }, /window.*-1/],
    ["heads that are no multiple", { heads: 3 }, /H = 3, kv heads K = 2/],
    ["pages of two dtypes", { dtype: "bf16" }, /v_pages: expected the dtype of k_pages/],
  ];
  test.each(cases)("%s", async (_, change, message) => {
    await expect(attempt(change)).rejects.toMatchObject({
      code: "ERR_SDPO_OP",
      message: expect.stringMatching(message),
    });
  });
});

describe("kv_store", () => {
  const store = (slots: number[], kPages: Tensor) =>
    run(cpu, "kv_store", {
      k: tensor(
        Float32Array.from({ length: slots.length * 6 }, (_, i) => i + 1),
        slots.length,
        2,
        3,
      ),
      v: tensor(
        Float32Array.from({ length: slots.length * 6 }, (_, i) => -i - 1),
        slots.length,
        2,
        3,
      ),
      slots: tensor(Int32Array.from(slots), slots.length),
      kPages,
      vPages: Tensor.zeros(cpu, [3, 4, 2, 3]),
    });

  test("writes the slots, in place, and no others", async () => {
    const kPages = Tensor.zeros(cpu, [3, 4, 2, 3]);
    const result = await store([11, 0, 6], kPages);
    const expected = new Float32Array(72);
    [11, 0, 6].forEach((slot, n) => {
      for (let i = 0; i < 6; i++) expected[slot * 6 + i] = n * 6 + i + 1;
    });
    expect(await kPages.readFloats()).toEqual(expected);
    expect(await result.kPages.readFloats()).toEqual(expected);
    expect(await result.vPages.readFloats()).toEqual(expected.map((x) => (x ? -x : 0)));
    await store([], kPages);
    expect(await kPages.readFloats()).toEqual(expected);
  });

  test.each([
    ["below 0", [1, -1], /slots: -1 is outside the cache's 12/],
    ["past the last", [12, 3], /slots: 12 is outside the cache's 12/],
    ["given twice", [3, 5, 3], /slots: 3 is given twice/],
  ])("refuses a slot %s and stores nothing", async (_, slots, message) => {
    const kPages = Tensor.zeros(cpu, [3, 4, 2, 3]);
    await expect(store(slots, kPages)).rejects.toMatchObject({
      code: "ERR_SDPO_OP",
      message: expect.stringMatching(message),
    });
    expect((await kPages.readFloats()).every((x) => x === 0)).toBe(true);
  });
});
