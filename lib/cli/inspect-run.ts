import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { readSafetensors } from "../models/formats/safetensors.js";
import { checkpointFolder, checkpointSteps, openCheckpoint } from "../trainer/checkpoint.js";
import { METRICS } from "../trainer/run-folder.js";
import type { Report } from "./inspect.js";
import { bytes } from "./io.js";
import { readConfigFile } from "./settings.js";

/** A checkpoint's files, all of them checked. Throws ERR_SDPO_CHECKPOINT. */
export async function inspectCheckpoint(folder: string): Promise<Report> {
  const { step, state } = await openCheckpoint(folder);
  const files: Record<string, string> = {};
  for (const name of (await readdir(folder)).sort()) {
    const { size } = await stat(join(folder, name));
    const isTensors = name.endsWith(".safetensors");
    const tensors = isTensors ? (await readSafetensors(join(folder, name))).tensors.size : 0;
    files[name] = isTensors ? `${bytes(size)}, ${tensors} tensors` : bytes(size);
  }
  return {
    kind: "checkpoint",
    path: folder,
    step,
    whole: "yes",
    files,
    state: Object.keys(state).join(", "),
  };
}

/** A run's configuration, its last step and its checkpoints. */
export async function inspectRun(folder: string): Promise<Report> {
  const config = await readConfigFile(join(folder, "config.json")).catch(() => undefined);
  const checkpoints: Record<string, string> = {};
  for (const step of await checkpointSteps(folder)) {
    const name = `step-${step}`;
    checkpoints[name] = await openCheckpoint(await checkpointFolder(folder, step)).then(
      () => "whole",
      (error: Error) => `broken: ${error.message}`,
    );
  }
  const metrics = await readMetrics(join(folder, METRICS));
  return {
    kind: "run",
    path: folder,
    configuration: config ?? "config.json is missing or broken",
    steps: metrics.length,
    "last step": metrics.at(-1) ?? "none",
    checkpoints: Object.keys(checkpoints).length > 0 ? checkpoints : "none",
  };
}

/** The lines of a metrics log that are whole. */
async function readMetrics(file: string): Promise<unknown[]> {
  const text = await readFile(file, "utf8").catch(() => "");
  return text.split("\n").flatMap((line) => {
    try {
      return [JSON.parse(line)];
    } catch {
      return [];
    }
  });
}
