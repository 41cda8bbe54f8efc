/**
 * The gradient of a mini-batch: teacher and student forward over packed prefix trees, the losses over hidden
 * states, backward. Coefficients count over the whole mini-batch, so that neither micro-batches nor packing
 * change the gradient beyond rounding.
 */
import type { TrainConfig } from "../config.js";
import type { Model } from "../models/model.js";
import { packSequences } from "../models/packing.js";
import { run } from "../native/run.js";
import type { Tensor } from "../native/tensor.js";
import { microBatches, type PlannedSample, predictingRows } from "./batch.js";
import { RowStatistics } from "./metrics.js";
import { againstSampler, oldLogprobs } from "./old-logprobs.js";
import {
  countTokens,
  type Gradient,
  type GradientOptions,
  type LossSettings,
  noTokens,
  Part,
} from "./part.js";

/** Slots that the losses read besides the student's weights. */
export function extraSlots(settings: Pick<TrainConfig, "algorithm" | "teacher" | "klCoefficient">): {
  teacher: boolean;
  initial: boolean;
} {
  const distils = settings.algorithm !== "grpo";
  const reference = settings.algorithm !== "sdpo" && settings.klCoefficient > 0;
  return {
    teacher: distils && (settings.teacher === "ema" || settings.teacher === "frozen"),
    initial: reference || (distils && settings.teacher === "trust-region"),
  };
}

function distillAttributes(settings: LossSettings) {
  const { alpha, tail, isClip, advantageClip, temperature } = settings;
  return {
    credit: settings.distillation,
    alpha,
    topK: settings.distillation === "logit" ? settings.distillationTopK : null,
    tail,
    isClip,
    advantageClip,
    teacherRate: settings.teacher === "trust-region" ? settings.teacherRate : null,
    temperature,
  };
}

/** Hidden states and heads of the teacher, and of the initial model for a trust region. */
async function teacherInputs(part: Part, samples: readonly PlannedSample[]) {
  const { teacher } = part.settings;
  const slot = teacher === "ema" || teacher === "frozen" ? "teacher" : "weight";
  const inputs = { teacherHidden: await part.score(samples, "teacher", slot), teacherHead: part.head(slot) };
  if (teacher !== "trust-region") return inputs;
  const initialTeacherHidden = await part.score(samples, "teacher", "initial");
  return { ...inputs, initialTeacherHidden, initialTeacherHead: part.head("initial") };
}

/** Sequence credit: the mean of log t - log p over each sample's rows, bounded, at each of them. */
async function sequenceAdvantages(
  student: Tensor,
  teacher: Tensor,
  samples: readonly PlannedSample[],
  clip: number | null,
): Promise<Float32Array[]> {
  const [p, t] = [await student.readFloats(), await teacher.readFloats()];
  let at = 0;
  return samples.map(({ targets: { length } }) => {
    let sum = 0;
    for (const end = at + length; at < end; at++) sum += t[at]! - p[at]!;
    const mean = sum / length;
    const bounded = clip === null ? mean : Math.min(Math.max(mean, -clip), clip);
    return new Float32Array(length).fill(bounded);
  });
}

/** The distillation loss of the samples that have a teacher; gives d loss / d hidden. */
async function distill(part: Part, hidden: Tensor, samples: readonly PlannedSample[]): Promise<Tensor> {
  const { model, settings, options } = part;
  const attributes = distillAttributes(settings);
  const coefficients = samples.map((sample) => sample.distillCoefficients!);
  const inputs = {
    studentHidden: hidden,
    studentHead: part.head("weight"),
    ...(await teacherInputs(part, samples)),
    ...part.rowInputs(samples, coefficients),
    ...(options.importance && { oldLogprobs: part.floats(samples.map(oldLogprobs)) }),
  };
  const op = async (more: { advantages?: Tensor; dHead?: Tensor }, gradient: boolean) => {
    const given = { ...attributes, gradient };
    const outputs = await run(model.device, "linear_distill_loss", { ...inputs, ...more }, given, options);
    for (const tensor of Object.values(outputs)) part.keep(tensor);
    return outputs;
  };
  let advantages: Tensor | undefined;
  if (settings.distillation === "sequence") {
    const { studentLogprobs, teacherLogprobs } = await op({}, false);
    advantages = part.floats(
      await sequenceAdvantages(studentLogprobs, teacherLogprobs, samples, settings.advantageClip),
    );
  }
  const outputs = await op({ ...(advantages && { advantages }), dHead: part.head("gradient") }, true);
  await part.addLoss(outputs.tokenLoss, coefficients);
  const names = ["entropy", "kl", "ratio", "studentTopkMass", "teacherTopkMass"];
  await part.addRows(outputs, names, outputs.studentLogprobs, samples);
  const limit = settings.isClip ?? Infinity;
  const ratio = await outputs.ratio.readFloats();
  part.total.rows.add(
    "clipped",
    ratio.map((x) => (x > limit ? 1 : 0)),
  );
  return outputs.dHidden!;
}

/** The clipped policy loss of all samples; gives d loss / d hidden. */
async function policy(part: Part, hidden: Tensor, samples: readonly PlannedSample[]): Promise<Tensor> {
  const { model, settings, options } = part;
  const { clipLow, clipHigh, dualClip, klCoefficient, klKind, temperature } = settings;
  const zeros = ({ targets }: PlannedSample) => new Float32Array(targets.length);
  const coefficients = samples.map((sample) => sample.policyCoefficients ?? zeros(sample));
  const rows = part.rowInputs(samples, coefficients);
  const head = part.head("weight");
  const inputs = {
    hidden,
    head,
    ...rows,
    oldLogprobs: part.floats(samples.map(oldLogprobs)),
    advantages: part.floats(samples.map((sample) => zeros(sample).fill(sample.advantage))),
    ...(klCoefficient > 0 && { referenceLogprobs: await referenceLogprobs(part, samples) }),
    dHead: part.head("gradient"),
  };
  const attributes = { clipLow, clipHigh, dualClip, klCoefficient, klKind, temperature };
  const outputs = await run(model.device, "linear_policy_loss", inputs, attributes, options);
  for (const tensor of Object.values(outputs)) part.keep(tensor);
  await part.addLoss(outputs.tokenLoss, coefficients);
  // The blend's distillation loss reports these rows already.
  if (settings.algorithm === "grpo") {
    await part.addRows(outputs, ["entropy", "ratio"], outputs.logprobs, samples);
    const clipped = (await outputs.clipped.read()).map((bits) => (bits === 0 ? 0 : 1));
    part.total.rows.add("clipped", clipped);
  }
  if (klCoefficient > 0) part.total.rows.add("referenceKl", await outputs.kl.readFloats());
  return outputs.dHidden!;
}

/** log p of the samples' tokens under the initial model. */
async function referenceLogprobs(part: Part, samples: readonly PlannedSample[]): Promise<Tensor> {
  return part.logprobs(await part.score(samples, "student", "initial"), samples, "initial");
}

/** Both losses over the student's rows; the rows of distilled samples come first. */
async function lossGradient(part: Part, hidden: Tensor, samples: readonly PlannedSample[]): Promise<Tensor> {
  const distilled = samples.filter(({ teacher }) => teacher);
  const rowsOf = (some: readonly PlannedSample[]) => some.reduce((n, { targets }) => n + targets.length, 0);
  const hasPolicy = samples.some(({ policyCoefficients }) => policyCoefficients);
  if (!hasPolicy) return distill(part, hidden, samples);
  const dHidden = await policy(part, hidden, samples);
  if (distilled.length === 0) return dHidden;
  const n = rowsOf(distilled);
  const y = await distill(part, part.keep(hidden.rows(0, n)), distilled);
  const x = part.keep(dHidden.rows(0, n));
  part.keep((await run(part.model.device, "add", { x, y })).x);
  return dHidden;
}

async function addPart(part: Part, samples: readonly PlannedSample[]): Promise<void> {
  const { model, settings, options, total } = part;
  const packed = packSequences(samples.map(({ student }) => student));
  countTokens(total.train, packed);
  const rows = predictingRows(packed.rows, samples, "student");
  const { recompute } = settings;
  const { hidden, tape } = await model.forward(packed, rows, { ...options, keep: true, recompute });
  try {
    const weighted = await againstSampler(part, part.keep(hidden), samples);
    const dHidden = await lossGradient(part, hidden, weighted);
    await model.backwardHidden(tape!, dHidden, options);
  } finally {
    model.releaseTape(tape!);
  }
}

/**
 * Sets slot "gradient" to the gradient of the mini-batch's loss, and gives the loss and statistics of its rows.
 * Reads the slots that {@link extraSlots} names.
 */
export async function miniBatchGradient(
  model: Model,
  samples: readonly PlannedSample[],
  settings: LossSettings,
  options: GradientOptions,
): Promise<Gradient> {
  const start = performance.now();
  const total: Gradient = { loss: 0, rows: new RowStatistics(), score: noTokens(), train: noTokens() };
  await model.zeroGradient();
  for (const samplesOfPart of microBatches(samples, settings.microBatchTokens)) {
    const part = new Part(model, settings, options, total);
    try {
      await addPart(part, samplesOfPart);
    } finally {
      part.dispose();
    }
  }
  total.train.seconds = (performance.now() - start) / 1000 - total.score.seconds;
  return total;
}
