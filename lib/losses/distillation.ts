import type { Device } from "../native/device.js";
import type { OpOutputs } from "../native/ops.generated.js";
import { run } from "../native/run.js";
import type { Tensor } from "../native/tensor.js";
import {
  batchShape,
  checkBoolean,
  checkChoice,
  checkDevice,
  checkKeys,
  checkNumber,
  type FloatValues,
  type HostValues,
  hostMask,
  hostNumbers,
  refuse,
  reshaped,
  Temporaries,
} from "./arguments.js";
import {
  aggregate,
  type BatchOptions,
  batchOptionKeys,
  batchRows,
  type CompletionBatch,
  checkAggregation,
  checkInPlace,
  checkTemperature,
  completionKeys,
} from "./rows.js";

const credits = ["logit", "token", "sequence"] as const;

/** What of its completions every distillation loss takes. */
export interface DistillationBatch extends CompletionBatch {
  /** 1 for a rollout that has a teacher context, [B]; all by default. */
  distillationMask?: HostValues;
  /** log p(token) under the parameters at the start of the generation batch, [B,T]; without them the importance ratio is 1. */
  oldLogprobs?: HostValues;
}

/** Inputs of {@link distillationLoss}. */
export interface DistillationInputs extends DistillationBatch {
  /** [B,T,V] */
  studentLogits: FloatValues;
  /** [B,T,V] */
  teacherLogits: FloatValues;
  /** [B,T,V]: trust region, teacher = (1 - teacherRate) * initialTeacherLogits + teacherRate * teacherLogits. */
  initialTeacherLogits?: FloatValues;
}

export interface DistillationOptions extends BatchOptions {
  /** What a token's loss is: a divergence of the two distributions, or the sampled token's or the whole completion's advantage. Default "logit". */
  distillation?: (typeof credits)[number];
  /** 0: forward KL, 1: reverse KL, between: generalised JSD, which vanishes towards both ends. Default 0.5. */
  alpha?: number;
  /** Tokens of the support, the largest student logits; null for the whole vocabulary. Default 100. */
  topK?: number | null;
  /** One more bucket for the tokens outside the top K; else both sides are renormalised. Default true. */
  tail?: boolean;
  /** The largest importance ratio; null for none. Default 2. */
  isClip?: number | null;
  /** Bound of the advantages; needs alpha 1. */
  advantageClip?: number | null;
  /** The trust region's weight of the teacher. Default 0.01. */
  teacherRate?: number;
}

/** What distillation losses return; tensors are [B,T] unless said otherwise, statistics those of logits / temperature. */
export interface DistillationStatistics {
  loss: number;
  /** Weighted, before aggregation. */
  tokenLoss: Tensor;
  studentLogprobs: Tensor;
  teacherLogprobs: Tensor;
  studentLse: Tensor;
  teacherLse: Tensor;
  /** The student's. */
  entropy: Tensor;
  /** KL(student || teacher) over the support. */
  kl: Tensor;
  /** The importance ratio, not clipped. */
  ratio: Tensor;
  /** Mass of the top K under student and teacher. */
  studentTopkMass: Tensor;
  teacherTopkMass: Tensor;
}

/** Result of {@link distillationLoss}. */
export interface DistillationResult extends DistillationStatistics {
  /** d loss / d studentLogits, [B,T,V]. */
  dStudentLogits: Tensor;
}

type RowOutputs = Omit<OpOutputs["distill_loss"], "dlogits">;
/** @internal */
export const batchKeys = [...completionKeys, "distillationMask", "oldLogprobs"];
const optionKeys = [
  ...["distillation", "alpha", "topK", "tail", "isClip", "advantageClip", "teacherRate"],
  ...batchOptionKeys,
];
let warned = false;

function warnOfAlpha(alpha: number): void {
  if (warned || alpha === 0 || alpha === 1 || (alpha >= 0.05 && alpha <= 0.95)) return;
  warned = true;
  process.emitWarning(
    `alpha ${alpha}: the Jensen-Shannon divergence vanishes towards alpha 0 and 1, where the loss becomes a KL divergence. Use 0 or 1 for the KLs, or a value from 0.05 to 0.95.`,
    { code: "SDPO_ALPHA" },
  );
}

/** Checks options; fills in the defaults. @internal */
export function distillationAttributes(
  options: DistillationOptions,
  extraKeys: string[],
  trustRegion: boolean,
) {
  checkKeys("options", options, [...optionKeys, ...extraKeys]);
  const credit = checkChoice("distillation", options.distillation ?? "logit", credits);
  const alpha = checkNumber("alpha", options.alpha ?? 0.5, { least: 0, most: 1 });
  const advantageClip = options.advantageClip ?? null;
  if (advantageClip !== null) checkNumber("advantageClip", advantageClip, { least: 0, above: true });
  if (alpha !== 1 && (credit !== "logit" || advantageClip !== null)) {
    const cause = credit !== "logit" ? `distillation "${credit}"` : "advantageClip";
    throw refuse("alpha", `1, the reverse KL, which ${cause} needs`, alpha);
  }
  warnOfAlpha(alpha);
  const topK = options.topK === undefined ? 100 : options.topK;
  if (topK !== null) checkNumber("topK", topK, { least: 1, most: 2 ** 31, integer: true });
  const isClip = options.isClip === undefined ? 2 : options.isClip;
  if (isClip !== null) checkNumber("isClip", isClip, { least: 0, above: true });
  if (options.teacherRate !== undefined && !trustRegion) {
    throw refuse("teacherRate", "an initial teacher beside it (trust region)", options.teacherRate);
  }
  return {
    aggregation: checkAggregation(options),
    attributes: {
      credit,
      alpha,
      topK,
      tail: checkBoolean("tail", options.tail ?? true),
      isClip,
      advantageClip,
      teacherRate: trustRegion
        ? checkNumber("teacherRate", options.teacherRate ?? 0.01, { least: 0, most: 1 })
        : null,
      temperature: checkTemperature(options),
    },
  };
}

/** The row arguments of the distillation ops, and what its loss is aggregated with. @internal */
export async function distillationRows(
  temporaries: Temporaries,
  batch: DistillationBatch,
  shape: readonly [number, number, number],
  { aggregation }: ReturnType<typeof distillationAttributes>,
) {
  const [b, t] = shape;
  const completion = await hostMask("completionMask", batch.completionMask, [b, t]);
  const distilled =
    batch.distillationMask && (await hostMask("distillationMask", batch.distillationMask, [b]));
  const mask = Uint8Array.from(completion, (one, i) => one * (distilled ? distilled[Math.floor(i / t)]! : 1));
  const rows = await batchRows(temporaries, batch, mask, shape, aggregation);
  const old = batch.oldLogprobs && (await hostNumbers("oldLogprobs", batch.oldLogprobs, [b, t]));
  return {
    ...rows,
    completion,
    inputs: { ...rows.inputs, ...(old ? { oldLogprobs: temporaries.floats(old) } : {}) },
  };
}

type Rows = Awaited<ReturnType<typeof distillationRows>>;

/** The mean of log t - log p over each completion's tokens, bounded, at each of them. @internal */
export async function sequenceAdvantages(
  outputs: RowOutputs,
  completion: ArrayLike<number>,
  [b, t]: readonly number[],
  clip: number | null,
): Promise<Float32Array> {
  const student = await outputs.studentLogprobs.readFloats();
  const teacher = await outputs.teacherLogprobs.readFloats();
  const advantages = new Float32Array(student.length);
  for (let s = 0; s < b!; s++) {
    let sum = 0;
    let count = 0;
    for (let i = s * t!; i < (s + 1) * t!; i++) {
      if (completion[i] === 0) continue;
      sum += teacher[i]! - student[i]!;
      count++;
    }
    const mean = sum / Math.max(count, 1);
    const cut = clip === null ? mean : Math.min(Math.max(mean, -clip), clip);
    advantages.fill(cut, s * t!, (s + 1) * t!);
  }
  return advantages;
}

/** Loss and statistics in their [B,T] shape. @internal */
export async function statistics(
  outputs: RowOutputs,
  rows: Rows,
  [b, t]: readonly number[],
): Promise<DistillationStatistics> {
  const loss = await aggregate(outputs.tokenLoss, rows);
  const shape = [b!, t!];
  return {
    loss,
    tokenLoss: reshaped(outputs.tokenLoss, shape),
    studentLogprobs: reshaped(outputs.studentLogprobs, shape),
    teacherLogprobs: reshaped(outputs.teacherLogprobs, shape),
    studentLse: reshaped(outputs.studentLse, shape),
    teacherLse: reshaped(outputs.teacherLse, shape),
    entropy: reshaped(outputs.entropy, shape),
    kl: reshaped(outputs.kl, shape),
    ratio: reshaped(outputs.ratio, shape),
    studentTopkMass: reshaped(outputs.studentTopkMass, shape),
    teacherTopkMass: reshaped(outputs.teacherTopkMass, shape),
  };
}

/** Runs `op` once, or for sequence credit twice: its statistics give the advantages. @internal */
export async function withAdvantages<Outputs extends RowOutputs>(
  temporaries: Temporaries,
  rows: Rows,
  shape: readonly number[],
  attributes: ReturnType<typeof distillationAttributes>["attributes"],
  op: (inputs: Rows["inputs"] & { advantages?: Tensor }, gradient: boolean) => Promise<Outputs>,
): Promise<Outputs> {
  if (attributes.credit !== "sequence") return op(rows.inputs, true);
  const first = await op(rows.inputs, false);
  for (const tensor of Object.values(first)) temporaries.keep(tensor);
  const advantages = await sequenceAdvantages(first, rows.completion, shape, attributes.advantageClip);
  return op({ ...rows.inputs, advantages: temporaries.floats(advantages) }, true);
}

/**
 * The SDPO loss of a batch of completions and its gradient with respect to the student's logits
 * (arXiv 2601.20802). With a mask that is 0 everywhere, loss and gradient are 0.
 * @param options.inPlace the gradient takes studentLogits' memory, which must be a Tensor
 * @throws ERR_SDPO_ARGUMENT naming the argument, what was expected and what was given
 */
export async function distillationLoss(
  device: Device,
  inputs: DistillationInputs,
  options: DistillationOptions & { inPlace?: boolean } = {},
): Promise<DistillationResult> {
  checkDevice(device);
  checkKeys("inputs", inputs, ["studentLogits", "teacherLogits", "initialTeacherLogits", ...batchKeys]);
  const settings = distillationAttributes(options, ["inPlace"], inputs.initialTeacherLogits !== undefined);
  const inPlace = checkInPlace(options.inPlace, "studentLogits", inputs.studentLogits);
  const { studentLogits, tokenIds, completionMask } = inputs;
  const shape = batchShape("studentLogits", inputs.shape, studentLogits, [tokenIds, completionMask]);
  const temporaries = new Temporaries(device);
  try {
    const logits = {
      studentLogits: temporaries.matrix("studentLogits", studentLogits, shape),
      teacherLogits: temporaries.matrix("teacherLogits", inputs.teacherLogits, shape),
      ...(inputs.initialTeacherLogits === undefined
        ? {}
        : {
            initialTeacherLogits: temporaries.matrix(
              "initialTeacherLogits",
              inputs.initialTeacherLogits,
              shape,
            ),
          }),
    };
    const rows = await distillationRows(temporaries, inputs, shape, settings);
    const outputs = await withAdvantages(temporaries, rows, shape, settings.attributes, (given, gradient) =>
      run(device, "distill_loss", { ...logits, ...given }, { ...settings.attributes, gradient, inPlace }),
    );
    const dStudentLogits = reshaped(outputs.dlogits!, shape);
    return { ...(await statistics(outputs, rows, shape)), dStudentLogits };
  } finally {
    temporaries.dispose();
  }
}
