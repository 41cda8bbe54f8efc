// Made by native/generate-types.mjs from the op schemas; do not edit.
import type { Tensor } from "./tensor.js";

export type OpName =
  | "matmul";

export interface OpInputs {
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
  matmul: {
    /** f32 [M, N] */
    c: Tensor;
  };
}
