import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type DistillationOptions,
  type DistillationResult,
  distillationLoss,
} from "../../lib/losses/distillation.js";
import type { Device } from "../../lib/native/device.js";
import { Tensor } from "../../lib/native/tensor.js";
import { agrees, goldenCases, goldenTensors, gradientAgrees } from "./loss-golden.js";
import { currentTarget, resetTarget, targetsOf, useTarget } from "./targets.js";

interface GoldenCase {
  file: string;
  shape: [number, number, number];
  distillation: "logit" | "token" | "sequence";
  alpha: number;
  distillationTopK: number | null;
  addTail: boolean;
  isClip: number | null;
  lossAggregation: DistillationOptions["aggregation"];
  temperature: number;
  advantageClip?: number | null;
  teacherRate?: number | null;
  normalizer?: number | null;
  loss: number;
}

const cases = [
  ...goldenCases<GoldenCase>("manifest.json"),
  ...goldenCases<GoldenCase>("extended/manifest.json").map((c) => ({ ...c, file: `extended/${c.file}` })),
];

function optionsOf(c: GoldenCase): DistillationOptions {
  return {
    distillation: c.distillation,
    alpha: c.alpha,
    topK: c.distillationTopK,
    tail: c.addTail,
    isClip: c.isClip,
    aggregation: c.lossAggregation,
    temperature: c.temperature,
    ...(c.advantageClip == null ? {} : { advantageClip: c.advantageClip }),
    ...(c.teacherRate == null ? {} : { teacherRate: c.teacherRate }),
    ...(c.normalizer == null ? {} : { normalizer: c.normalizer }),
  };
}

let device: Device = currentTarget().device;
afterAll(resetTarget);

function inputsOf(golden: ReturnType<typeof goldenTensors>, shape: [number, number, number]) {
  const { student_logits, teacher_logits, initial_teacher_logits: initial } = golden;
  return {
    shape,
    studentLogits: student_logits as Float32Array,
    teacherLogits: teacher_logits as Float32Array,
    ...(initial ? { initialTeacherLogits: initial as Float32Array } : {}),
    tokenIds: golden.token_ids!,
    completionMask: golden.response_mask!,
    distillationMask: golden.distillation_mask!,
    ...(golden.old_log_probs ? { oldLogprobs: golden.old_log_probs } : {}),
    ...(golden.rollout_weights ? { rolloutWeights: golden.rollout_weights } : {}),
    ...(golden.token_weights ? { tokenWeights: golden.token_weights } : {}),
  };
}

async function expectGolden(
  c: GoldenCase,
  golden: ReturnType<typeof goldenTensors>,
  out: DistillationResult,
) {
  expect(agrees([out.loss], golden.loss!), `loss ${out.loss}, expected ${golden.loss![0]}`).toBe(true);
  expect(out.dStudentLogits.shape).toEqual(c.shape);
  const gradient = await out.dStudentLogits.readFloats();
  expect(gradientAgrees(gradient, golden.grad_student_logits!), "gradient").toBe(true);
  for (const [expected, got] of [
    [golden.student_log_probs, out.studentLogprobs],
    [golden.teacher_log_probs, out.teacherLogprobs],
    [golden.student_logsumexp, out.studentLse],
    [golden.teacher_logsumexp, out.teacherLse],
    [golden.token_loss, out.tokenLoss],
  ] as const) {
    if (expected) expect(agrees(await got.readFloats(), expected)).toBe(true);
    expect(got.shape).toEqual(c.shape.slice(0, 2));
  }
  return gradient;
}

test("all cases are there", () => {
  expect(cases.length).toBe(43 + 18);
});

describe.each(targetsOf("distill_loss"))("distillation loss, golden data, $name", (target) => {
  beforeAll(() => {
    device = useTarget(target);
  });

  test.each(cases)("$file", async (c) => {
    const golden = goldenTensors(c.file);
    const inputs = inputsOf(golden, c.shape);
    const out = await distillationLoss(device, inputs, optionsOf(c));
    const gradient = await expectGolden(c, golden, out);

    const studentLogits = Tensor.from(device, inputs.studentLogits, c.shape);
    const { shape: _, ...tensors } = { ...inputs, studentLogits };
    const inPlace = await distillationLoss(device, tensors, { ...optionsOf(c), inPlace: true });
    expect(await inPlace.dStudentLogits.readFloats()).toEqual(gradient);
    expect(await studentLogits.readFloats()).toEqual(gradient);
    expect(inPlace.loss).toBe(out.loss);
  });
});
