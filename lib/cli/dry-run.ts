import { type TrainConfig, usedConfig } from "../config.js";
import { dryRun } from "../trainer/dry-run.js";
import { availableMemory, bytes, type CliIo, count, print, printJson, printPairs } from "./io.js";

/** Prints what a configuration would run. Throws what `Trainer.create` would. */
export async function printDryRun(io: CliIo, config: TrainConfig, json: boolean): Promise<void> {
  const report = await dryRun(usedConfig(config));
  if (json) {
    printJson(io, { ...report, config: usedConfig(report.config) });
    return;
  }
  const { model, data, step, memory } = report;
  const { total, ...parts } = memory;
  const skipped = data.skipped > 0 ? `, ${data.skipped} with longer prompts left out` : "";
  const { mean, max } = data.promptTokens;
  for (const warning of report.warnings) print(io, `warning: ${warning}`);
  printPairs(io, [
    ["model", `${model.type}, ${count(model.parameters)} parameters in ${model.dtype}`],
    ["", `${model.layers} layers of ${model.hiddenSize}, vocabulary ${count(model.vocabSize)}`],
    ["data", `${count(data.tasks)} tasks${skipped}`],
    ["", `prompts of ${mean.toFixed(0)} tokens on average, ${max} at most`],
    ["steps", count(config.steps)],
    ["each step", `${count(step.rollouts)} rollouts, ${step.updates} updates`],
    ["", `at most ${count(step.rolloutTokens)} tokens generated`],
    [
      "",
      `at most ${count(step.scoreTokens)} tokens scored without a gradient (teacher, reference, old logprobs)`,
    ],
    ["", `at most ${count(step.trainTokens)} tokens trained on`],
    ["memory", `about ${bytes(total)} at most, ${bytes(availableMemory())} available here`],
    ...Object.entries(parts).map(([name, size]) => ["", `${bytes(size).padStart(8)} ${name}`] as const),
    ["checkpoint", bytes(report.checkpoint)],
  ]);
}
