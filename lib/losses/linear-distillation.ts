import type { Device } from "../native/device.js";
import { run } from "../native/run.js";
import { Tensor } from "../native/tensor.js";
import {
  batchShape,
  checkDevice,
  checkKeys,
  checkNumber,
  type FloatValues,
  refuse,
  reshaped,
  Temporaries,
} from "./arguments.js";
import {
  batchKeys,
  type DistillationBatch,
  type DistillationOptions,
  type DistillationStatistics,
  distillationAttributes,
  distillationRows,
  statistics,
  withAdvantages,
} from "./distillation.js";

/** Inputs of {@link linearDistillationLoss}. Hidden sizes of the models may differ. */
export interface LinearDistillationInputs extends DistillationBatch {
  /** Hidden states before the lm-head, f32 [B,T,D]. */
  studentHidden: FloatValues;
  /** The lm-head, [V,D]. */
  studentHead: FloatValues;
  teacherHidden: FloatValues;
  teacherHead: FloatValues;
  /** Trust region: the initial model's, both or neither. */
  initialTeacherHidden?: FloatValues;
  initialTeacherHead?: FloatValues;
  /** f32 [V,D] to add the head's gradient to; the result's dHead is this memory. */
  dHead?: Tensor;
}

/** Result of {@link linearDistillationLoss}. */
export interface LinearDistillationResult extends DistillationStatistics {
  /** d loss / d studentHidden, f32 [B,T,D]. */
  dHidden: Tensor;
  /** d loss / d studentHead, f32 [V,D], plus what the input `dHead` held. */
  dHead: Tensor;
}

const models = ["student", "teacher", "initialTeacher"] as const;
const modelKeys = models.flatMap((model) => [`${model}Hidden`, `${model}Head`]);

/** [B,T,V], and V from the head where no argument shows it. */
function shapeOfBatch(inputs: LinearDistillationInputs): [number, number, number] {
  const { studentHidden: hidden, studentHead: head, shape, tokenIds, completionMask } = inputs;
  if (shape !== undefined) return batchShape("studentHidden", shape, undefined, []);
  const [b, t, d] = batchShape("studentHidden", undefined, hidden, [tokenIds, completionMask]);
  if (head instanceof Tensor && head.shape.length === 2) return [b, t, head.shape[0]!];
  if (!(head instanceof Float32Array)) throw refuse("studentHead", "a Float32Array or a Tensor [V,D]", head);
  if (d === 0 || head.length % d !== 0)
    throw refuse("studentHead", `a multiple of the hidden size ${d} in length`, head);
  return [b, t, head.length / d];
}

/** Hidden states and head of one model as matrices. */
function modelMatrices(
  temporaries: Temporaries,
  inputs: LinearDistillationInputs,
  model: (typeof models)[number],
  [b, t, v]: readonly number[],
) {
  const hidden = inputs[`${model}Hidden`];
  const head = inputs[`${model}Head`];
  const length = hidden instanceof Tensor ? hidden.size : hidden instanceof Float32Array ? hidden.length : 0;
  const d = length / (b! * t!);
  if (!Number.isInteger(d) || d < 1)
    throw refuse(`${model}Hidden`, `a Tensor or a Float32Array of shape [${b},${t},D]`, hidden);
  const matrix = temporaries.matrix(`${model}Hidden`, hidden, [b!, t!, d]);
  if (matrix.dtype !== "f32") throw refuse(`${model}Hidden`, "f32 hidden states", hidden);
  return { hidden: matrix, head: temporaries.matrix(`${model}Head`, head, [v!, d]), d };
}

function checkTrustRegion(inputs: LinearDistillationInputs): boolean {
  const { initialTeacherHidden: hidden, initialTeacherHead: head } = inputs;
  if ((hidden === undefined) !== (head === undefined)) {
    const missing = hidden === undefined ? "initialTeacherHidden" : "initialTeacherHead";
    throw refuse(missing, "the trust region's hidden states and head, both", undefined);
  }
  return hidden !== undefined;
}

/**
 * {@link distillationLoss} from hidden states and lm-heads, in chunks of tokens: the logits of the whole batch
 * never exist. Gradients with respect to the student's hidden states and head.
 * @param options.chunkTokens tokens of a chunk; 0, the default, chooses
 * @throws ERR_SDPO_ARGUMENT naming the argument, what was expected and what was given
 */
export async function linearDistillationLoss(
  device: Device,
  inputs: LinearDistillationInputs,
  options: DistillationOptions & { chunkTokens?: number } = {},
): Promise<LinearDistillationResult> {
  checkDevice(device);
  checkKeys("inputs", inputs, [...modelKeys, "dHead", ...batchKeys]);
  const settings = distillationAttributes(options, ["chunkTokens"], checkTrustRegion(inputs));
  const chunkTokens = checkNumber("chunkTokens", options.chunkTokens ?? 0, {
    least: 0,
    most: 2 ** 31,
    integer: true,
  });
  const shape = shapeOfBatch(inputs);
  const temporaries = new Temporaries(device);
  try {
    const student = modelMatrices(temporaries, inputs, "student", shape);
    const teacher = modelMatrices(temporaries, inputs, "teacher", shape);
    const initial = checkTrustRegion(inputs) && modelMatrices(temporaries, inputs, "initialTeacher", shape);
    const { d } = student;
    if (inputs.dHead !== undefined && !(inputs.dHead instanceof Tensor && inputs.dHead.dtype === "f32"))
      throw refuse("dHead", `a Tensor f32 [${shape[2]},${d}]`, inputs.dHead);
    const tensors = {
      studentHidden: student.hidden,
      studentHead: student.head,
      teacherHidden: teacher.hidden,
      teacherHead: teacher.head,
      ...(initial ? { initialTeacherHidden: initial.hidden, initialTeacherHead: initial.head } : {}),
      ...(inputs.dHead ? { dHead: temporaries.matrix("dHead", inputs.dHead, [shape[2], d]) } : {}),
    };
    const rows = await distillationRows(temporaries, inputs, shape, settings);
    const attributes = { ...settings.attributes, chunkTokens };
    const outputs = await withAdvantages(temporaries, rows, shape, settings.attributes, (given, gradient) =>
      run(device, "linear_distill_loss", { ...tensors, ...given }, { ...attributes, gradient }),
    );
    const dHidden = reshaped(outputs.dHidden!, [shape[0], shape[1], d]);
    return { ...(await statistics(outputs, rows, shape)), dHidden, dHead: outputs.dHead! };
  } finally {
    temporaries.dispose();
  }
}
