import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Device } from "../../lib/native/device.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { batchOf, execute, none, plain, type Use } from "./distill-batch.js";
import { agrees } from "./loss-golden.js";
import type { NaiveOptions } from "./loss-naive.js";
import { currentTarget, resetTarget, targetsOf, useTarget } from "./targets.js";

let device: Device = currentTarget().device;
afterAll(resetTarget);

describe.each(targetsOf("distill_loss"))("distill_loss on $name", (target) => {
  beforeAll(() => {
    device = useTarget(target);
  });

  test("kl is KL(student || teacher) over the support", async () => {
    const batch = batchOf(3, 50, 14);
    batch.weights.fill(1);
    for (const topK of [null, 6]) {
      const jsd = await execute(batch, { ...plain, topK, isClip: null }, none);
      const reverse = await execute(batch, { ...plain, alpha: 1, topK, isClip: null }, none);
      expect(agrees(await jsd.kl.readFloats(), await reverse.tokenLoss.readFloats())).toBe(true);
    }
  });

  test.each<[string, Partial<NaiveOptions>, Partial<Use>, RegExp]>([
    [
      "token credit needs reverse KL",
      { credit: "token" },
      {},
      /alpha: credit token and sequence need alpha 1/,
    ],
    ["so does an advantage clip", { advantageClip: 1 }, {}, /alpha: advantage_clip need/],
    ["a rate needs an initial teacher", { teacherRate: 0.5 }, {}, /teacher_rate and initial_teacher_logits/],
    ["an initial teacher needs a rate", {}, { initial: true }, /teacher_rate and initial_teacher_logits/],
    ["sequence credit needs advantages", { credit: "sequence" as never, alpha: 1 }, {}, /advantages: credit/],
    ["alpha above 1", { alpha: 1.5 }, {}, /alpha: expected a number from 0 to 1/],
    ["top_k 0", { topK: 0 }, {}, /top_k: expected an integer from 1/],
    ["temperature 0", { temperature: 0 }, {}, /temperature: expected a number from/],
  ])("refused: %s", async (_, options, use, message) => {
    const call = execute(batchOf(2, 9, 1), { ...plain, ...options }, { ...none, ...use });
    await expect(call).rejects.toThrow(message);
  });

  test("a token outside the vocabulary is refused on the CPU, and makes its row NaN on a GPU", async () => {
    const batch = batchOf(2, 9, 1);
    batch.tokenIds[1] = 9;
    if (device.name === "cpu") {
      await expect(execute(batch, plain, none)).rejects.toThrow(/token_ids: 9 at 1: the vocabulary is 0..8/);
      return;
    }
    const out = await execute(batch, plain, none);
    expect([...(await out.tokenLoss.readFloats())].map(Number.isNaN)).toEqual([false, true]);
    const gradient = [...(await out.dlogits!.readFloats())].map(Number.isNaN);
    expect(gradient).toEqual([...Array(9).fill(false), ...Array(9).fill(true)]);
  });

  test("in place, the student's logits may not be the teacher's memory", async () => {
    const batch = batchOf(4, 9, 5);
    const logits = Tensor.from(device, new Float32Array(7 * 9), [7, 9]);
    const row = (data: Float32Array | Int32Array) => Tensor.from(device, data, [4]);
    const rows = {
      tokenIds: row(batch.tokenIds),
      weights: row(batch.weights),
      coefficients: row(batch.coefficients),
    };
    const loss = (student: [number, number], teacher: [number, number], inPlace: boolean) => {
      const inputs = {
        studentLogits: logits.rows(...student),
        teacherLogits: logits.rows(...teacher),
        ...rows,
      };
      return run(device, "distill_loss", inputs, { inPlace });
    };
    await expect(loss([0, 4], [3, 7], true)).rejects.toMatchObject({
      code: "ERR_SDPO_OP",
      message: expect.stringMatching(/in_place: the gradient would overwrite logits of the teacher/),
    });
    await loss([0, 4], [3, 7], false);
  });
});
