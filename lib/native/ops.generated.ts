// Made by native/generate-types.mjs from the op schemas; do not edit.
import type { Tensor } from "./tensor.js";

export type OpName =
  | "adamw"
  | "add"
  | "attention_bwd"
  | "attention_fwd"
  | "attention_paged"
  | "bias_add"
  | "bias_bwd"
  | "cross_entropy"
  | "distill_loss"
  | "embed_bwd"
  | "embed_fwd"
  | "gather_rows"
  | "grad_norm"
  | "kv_store"
  | "lerp"
  | "linear_cross_entropy"
  | "linear_distill_loss"
  | "linear_policy_loss"
  | "linear_statistics"
  | "matmul"
  | "philox"
  | "policy_loss"
  | "rmsnorm_bwd"
  | "rmsnorm_fwd"
  | "rope"
  | "row_statistics"
  | "sample"
  | "scale"
  | "scatter_rows"
  | "swiglu_bwd"
  | "swiglu_fwd";

export interface OpInputs {
  adamw: {
    /** f32 | bf16 [*N] */
    parameter: Tensor;
    /** f32 [*N] */
    gradient: Tensor;
    /** f32 | bf16 [*N] */
    firstMoment: Tensor;
    /** f32 | bf16 [*N] */
    secondMoment: Tensor;
    /** f32 [*N] */
    master?: Tensor;
    /** f32 | bf16 [*N] */
    ema?: Tensor;
    /** f32 [2] */
    norm?: Tensor;
  };
  add: {
    /** f32 [*N] */
    x: Tensor;
    /** f32 [*N] */
    y: Tensor;
  };
  attention_bwd: {
    /** f32 [T, H, E] */
    q: Tensor;
    /** f32 [T, K, E] */
    k: Tensor;
    /** f32 [T, K, E] */
    v: Tensor;
    /** f32 [T, H, E] */
    out: Tensor;
    /** f32 [T, H] */
    lse: Tensor;
    /** f32 [T, H, E] */
    dout: Tensor;
    /** i32 [S, 4] */
    segments: Tensor;
  };
  attention_fwd: {
    /** f32 [T, H, E] */
    q: Tensor;
    /** f32 [T, K, E] */
    k: Tensor;
    /** f32 [T, K, E] */
    v: Tensor;
    /** i32 [S, 4] */
    segments: Tensor;
  };
  attention_paged: {
    /** f32 [N, H, E] */
    q: Tensor;
    /** f32 | bf16 [P, B, K, E] */
    kPages: Tensor;
    /** f32 | bf16 [P, B, K, E] */
    vPages: Tensor;
    /** i32 [N, 2] */
    rows: Tensor;
    /** i32 [S1] */
    pageStarts: Tensor;
    /** i32 [L, 2] */
    pages: Tensor;
  };
  bias_add: {
    /** f32 [T, N] */
    x: Tensor;
    /** f32 | bf16 [N] */
    bias: Tensor;
  };
  bias_bwd: {
    /** f32 [T, N] */
    dy: Tensor;
    /** f32 [N] */
    dbias: Tensor;
  };
  cross_entropy: {
    /** f32 | bf16 [N, V] */
    logits: Tensor;
    /** i32 [N] */
    tokenIds: Tensor;
    /** f32 [N] */
    weights: Tensor;
    /** f32 [N] */
    coefficients: Tensor;
  };
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
  embed_bwd: {
    /** i32 [T] */
    ids: Tensor;
    /** f32 [T, D] */
    dx: Tensor;
    /** f32 [V, D] */
    dtable: Tensor;
  };
  embed_fwd: {
    /** i32 [T] */
    ids: Tensor;
    /** f32 | bf16 [V, D] */
    table: Tensor;
  };
  gather_rows: {
    /** f32 [T, D] */
    x: Tensor;
    /** i32 [N] */
    index: Tensor;
  };
  grad_norm: {
    /** f32 [*N] */
    gradient: Tensor;
  };
  kv_store: {
    /** f32 [N, K, E] */
    k: Tensor;
    /** f32 [N, K, E] */
    v: Tensor;
    /** i32 [N] */
    slots: Tensor;
    /** f32 | bf16 [P, B, K, E] */
    kPages: Tensor;
    /** f32 | bf16 [P, B, K, E] */
    vPages: Tensor;
  };
  lerp: {
    /** f32 | bf16 [*N] */
    x: Tensor;
    /** f32 | bf16 [*N] */
    y: Tensor;
  };
  linear_cross_entropy: {
    /** f32 [N, D] */
    hidden: Tensor;
    /** f32 | bf16 [V, D] */
    head: Tensor;
    /** i32 [N] */
    tokenIds: Tensor;
    /** f32 [N] */
    weights: Tensor;
    /** f32 [N] */
    coefficients: Tensor;
    /** f32 [V, D] */
    dHead?: Tensor;
  };
  linear_distill_loss: {
    /** f32 [N, D] */
    studentHidden: Tensor;
    /** f32 | bf16 [V, D] */
    studentHead: Tensor;
    /** f32 [N, E] */
    teacherHidden: Tensor;
    /** f32 | bf16 [V, E] */
    teacherHead: Tensor;
    /** f32 [N, F] */
    initialTeacherHidden?: Tensor;
    /** f32 | bf16 [V, F] */
    initialTeacherHead?: Tensor;
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
    /** f32 [V, D] */
    dHead?: Tensor;
  };
  linear_policy_loss: {
    /** f32 [N, D] */
    hidden: Tensor;
    /** f32 | bf16 [V, D] */
    head: Tensor;
    /** i32 [N] */
    tokenIds: Tensor;
    /** f32 [N] */
    weights: Tensor;
    /** f32 [N] */
    coefficients: Tensor;
    /** f32 [N] */
    oldLogprobs: Tensor;
    /** f32 [N] */
    advantages: Tensor;
    /** f32 [N] */
    referenceLogprobs?: Tensor;
    /** f32 [V, D] */
    dHead?: Tensor;
  };
  linear_statistics: {
    /** f32 [N, D] */
    hidden: Tensor;
    /** f32 | bf16 [V, D] */
    head: Tensor;
    /** i32 [N] */
    tokenIds: Tensor;
  };
  matmul: {
    /** f32 | bf16 [A0, A1] */
    a: Tensor;
    /** f32 | bf16 [B0, B1] */
    b: Tensor;
    /** f32 [M, N] */
    c?: Tensor;
  };
  philox: {
    /** i32 [N, 6] */
    counters: Tensor;
  };
  policy_loss: {
    /** f32 | bf16 [N, V] */
    logits: Tensor;
    /** i32 [N] */
    tokenIds: Tensor;
    /** f32 [N] */
    weights: Tensor;
    /** f32 [N] */
    coefficients: Tensor;
    /** f32 [N] */
    oldLogprobs: Tensor;
    /** f32 [N] */
    advantages: Tensor;
    /** f32 [N] */
    referenceLogprobs?: Tensor;
  };
  rmsnorm_bwd: {
    /** f32 [T, D] */
    x: Tensor;
    /** f32 | bf16 [D] */
    weight: Tensor;
    /** f32 [T] */
    rstd: Tensor;
    /** f32 [T, D] */
    dy: Tensor;
    /** f32 [T, D] */
    dx?: Tensor;
    /** f32 [D] */
    dweight?: Tensor;
  };
  rmsnorm_fwd: {
    /** f32 [T, D] */
    x: Tensor;
    /** f32 | bf16 [D] */
    weight: Tensor;
  };
  rope: {
    /** f32 [T, H, E] */
    x: Tensor;
    /** i32 [T] */
    positions: Tensor;
    /** f32 [F] */
    invFreq: Tensor;
  };
  row_statistics: {
    /** f32 | bf16 [N, V] */
    logits: Tensor;
    /** i32 [N] */
    tokenIds: Tensor;
  };
  sample: {
    /** f32 [N, V] */
    logits: Tensor;
    /** f32 [N, 3] */
    parameters: Tensor;
    /** i32 [N] */
    topK: Tensor;
    /** i32 [N, 6] */
    counters: Tensor;
  };
  scale: {
    /** f32 [*N] */
    x: Tensor;
  };
  scatter_rows: {
    /** f32 [N, D] */
    dy: Tensor;
    /** i32 [N] */
    index: Tensor;
    /** f32 [T, D] */
    dx: Tensor;
  };
  swiglu_bwd: {
    /** f32 [T, I] */
    gate: Tensor;
    /** f32 [T, I] */
    up: Tensor;
    /** f32 [T, I] */
    dy: Tensor;
  };
  swiglu_fwd: {
    /** f32 [T, I] */
    gate: Tensor;
    /** f32 [T, I] */
    up: Tensor;
  };
}

export interface OpAttributes {
  adamw: {
    /** default null */
    learningRate?: number;
    /** default 0.9 */
    beta1?: number;
    /** default 0.999 */
    beta2?: number;
    /** default 1e-8 */
    epsilon?: number;
    /** default 0.01 */
    weightDecay?: number;
    /** default 0 */
    step?: number;
    /** default 1 */
    gradientScale?: number;
    /** default null */
    emaRate?: number | null;
    /** default null */
    clipNorm?: number | null;
    /** default null */
    roundingSeed?: number | null;
  };
  add: { [name: string]: never };
  attention_bwd: {
    /** default 0 */
    window?: number;
    /** default null */
    scale?: number | null;
  };
  attention_fwd: {
    /** default 0 */
    window?: number;
    /** default null */
    scale?: number | null;
  };
  attention_paged: {
    /** default 0 */
    window?: number;
    /** default null */
    scale?: number | null;
  };
  bias_add: { [name: string]: never };
  bias_bwd: { [name: string]: never };
  cross_entropy: {
    /** default true */
    gradient?: boolean;
    /** default false */
    inPlace?: boolean;
  };
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
  embed_bwd: { [name: string]: never };
  embed_fwd: { [name: string]: never };
  gather_rows: { [name: string]: never };
  grad_norm: { [name: string]: never };
  kv_store: { [name: string]: never };
  lerp: {
    /** default 0 */
    rate?: number;
  };
  linear_cross_entropy: {
    /** default true */
    gradient?: boolean;
    /** default 0 */
    chunkTokens?: number;
  };
  linear_distill_loss: {
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
    /** default 0 */
    chunkTokens?: number;
  };
  linear_policy_loss: {
    /** default 0.2 */
    clipLow?: number;
    /** default 0.2 */
    clipHigh?: number;
    /** default null */
    dualClip?: number | null;
    /** default 0 */
    klCoefficient?: number;
    /** default "k1" */
    klKind?: "k1" | "k2" | "k3";
    /** default 1 */
    temperature?: number;
    /** default true */
    gradient?: boolean;
    /** default 0 */
    chunkTokens?: number;
  };
  linear_statistics: {
    /** default 1 */
    temperature?: number;
    /** default 0 */
    chunkTokens?: number;
  };
  matmul: {
    /** default false */
    transposeA?: boolean;
    /** default false */
    transposeB?: boolean;
    /** default false */
    rowInvariant?: boolean;
    /** default false */
    bf16Compute?: boolean;
  };
  philox: { [name: string]: never };
  policy_loss: {
    /** default 0.2 */
    clipLow?: number;
    /** default 0.2 */
    clipHigh?: number;
    /** default null */
    dualClip?: number | null;
    /** default 0 */
    klCoefficient?: number;
    /** default "k1" */
    klKind?: "k1" | "k2" | "k3";
    /** default 1 */
    temperature?: number;
    /** default true */
    gradient?: boolean;
    /** default false */
    inPlace?: boolean;
  };
  rmsnorm_bwd: { [name: string]: never };
  rmsnorm_fwd: {
    /** default 0.000001 */
    eps?: number;
  };
  rope: {
    /** default 1 */
    attentionFactor?: number;
    /** default false */
    inverse?: boolean;
  };
  row_statistics: {
    /** default 1 */
    temperature?: number;
  };
  sample: { [name: string]: never };
  scale: {
    /** default 1 */
    factor?: number;
  };
  scatter_rows: { [name: string]: never };
  swiglu_bwd: { [name: string]: never };
  swiglu_fwd: { [name: string]: never };
}

export interface OpOutputs {
  adamw: {
    /** the input's dtype [*N] */
    parameter: Tensor;
    /** the input's dtype [*N] */
    firstMoment: Tensor;
    /** the input's dtype [*N] */
    secondMoment: Tensor;
    /** f32 [*N] */
    master?: Tensor;
    /** the input's dtype [*N] */
    ema?: Tensor;
  };
  add: {
    /** f32 [*N] */
    x: Tensor;
  };
  attention_bwd: {
    /** f32 [T, H, E] */
    dq: Tensor;
    /** f32 [T, K, E] */
    dk: Tensor;
    /** f32 [T, K, E] */
    dv: Tensor;
  };
  attention_fwd: {
    /** f32 [T, H, E] */
    out: Tensor;
    /** f32 [T, H] */
    lse: Tensor;
  };
  attention_paged: {
    /** f32 [N, H, E] */
    out: Tensor;
  };
  bias_add: {
    /** f32 [T, N] */
    x: Tensor;
  };
  bias_bwd: {
    /** f32 [N] */
    dbias: Tensor;
  };
  cross_entropy: {
    /** f32 [N] */
    tokenLoss: Tensor;
    /** f32 [N] */
    logprobs: Tensor;
    /** the input's dtype [N, V] */
    dlogits?: Tensor;
  };
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
  embed_bwd: {
    /** f32 [V, D] */
    dtable: Tensor;
  };
  embed_fwd: {
    /** f32 [T, D] */
    x: Tensor;
  };
  gather_rows: {
    /** f32 [N, D] */
    y: Tensor;
  };
  grad_norm: {
    /** f32 [2] */
    norm: Tensor;
  };
  kv_store: {
    /** the input's dtype [P, B, K, E] */
    kPages: Tensor;
    /** the input's dtype [P, B, K, E] */
    vPages: Tensor;
  };
  lerp: {
    /** the input's dtype [*N] */
    x: Tensor;
  };
  linear_cross_entropy: {
    /** f32 [N] */
    tokenLoss: Tensor;
    /** f32 [N] */
    logprobs: Tensor;
    /** f32 [N, D] */
    dHidden?: Tensor;
    /** f32 [V, D] */
    dHead?: Tensor;
  };
  linear_distill_loss: {
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
    /** f32 [N, D] */
    dHidden?: Tensor;
    /** f32 [V, D] */
    dHead?: Tensor;
  };
  linear_policy_loss: {
    /** f32 [N] */
    tokenLoss: Tensor;
    /** f32 [N] */
    logprobs: Tensor;
    /** f32 [N] */
    entropy: Tensor;
    /** f32 [N] */
    ratio: Tensor;
    /** f32 [N] */
    kl: Tensor;
    /** i32 [N] */
    clipped: Tensor;
    /** f32 [N, D] */
    dHidden?: Tensor;
    /** f32 [V, D] */
    dHead?: Tensor;
  };
  linear_statistics: {
    /** f32 [N] */
    logprobs: Tensor;
    /** f32 [N] */
    lse: Tensor;
    /** f32 [N] */
    entropy: Tensor;
    /** f32 [N] */
    max: Tensor;
  };
  matmul: {
    /** f32 [M, N] */
    c: Tensor;
  };
  philox: {
    /** i32 [N, 4] */
    words: Tensor;
  };
  policy_loss: {
    /** f32 [N] */
    tokenLoss: Tensor;
    /** f32 [N] */
    logprobs: Tensor;
    /** f32 [N] */
    entropy: Tensor;
    /** f32 [N] */
    ratio: Tensor;
    /** f32 [N] */
    kl: Tensor;
    /** i32 [N] */
    clipped: Tensor;
    /** the input's dtype [N, V] */
    dlogits?: Tensor;
  };
  rmsnorm_bwd: {
    /** f32 [T, D] */
    dx: Tensor;
    /** f32 [D] */
    dweight: Tensor;
  };
  rmsnorm_fwd: {
    /** f32 [T, D] */
    y: Tensor;
    /** f32 [T] */
    rstd: Tensor;
  };
  rope: {
    /** f32 [T, H, E] */
    x: Tensor;
  };
  row_statistics: {
    /** f32 [N] */
    logprobs: Tensor;
    /** f32 [N] */
    lse: Tensor;
    /** f32 [N] */
    entropy: Tensor;
    /** f32 [N] */
    max: Tensor;
  };
  sample: {
    /** i32 [N] */
    ids: Tensor;
    /** f32 [N] */
    logprobs: Tensor;
  };
  scale: {
    /** f32 [*N] */
    x: Tensor;
  };
  scatter_rows: {
    /** f32 [T, D] */
    dx: Tensor;
  };
  swiglu_bwd: {
    /** f32 [T, I] */
    dgate: Tensor;
    /** f32 [T, I] */
    dup: Tensor;
  };
  swiglu_fwd: {
    /** f32 [T, I] */
    y: Tensor;
  };
}
