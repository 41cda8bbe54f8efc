// Made by native/generate-types.mjs from the op schemas; do not edit.
import type { Tensor } from "./tensor.js";

export type OpName =
  | "distill_loss"
  | "matmul";

export interface OpInputs {
  distill_loss: {
    /** f32 | bf16 [N, V] */
    studentLogits: Tensor;
    /** f32 | bf16 [N, V] */
    teacherLogits: Tensor;
    /** f32 | bf16 [N, V] */
    initialTeacherLogits?: Tensor;
    /** i32 [N] */
    tokenIds: Tensor;
    /** f32 [N] */
    weights: Tensor;
    /** f32 [N] */
    coefficients: Tensor;
    /** f32 [N] */
    oldLogprobs?: Tensor;
    /** f32 [N] */
    advantages?: Tensor;
  };
  matmul: {
    /** f32 | bf16 [A0, A1] */
    a: Tensor;
    /** f32 | bf16 [B0, B1] */
    b: Tensor;
    /** f32 [M, N] */
    c?: Tensor;
  };
}

export interface OpAttributes {
  distill_loss: {
    /** default "logit" */
    credit?: "logit" | "token" | "sequence";
    /** default 0.5 */
    alpha?: number;
    /** default null */
    topK?: number | null;
    /** default true */
    tail?: boolean;
    /** default null */
    isClip?: number | null;
    /** default null */
    advantageClip?: number | null;
    /** default null */
    teacherRate?: number | null;
    /** default 1 */
    temperature?: number;
    /** default true */
    gradient?: boolean;
    /** default false */
    inPlace?: boolean;
  };
  matmul: {
    /** default false */
    transposeA?: boolean;
    /** default false */
    transposeB?: boolean;
    /** default false */
    rowInvariant?: boolean;
  };
}

export interface OpOutputs {
  distill_loss: {
    /** f32 [N] */
    tokenLoss: Tensor;
    /** f32 [N] */
    studentLogprobs: Tensor;
    /** f32 [N] */
    teacherLogprobs: Tensor;
    /** f32 [N] */
    studentLse: Tensor;
    /** f32 [N] */
    teacherLse: Tensor;
    /** f32 [N] */
    entropy: Tensor;
    /** f32 [N] */
    kl: Tensor;
    /** f32 [N] */
    ratio: Tensor;
    /** f32 [N] */
    studentTopkMass: Tensor;
    /** f32 [N] */
    teacherTopkMass: Tensor;
    /** the input's dtype [N, V] */
    dlogits?: Tensor;
  };
  matmul: {
    /** f32 [M, N] */
    c: Tensor;
  };
}
