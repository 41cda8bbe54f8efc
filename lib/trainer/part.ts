/** A micro-batch while its losses are computed, and what they add up to. */
import type { TrainConfig } from "../config.js";
import type { Model } from "../models/model.js";
import { type PackedSequences, packSequences } from "../models/packing.js";
import { run } from "../native/run.js";
import { Tensor } from "../native/tensor.js";
import { type PlannedSample, predictingRows } from "./batch.js";
import type { RowStatistics } from "./metrics.js";

/** What the losses need of a configuration. */
export type LossSettings = Pick<
  TrainConfig,
  | "algorithm"
  | "alpha"
  | "distillation"
  | "distillationTopK"
  | "tail"
  | "isClip"
  | "rolloutWeightClip"
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
  /** Weigh tokens by how far the weights have come since the generation batch began: where it has several updates. */
  importance: boolean;
  /** Is the sampler's arithmetic another than the trainer's? Then its logprobs do not serve as old ones. */
  samplerDiffers: boolean;
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
  /** Of passes without a gradient (teacher, reference, old logprobs), and of the student's with one. */
  score: PassCount;
  train: PassCount;
}

/** One micro-batch while it is computed: its tensors are let go of together. */
export class Part {
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
    const ids = concatenatedIds(samples);
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

  /** log p of the samples' tokens from hidden states of their rows. */
  async logprobs(hidden: Tensor, samples: readonly PlannedSample[], slot: string): Promise<Tensor> {
    const ids = concatenatedIds(samples);
    const inputs = {
      hidden,
      head: this.head(slot),
      tokenIds: this.keep(Tensor.from(this.model.device, ids, [ids.length])),
    };
    const { temperature } = this.settings;
    const outputs = await run(this.model.device, "linear_statistics", inputs, { temperature }, this.options);
    for (const tensor of Object.values(outputs)) this.keep(tensor);
    return outputs.logprobs;
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

const concatenatedIds = (samples: readonly PlannedSample[]) =>
  Int32Array.from(samples.flatMap(({ targets }) => [...targets]));

export const noTokens = (): PassCount => ({ computed: 0, withoutSharing: 0, seconds: 0 });

export function countTokens(total: PassCount, packed: PackedSequences): void {
  total.computed += packed.ids.length;
  total.withoutSharing += packed.totalTokens;
}

export function concatenated(arrays: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const array of arrays) {
    all.set(array, at);
    at += array.length;
  }
  return all;
}
