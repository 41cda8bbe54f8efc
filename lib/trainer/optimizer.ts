import type { TrainConfig } from "../config.js";
import type { Model } from "../models/model.js";
import { run } from "../native/run.js";

export type ScheduleSettings = Pick<TrainConfig, "learningRate" | "schedule" | "warmupSteps" | "steps">;
export type OptimizerSettings = Pick<TrainConfig, "beta1" | "beta2" | "weightDecay" | "clipNorm">;

const EPSILON = 1e-8;

/**
 * The learning rate of a step (1 is the first). Warm-up reaches the full rate at its last step; linear and
 * cosine then fall so that the step after the last would have 0.
 */
export function learningRateAt(
  { learningRate, schedule, warmupSteps, steps }: ScheduleSettings,
  step: number,
): number {
  if (step <= warmupSteps) return (learningRate * step) / warmupSteps;
  if (schedule === "constant") return learningRate;
  const progress = Math.min(1, (step - 1 - warmupSteps) / Math.max(1, steps - warmupSteps));
  return learningRate * (schedule === "linear" ? 1 - progress : (1 + Math.cos(Math.PI * progress)) / 2);
}

/** Sets slot `to` to the values of slot `from`. */
export async function copySlot(model: Model, from: string, to: string): Promise<void> {
  using x = model.flat(to);
  using y = model.flat(from);
  (await run(model.device, "lerp", { x, y }, { rate: 1 })).x.dispose();
}

/**
 * AdamW (arXiv 1711.05101) over a model's flat slots: decoupled decay on matrices, clipping by the global norm,
 * f32 moments, and f32 master weights where the weights are bf16.
 */
export class Optimizer {
  /** Updates taken so far. */
  updates = 0;
  readonly #model: Model;
  readonly #settings: OptimizerSettings;

  private constructor(model: Model, settings: OptimizerSettings) {
    this.#model = model;
    this.#settings = settings;
  }

  /** Adds the optimizer's slots to the model; master weights start from the weights. */
  static async create(model: Model, settings: OptimizerSettings): Promise<Optimizer> {
    const optimizer = new Optimizer(model, settings);
    for (const slot of optimizer.slots) model.addSlot(slot, "f32");
    if (model.dtype === "bf16") await copySlot(model, "weight", "master");
    return optimizer;
  }

  /** The slots that belong into a checkpoint. */
  get slots(): string[] {
    return ["first_moment", "second_moment", ...(this.#model.dtype === "bf16" ? ["master"] : [])];
  }

  /** The weights in the best precision there is. */
  get #best(): string {
    return this.#model.dtype === "bf16" ? "master" : "weight";
  }

  /** The norm of slot "gradient"; NaN where an element is not finite. */
  async gradientNorm(): Promise<number> {
    using gradient = this.#model.flat("gradient");
    const { norm } = await run(this.#model.device, "grad_norm", { gradient });
    const [value, unfinished] = await norm.readFloats();
    norm.dispose();
    return unfinished === 0 ? value! : Number.NaN;
  }

  /**
   * One update from slot "gradient", whose norm is `norm`; with `emaRate`, slot "teacher" follows in the same pass.
   */
  async update(learningRate: number, norm: number, emaRate?: number): Promise<void> {
    const { clipNorm, weightDecay } = this.#settings;
    const gradientScale = clipNorm === null ? 1 : Math.min(1, clipNorm / (norm + 1e-6));
    this.updates++;
    await this.#updatePart("matrices", learningRate, gradientScale, weightDecay, emaRate);
    await this.#updatePart("vectors", learningRate, gradientScale, 0, emaRate);
  }

  async #updatePart(
    part: "matrices" | "vectors",
    learningRate: number,
    gradientScale: number,
    weightDecay: number,
    emaRate: number | undefined,
  ): Promise<void> {
    const model = this.#model;
    const { beta1, beta2 } = this.#settings;
    const inputs = {
      parameter: model.flat("weight", part),
      gradient: model.flat("gradient", part),
      firstMoment: model.flat("first_moment", part),
      secondMoment: model.flat("second_moment", part),
      ...(model.dtype === "bf16" && { master: model.flat("master", part) }),
      ...(emaRate !== undefined && { ema: model.flat("teacher", part) }),
    };
    const outputs = await run(model.device, "adamw", inputs, {
      learningRate,
      beta1,
      beta2,
      epsilon: EPSILON,
      weightDecay,
      step: this.updates,
      gradientScale,
      emaRate: emaRate ?? null,
    });
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.dispose();
  }

  /** teacher <- (1 - rate) teacher + rate weights, where it was not part of an update. */
  async updateTeacher(rate: number): Promise<void> {
    using x = this.#model.flat("teacher");
    using y = this.#model.flat(this.#best);
    (await run(this.#model.device, "lerp", { x, y }, { rate })).x.dispose();
  }
}
