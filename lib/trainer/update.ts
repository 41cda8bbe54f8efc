/**
 * The gradient of a mini-batch: teacher and student forward over packed prefix trees, the losses over hidden
 * states, backward. Coefficients count over the whole mini-batch, so that neither micro-batches nor packing
 * change the gradient beyond rounding.
 */
import type { TrainConfig } from "../config.js";
import type { Model } from "../models/model.js";
import { type PackedSequences, packSequences } from "../models/packing.js";
import { run } from "../native/run.js";
import { Tensor } from "../native/tensor.js";
import { microBatches, type PlannedSample, predictingRows } from "./batch.js";
import { RowStatistics } from "./metrics.js";

/** What the losses need of a configuration. */
export type LossSettings = Pick<
  TrainConfig,
  | "algorithm"
  | "alpha"
  | "distillation"
  | "distillationTopK"
  | "tail"
  | "isClip"
  | "advantageClip"
  | "teacher"
  | "teacherRate"
  | "temperature"
  | "clipLow"
  | "clipHigh"
  | "dualClip"
  | "klCoefficient"
  | "klKind"
  | "microBatchTokens"
  | "recompute"
>;

export interface GradientOptions {
  /** Take the sampled logprobs for those at the start of the generation batch: where it has several updates. */
  importance: boolean;
  signal?: AbortSignal | undefined;
}

/** Tokens that passes computed, those that separate sequences would have taken, and the time it took. */
export interface PassCount {
  computed: number;
  withoutSharing: number;
  seconds: number;
}

export interface Gradient {
  loss: number;
  rows: RowStatistics;
  /** Of the teacher's passes (and a reference model's), and of the student's. */
  score: PassCount;
  train: PassCount;
}

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

/** One micro-batch while it is computed: its tensors are let go of together. */
class Part {
  readonly tensors: Tensor[] = [];

  constructor(
    readonly model: Model,
    readonly settings: LossSettings,
    readonly options: GradientOptions,
    readonly total: Gradient,
  ) {}

  keep(tensor: Tensor): Tensor {
    this.tensors.push(tensor);
    return tensor;
  }

  floats(arrays: readonly Float32Array[]): Tensor {
    const values = concatenated(arrays);
    return this.keep(Tensor.from(this.model.device, values, [values.length]));
  }

  /** What every loss takes of its rows. */
  rowInputs(samples: readonly PlannedSample[], coefficients: readonly Float32Array[]) {
    const ids = Int32Array.from(samples.flatMap(({ targets }) => [...targets]));
    return {
      tokenIds: this.keep(Tensor.from(this.model.device, ids, [ids.length])),
      weights: this.floats(samples.map(({ weights }) => weights)),
      coefficients: this.floats(coefficients),
    };
  }

  /** Hidden states of the rows that predict the samples' tokens, without a tape. */
  async score(samples: readonly PlannedSample[], side: "student" | "teacher", slot: string): Promise<Tensor> {
    const start = performance.now();
    const packed = packSequences(samples.map((sample) => sample[side]!));
    countTokens(this.total.score, packed);
    const rows = predictingRows(packed.rows, samples, side);
    const { signal } = this.options;
    const { hidden } = await this.model.forward(packed, rows, { slot, signal });
    this.total.score.seconds += (performance.now() - start) / 1000;
    return this.keep(hidden);
  }

  head(slot: string): Tensor {
    return this.keep(this.model.head(slot));
  }

  /** Adds a loss's rows to the total. */
  async addLoss(tokenLoss: Tensor, coefficients: readonly Float32Array[]): Promise<void> {
    const losses = await tokenLoss.readFloats();
    concatenated(coefficients).forEach((coefficient, i) => {
      if (coefficient !== 0) this.total.loss += coefficient * losses[i]!;
    });
  }

  /** Adds statistics of rows to the total; the gap to the sampler's logprobs is that of `logprobs`. */
  async addRows(
    outputs: Record<string, Tensor | undefined>,
    names: readonly string[],
    logprobs: Tensor,
    samples: readonly PlannedSample[],
  ): Promise<void> {
    const { rows } = this.total;
    for (const name of names) rows.add(name, await outputs[name]!.read());
    const sampled = concatenated(samples.map(({ sampledLogprobs }) => sampledLogprobs));
    rows.add(
      "samplerGap",
      (await logprobs.readFloats()).map((x, i) => Math.abs(x - sampled[i]!)),
    );
  }

  dispose(): void {
    for (const tensor of this.tensors) tensor.dispose();
  }
}

function countTokens(total: PassCount, packed: PackedSequences): void {
  total.computed += packed.ids.length;
  total.withoutSharing += packed.totalTokens;
}

function concatenated(arrays: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const array of arrays) {
    all.set(array, at);
    at += array.length;
  }
  return all;
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
    ...(options.importance && { oldLogprobs: part.floats(samples.map((s) => s.sampledLogprobs)) }),
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
    oldLogprobs: part.floats(samples.map((sample) => sample.sampledLogprobs)),
    advantages: part.floats(samples.map((sample) => zeros(sample).fill(sample.advantage))),
    ...(klCoefficient > 0 && { referenceLogprobs: await referenceLogprobs(part, samples, rows.tokenIds) }),
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
async function referenceLogprobs(part: Part, samples: readonly PlannedSample[], tokenIds: Tensor) {
  const { model, settings, options } = part;
  const hidden = await part.score(samples, "student", "initial");
  const { temperature } = settings;
  const inputs = { hidden, head: part.head("initial"), tokenIds };
  const outputs = await run(model.device, "linear_statistics", inputs, { temperature }, options);
  for (const tensor of Object.values(outputs)) part.keep(tensor);
  return outputs.logprobs;
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
    const dHidden = await lossGradient(part, part.keep(hidden), samples);
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
  const none = () => ({ computed: 0, withoutSharing: 0, seconds: 0 });
  const start = performance.now();
  const total: Gradient = { loss: 0, rows: new RowStatistics(), score: none(), train: none() };
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
