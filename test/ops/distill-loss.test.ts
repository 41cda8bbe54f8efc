import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Device } from "../../lib/native/device.js";
import { addon } from "../../lib/native/load.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { batchOf, execute, expectNaive, none, plain, random, rowOf } from "./distill-batch.js";
import { agrees, excess, gradientAgrees } from "./loss-golden.js";
import { logSoftmax, type NaiveOptions } from "./loss-naive.js";
import { currentTarget, resetTarget, targetsOf, useTarget } from "./targets.js";

let device: Device = currentTarget().device;
afterAll(resetTarget);

function randomCase(seed: number) {
  const { uniform, pick } = random(seed + 1000);
  const v = pick([1, 2, 3, 64, 65, 120, 127, 128, 129, 8 + Math.floor(uniform() * 300)]);
  const clip = uniform() < 0.25;
  const credit = pick(["logit", "logit", "logit", "token"] as const);
  const use = { initial: uniform() < 0.3, old: uniform() < 0.5 };
  const options: NaiveOptions = {
    credit,
    alpha: clip || credit === "token" ? 1 : pick([0, 0.1, 0.5, 0.9, 1]),
    topK: pick([null, 1, 2, 5, 20, 100, v]),
    tail: uniform() < 0.6,
    isClip: pick([null, 0.7, 2]),
    advantageClip: clip ? pick([0.1, 1]) : null,
    teacherRate: use.initial ? pick([0, 0.01, 0.5, 1]) : null,
    temperature: pick([1, 1, 0.6, 1.7]),
  };
  return { seed, v, options, use, scale: pick([0.3, 2, 2, 4]) };
}

describe.each(targetsOf("distill_loss", "row_statistics"))(
  "distill_loss against float64, $name",
  (target) => {
    beforeAll(() => {
      device = useTarget(target);
    });

    test.each([56, 57, 58, 59, 60, 61, 62, 63])("vocabulary %i, every support and alpha", async (v) => {
      for (const alpha of [0, 0.3, 1]) {
        for (const [topK, tail] of [
          [null, true],
          [9, true],
          [9, false],
        ] as const)
          await expectNaive(batchOf(4, v, v), { ...plain, alpha, topK, tail }, none);
      }
    });

    test.each(Array.from({ length: 60 }, (_, seed) => randomCase(seed)))(
      "random case $seed: $v, $options",
      async ({ seed, v, options, use, scale }) => expectNaive(batchOf(5, v, seed, scale), options, use),
    );

    test("equal logits: ties go to the lower id, also between 0 and -0", async () => {
      const v = 200;
      const batch = batchOf(3, v, 5);
      batch.student.fill(0);
      for (let i = 0; i < batch.student.length; i += 2) batch.student[i] = -0;
      for (let i = 0; i < v; i += 3) batch.student[v + i] = 1;
      await expectNaive(batch, { ...plain, alpha: 1, topK: 7 }, none);
      await expectNaive(batch, { ...plain, topK: 7, tail: false }, none);
    });

    test("sorted logits and large K", async () => {
      const v = 3000;
      const batch = batchOf(3, v, 6);
      for (let i = 0; i < v; i++) {
        batch.student[i] = i / 500;
        batch.student[v + i] = (v - i) / 500;
        batch.student[2 * v + i] = i % 64 === 0 ? 5 + i / 1e4 : i / 1e4;
      }
      for (const topK of [1, 40, 1500, 2999])
        await expectNaive(batch, { ...plain, alpha: 1, topK }, none, false);
    });

    test("temperature, offsets of 1e4 and peaked rows", async () => {
      const batch = batchOf(4, 90, 7);
      batch.student.forEach((z, i) => {
        batch.student[i] = Math.round(z * 64) / 64 + 1e4;
        batch.teacher[i] = Math.round(z * 64 + 20 * Math.sin(i)) / 64 - 1e4;
      });
      batch.student[90 + 3] = 1e4 + 60;
      batch.teacher[90 + 3] = -1e4 + 40;
      for (const alpha of [0, 0.5, 1])
        for (const topK of [null, 10])
          await expectNaive(batch, { ...plain, alpha, topK, temperature: 0.9 }, none);
    });

    test("no gradient through the floor under the student's tail, however heavy the teacher's", async () => {
      const batch = batchOf(3, 40, 15);
      for (let i = 0; i < 3; i++) for (const id of [4, 9]) batch.student[i * 40 + id] = 30 + id / 10;
      for (const alpha of [0, 0.5, 1]) await expectNaive(batch, { ...plain, alpha, topK: 2 }, none);
    });

    test("-inf in student, teacher and initial teacher", async () => {
      const v = 70;
      const batch = batchOf(4, v, 8);
      for (let i = 0; i < 4 * v; i += 5) {
        batch.student[i] = -Infinity;
        batch.teacher[i] = -Infinity;
        batch.initial[i] = -Infinity;
      }
      batch.teacher[2] = -Infinity;
      batch.student[v + 3] = -Infinity;
      batch.tokenIds.fill(1);
      for (const topK of [null, 20, 69])
        for (const teacherRate of [0, 0.3, 1])
          await expectNaive(batch, { ...plain, topK, teacherRate }, { initial: true, old: false });
    });

    test("bf16: the loss of the rounded logits, the gradient rounded once", async () => {
      const batch = batchOf(5, 77, 9);
      for (const options of [
        plain,
        { ...plain, topK: 8 },
        { ...plain, alpha: 1, credit: "token" as const },
      ]) {
        const read = async (data: Float32Array) =>
          Tensor.from(device, data, [data.length], { dtype: "bf16" }).readFloats();
        const rounded = {
          ...batch,
          student: await read(batch.student),
          teacher: await read(batch.teacher),
        };
        const exact = await execute(rounded, options, none);
        const wide = await exact.dlogits!.readFloats();
        for (const inPlace of [false, true]) {
          const out = await execute(batch, options, { ...none, bf16: true, inPlace });
          expect(out.dlogits!.dtype).toBe("bf16");
          expect(await out.tokenLoss.readFloats()).toEqual(await exact.tokenLoss.readFloats());
          expect(excess(await out.dlogits!.readFloats(), wide, 0, 1 / 256)).toBeLessThanOrEqual(0);
        }
      }
    });

    test("NaN in a row is NaN in its loss and gradient, and nowhere else; weight 0 hides it", async () => {
      for (const options of [plain, { ...plain, topK: 5 }, { ...plain, topK: 5, tail: false }]) {
        const batch = batchOf(4, 80, 10);
        const clean = await (await execute(batch, options, none)).tokenLoss.readFloats();
        batch.student[80 + 17] = Number.NaN;
        batch.teacher[2 * 80 + 79] = Number.NaN;
        batch.student[3 * 80] = Number.NaN;
        const out = await execute(batch, options, none);
        const losses = await out.tokenLoss.readFloats();
        const gradient = await out.dlogits!.readFloats();
        expect([...losses]).toEqual([clean[0], Number.NaN, Number.NaN, 0]);
        expect(gradient.subarray(0, 80).some(Number.isNaN)).toBe(false);
        for (const i of [1, 2])
          expect(gradient.subarray(80 * i, 80 * (i + 1)).every(Number.isNaN), `${options.topK}`).toBe(true);
        expect(gradient.subarray(240).every((g) => g === 0)).toBe(true);
      }
    });

    test("rows have the same bits alone, in another order, for any number of threads, into poisoned memory", async () => {
      const { threads } = addon().buildInfo();
      const [n, v] = [13, 300];
      const batch = batchOf(n, v, 11);
      for (const options of [plain, { ...plain, topK: 20 }]) {
        const whole = await execute(batch, options, none);
        const gradient = await whole.dlogits!.readFloats();
        for (const count of [1, 3, 7]) {
          addon().setThreads(count);
          Tensor.from(device, new Float32Array(n * v).fill(Number.NaN), [n, v]).dispose();
          const again = await execute(batch, options, none);
          expect(await again.dlogits!.readFloats()).toEqual(gradient);
          expect(await again.kl.readFloats()).toEqual(await whole.kl.readFloats());
        }
        addon().setThreads(threads);
        const one = {
          ...batchOf(1, v, 12),
          student: batch.student.slice(5 * v, 6 * v),
          teacher: batch.teacher.slice(5 * v, 6 * v),
          tokenIds: batch.tokenIds.slice(5, 6),
          weights: batch.weights.slice(5, 6),
          coefficients: batch.coefficients.slice(5, 6),
        };
        const alone = await execute(one, options, none);
        expect(await alone.dlogits!.readFloats()).toEqual(gradient.slice(5 * v, 6 * v));
      }
    });

    test("row_statistics and cross_entropy", async () => {
      const batch = batchOf(6, 133, 13, 3);
      const { n, v } = batch;
      const logits = () => Tensor.from(device, batch.student, [n, v]);
      const tokenIds = Tensor.from(device, batch.tokenIds, [n]);
      const out = await run(device, "row_statistics", { logits: logits(), tokenIds }, { temperature: 0.7 });
      const rows = Array.from({ length: n }, (_, i) => rowOf(batch, i, none));
      const expected = rows.map(({ student, token }) => {
        const l = logSoftmax(student, 0.7);
        const entropy = -l.reduce((sum, x) => sum + Math.exp(x) * x, 0);
        return { logprobs: l[token]!, lse: student[0]! / 0.7 - l[0]!, entropy, max: Math.max(...student) };
      });
      for (const name of ["logprobs", "lse", "entropy", "max"] as const)
        expect(
          agrees(
            await out[name].readFloats(),
            expected.map((row) => row[name]),
          ),
          name,
        ).toBe(true);
      const weights = Tensor.from(device, batch.weights, [n]);
      const coefficients = Tensor.from(device, batch.coefficients, [n]);
      const given = logits();
      const ce = await run(
        device,
        "cross_entropy",
        { logits: given, tokenIds, weights, coefficients },
        { inPlace: true },
      );
      const logprobs = rows.map(({ student }) => logSoftmax(student, 1));
      const losses = logprobs.map((l, i) => -batch.weights[i]! * l[batch.tokenIds[i]!]!);
      expect(agrees(await ce.tokenLoss.readFloats(), losses)).toBe(true);
      const gradient = logprobs.flatMap((l, i) =>
        Array.from(
          l,
          (x, id) =>
            batch.weights[i]! * batch.coefficients[i]! * (Math.exp(x) - (id === batch.tokenIds[i] ? 1 : 0)),
        ),
      );
      expect(gradientAgrees(await given.readFloats(), gradient)).toBe(true);
    });
  },
);
