// Real vocabularies: on a GPU, rows that one block holds, that a cluster holds, and that go in parts.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDevice } from "../../lib/native/device.js";
import { batchOf, execute, expectNaive, none, plain, type Use } from "./distill-batch.js";
import { gradientAgrees } from "./loss-golden.js";
import type { NaiveOptions } from "./loss-naive.js";
import { resetTarget, targetsOf, useTarget } from "./targets.js";

afterAll(resetTarget);
const cpu = await openDevice("cpu");

const kinds: [string, Partial<NaiveOptions>, Use][] = [
  ["forward KL", { alpha: 0 }, none],
  ["reverse KL", { alpha: 1 }, { ...none, old: true }],
  ["JSD", {}, none],
  ["JSD, mixed teacher", { teacherRate: 0.3 }, { ...none, initial: true }],
  ["clipped reverse KL", { alpha: 1, advantageClip: 0.5 }, none],
  ["token credit", { alpha: 1, credit: "token" }, { ...none, old: true }],
  ["top 100 and tail", { topK: 100 }, none],
  ["top 128, renormalised", { topK: 128, tail: false, alpha: 0 }, none],
  ["top 1000 and tail", { topK: 1000 }, none],
];

describe.each(targetsOf("distill_loss"))("distill_loss, real vocabularies, $name", (target) => {
  beforeAll(() => {
    useTarget(target);
  });

  describe.each([4097, 50257, 128256, 151936])("%i", (v) => {
    const batch = batchOf(2, v, v, 3);
    test.each(kinds)("%s", async (_, changes, use) => {
      const options = { ...plain, ...changes };
      await expectNaive(batch, options, use, false);
      for (const bf16 of [false, true]) {
        const out = await execute(batch, options, { ...use, bf16 });
        const expected = await execute(batch, options, { ...use, bf16 }, cpu);
        const gradient = await out.dlogits!.readFloats();
        const reference = await expected.dlogits!.readFloats();
        if (!bf16) expect(gradientAgrees(gradient, reference)).toBe(true);
        else expect(withinRounding(gradient, reference)).toBe(true);
      }
    });
  });
});

/** Both rounded to bf16: at most one step apart, and equal where neither is near zero beside the largest. */
function withinRounding(got: Float32Array, expected: Float32Array): boolean {
  const largest = expected.reduce((max, x) => Math.max(max, Math.abs(x)), 0);
  return got.every((x, i) => Math.abs(x - expected[i]!) <= Math.abs(expected[i]!) / 128 + 1e-4 * largest);
}
