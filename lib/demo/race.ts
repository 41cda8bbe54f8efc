import type { Device } from "../native/device.js";
import { Trainer } from "../trainer/trainer.js";
import { ALGORITHMS, type Algorithm, demoConfig, GENERATIONS } from "./settings.js";

/** One number for each algorithm. */
export type Each<T> = Record<Algorithm, T>;

/** Where both runs are after a step. */
export interface RacePoint {
  step: number;
  /** Generations of each run so far. */
  generations: number;
  /** Accuracy on the held-out tasks, in the steps that measure it. */
  accuracy?: Each<number>;
}

export interface RaceOptions {
  seed: number;
  steps: number;
  device: Device;
  signal?: AbortSignal | undefined;
}

const each = <T>(values: readonly T[]): Each<T> =>
  Object.fromEntries(ALGORITHMS.map((algorithm, i) => [algorithm, values[i]!])) as Each<T>;

/** Trains one model with SDPO and one with GRPO on the same tasks, step by step in turn. */
export async function* race({ seed, steps, device, signal }: RaceOptions): AsyncGenerator<RacePoint> {
  const trainers: Trainer[] = [];
  try {
    for (const algorithm of ALGORITHMS)
      trainers.push(await Trainer.create(demoConfig(algorithm, seed, steps), { device }));
    const runs = trainers.map((trainer) => trainer.run({ signal }));
    for (let step = 1; step <= steps; step++) {
      const metrics: Record<string, number>[] = [];
      for (const run of runs) metrics.push((await run.next()).value!.metrics);
      const accuracies = metrics.map((values) => values["evaluation.avg@1"]);
      yield {
        step,
        generations: step * GENERATIONS,
        ...(accuracies.every((value) => value !== undefined) && { accuracy: each(accuracies) }),
      };
    }
  } finally {
    for (const trainer of trainers) trainer.dispose();
  }
}
