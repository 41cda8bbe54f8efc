import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../lib/environments/random.js";
import { Model } from "../../lib/models/model.js";
import { PackedTokenCounter, packSequences } from "../../lib/models/packing.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { goldenPath, maxAbs, maxDifference } from "../golden-tensors.js";

const random = new Random(5);
const ids = (n: number) => Int32Array.from({ length: n }, () => 3 + random.below(90));
const join = (...parts: Int32Array[]) => Int32Array.from(parts.flatMap((part) => [...part]));

describe("packSequences", () => {
  test("every token of every sequence is found at its row, with its position", () => {
    const prompt = ids(20);
    const other = ids(12);
    const sequences = [
      join(prompt, ids(5)),
      other,
      join(prompt, ids(9)),
      prompt.slice(),
      join(other, ids(3)),
      Int32Array.of(),
      Int32Array.of(7),
    ];
    for (const share of [true, false]) {
      const packed = packSequences(sequences, share);
      for (const [s, sequence] of sequences.entries()) {
        expect(Array.from(packed.rows[s]!, (row) => packed.ids[row])).toEqual([...sequence]);
        expect(Array.from(packed.rows[s]!, (row) => packed.positions[row])).toEqual([...sequence.keys()]);
      }
      expect(packed.totalTokens).toBe(sequences.reduce((sum, { length }) => sum + length, 0));
      expect(packed.ids.length).toBe(share ? 20 + 5 + 12 + 9 + 3 + 1 : packed.totalTokens);
    }
  });

  test("short common beginnings stay apart; branches may branch again", () => {
    const stem = ids(16);
    const branch = ids(10);
    const sequences = [
      join(stem, branch, Int32Array.of(1)),
      join(stem, branch, Int32Array.of(2)),
      join(stem, Int32Array.of(1, 2)),
      join(stem.slice(0, 7), Int32Array.of(91, 92, 93)),
    ];
    const packed = packSequences(sequences);
    const parents = Array.from({ length: packed.segments.length / 4 }, (_, i) => packed.segments[4 * i + 2]);
    expect(parents).toEqual([-1, 0, 1, 1, 0, -1]);
  });
});

describe("PackedTokenCounter", () => {
  /** Sequences that grow out of each other's beginnings, so that runs part, end and part again. */
  const forest = (count: number, vocabulary: number) => {
    const grown: Int32Array[] = [Int32Array.of()];
    const word = () =>
      Int32Array.from({ length: random.below(14) }, () => (random.below(5) ? 1 : random.below(vocabulary)));
    for (let i = 0; i < count; i++) {
      const from = grown[random.below(grown.length)]!;
      grown.push(join(from.subarray(0, random.below(from.length + 1)), word(), word(), word()));
    }
    return grown;
  };

  test("counts after each sequence what packing all of them takes", () => {
    for (let round = 0; round < 60; round++) {
      const sequences = forest(24, 2 + (round % 3));
      const counter = new PackedTokenCounter();
      for (const [i, sequence] of sequences.entries()) {
        counter.add(sequence);
        expect(counter.tokens).toBe(packSequences(sequences.slice(0, i + 1)).ids.length);
      }
    }
  });

  test("reads each of thousands of sequences a few times, not once for each of the others", () => {
    let reads = 0;
    const counted = (sequence: Int32Array): Int32Array =>
      new Proxy(sequence, {
        get(target, name) {
          if (name === "subarray") return (a: number, b: number) => counted(target.subarray(a, b));
          if (typeof name === "string" && /^\d+$/.test(name)) reads++;
          const value = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    const prompts = Array.from({ length: 50 }, () => join(Int32Array.of(...Array(10).keys()), ids(40)));
    const counter = new PackedTokenCounter();
    const sequences = prompts.flatMap((prompt) => Array.from({ length: 20 }, () => join(prompt, ids(30))));
    for (const sequence of sequences) counter.add(counted(sequence));
    expect(counter.tokens).toBe(packSequences(sequences).ids.length);
    const tokens = sequences.reduce((sum, { length }) => sum + length, 0);
    expect(reads).toBeGreaterThan(sequences.length);
    expect(reads).toBeLessThan(6 * tokens);
  });
});

describe.each(["llama-tied-gqa-rope3", "olmo3-sliding-yarn", "qwen3-untied-headdim"])(
  "a group of eight, %s",
  (name) => {
    let device: Device;
    let model: Model;
    beforeAll(async () => {
      device = await openDevice("cpu");
      model = await Model.load(goldenPath("models", name), { device });
    });
    afterAll(() => model.dispose());
    const prompt = ids(30);
    const group = Array.from({ length: 8 }, (_, i) => join(prompt, ids(3 + i)));

    test("shares its prompt and equals eight separate sequences, forward and backward", async () => {
      expect(packSequences(group).ids.length).toBe(30 + group.reduce((sum, s) => sum + s.length - 30, 0));
      const together = await model.logits(group);
      for (const [i, sequence] of group.entries()) {
        const [alone] = await model.logits([sequence]);
        expect(maxDifference(together[i]!, alone!)).toBeLessThanOrEqual(2e-5 * maxAbs(alone!));
      }
      const shared = await model.backward(group);
      const separate = await model.backward(group, { share: false });
      expect(Math.abs(shared.loss - separate.loss)).toBeLessThanOrEqual(1e-5);
      for (const [parameter, gradient] of shared.gradients) {
        const expected = separate.gradients.get(parameter)!;
        expect(maxDifference(gradient, expected), parameter).toBeLessThanOrEqual(5e-5 * maxAbs(expected));
      }
    });

    test("calls at the same time wait for each other", async () => {
      const alone = [await model.backward(group), await model.backward([prompt])];
      const together = await Promise.all([model.backward(group), model.backward([prompt])]);
      expect(together).toEqual(alone);
    });

    test("recomputing activations gives the same bits", async () => {
      const kept = await model.backward(group);
      const recomputed = await model.backward(group, { recompute: true });
      expect(recomputed.loss).toBe(kept.loss);
      for (const [parameter, gradient] of kept.gradients) {
        expect(recomputed.gradients.get(parameter), parameter).toEqual(gradient);
      }
    });
  },
);
