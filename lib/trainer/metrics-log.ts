import { closeSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SdpoError } from "../errors.js";
import { METRICS } from "./run-folder.js";
import { TensorBoardWriter } from "./tensorboard.js";

/** A step's numbers by name, `step` among them. */
export type MetricsRecord = Record<string, number> & { step: number };

/** `metrics.jsonl` of a run folder, one line a step, and a TensorBoard event file where wanted. */
export class MetricsLog {
  readonly #file: string;
  #closed = false;
  readonly #descriptor: number;
  readonly #tensorboard: TensorBoardWriter | undefined;

  private constructor(file: string, tensorboard: TensorBoardWriter | undefined) {
    this.#file = file;
    this.#tensorboard = tensorboard;
    this.#descriptor = openSync(file, "a");
  }

  /**
   * Opens the log; lines are added to those that are there.
   * @param options.resumeStep the step that a resumed run goes on from
   * @throws ERR_SDPO_FILE
   */
  static open(runFolder: string, options: { tensorboard?: boolean; resumeStep?: number } = {}): MetricsLog {
    const firstStep = options.resumeStep === undefined ? undefined : options.resumeStep + 1;
    return writing(runFolder, () => {
      const board = options.tensorboard && new TensorBoardWriter(join(runFolder, "tensorboard"), firstStep);
      return new MetricsLog(join(runFolder, METRICS), board || undefined);
    });
  }

  /** Adds a step. Numbers that are not finite are null in the file. Throws ERR_SDPO_FILE. */
  write(record: MetricsRecord): void {
    const { step, ...scalars } = record;
    writing(this.#file, () => {
      writeFileSync(this.#descriptor, `${JSON.stringify(record)}\n`);
      this.#tensorboard?.write(step, scalars);
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#descriptor);
    this.#tensorboard?.close();
  }
}

function writing<T>(file: string, body: () => T): T {
  try {
    return body();
  } catch (cause) {
    throw new SdpoError("ERR_SDPO_FILE", `${file}: cannot be written: ${(cause as Error).message}`, {
      cause,
    });
  }
}
