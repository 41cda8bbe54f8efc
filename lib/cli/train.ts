import { Command } from "commander";
import type { TrainConfig } from "../config.js";
import { SdpoError } from "../errors.js";
import type { Progress } from "../trainer/progress.js";
import type { Trainer } from "../trainer/trainer.js";
import {
  collect,
  countFrom,
  deviceOption,
  environmentOption,
  environmentOptionsOption,
  modelOption,
  OPTION_NOTES,
  seedOption,
} from "./arguments.js";
import { type CliIo, onStop, print } from "./io.js";
import type { ConfigOptions } from "./train-config.js";

interface Options extends ConfigOptions {
  dryRun?: boolean;
  json?: boolean;
  keys?: boolean;
}

const EXAMPLES = `
A configuration is put together from --preset, then --config, then the options above and --set. It needs a model, an
environment, data and an output; with --resume they are those of the run folder. Every other key has a default: --steps
100, --seed 0, --device auto; --keys lists all of them.

Examples:
  sdpo train --preset smollm2-cpu -m model -d train.json -o runs/first --dry-run
  sdpo train --preset smollm2-cpu -m model -d train.json -o runs/first --set alpha=1 --set steps=50
  sdpo train --resume -o runs/first

Ctrl-C or SIGTERM finishes the step and writes a checkpoint; a second one exits at once.
`;

/** `sdpo train`. */
export function trainCommand(io: CliIo): Command {
  return new Command("train")
    .description("train a model by self-distillation (SDPO), GRPO or a blend of both")
    .option("-c, --config <file>", "a JSON file of configuration keys")
    .option("-p, --preset <name>", "a recipe to start from; `sdpo presets` lists them")
    .option("--set <key=value>", "one key of the configuration; may be repeated", collect)
    .addOption(modelOption())
    .option("-d, --data <source>", "training tasks: a file of rows, or what else the environment takes")
    .addOption(environmentOption())
    .addOption(environmentOptionsOption())
    .option("-o, --output <folder>", "the run folder: configuration, metrics, rollouts, checkpoints")
    .option("--steps <n>", "generation batches in all", countFrom(1))
    .addOption(seedOption())
    .addOption(deviceOption())
    .option("--resume", "go on from the newest checkpoint in the run folder")
    .option("--dry-run", "show sizes, tokens and memory of what would run, and end")
    .option("--json", "with --dry-run: as JSON")
    .option("--keys", "list all keys of the configuration, and end")
    .addHelpText("after", OPTION_NOTES + EXAMPLES)
    .action((options: Options) => train(io, options));
}

async function train(io: CliIo, options: Options): Promise<void> {
  if (options.keys) {
    const [{ trainKeys }, { describeKeys }] = [await import("../config.js"), await import("./settings.js")];
    io.stdout.write(describeKeys(trainKeys));
    return;
  }
  const { readTrainConfig } = await import("./train-config.js");
  const config = await readTrainConfig(options);
  if (options.dryRun) {
    await (await import("./dry-run.js")).printDryRun(io, config, options.json ?? false);
  } else if (config.output === null) {
    const remedy = "name the run folder with --output, or look at what would run with --dry-run";
    throw new SdpoError("ERR_SDPO_CONFIG", `output is missing; ${remedy}`);
  } else {
    await runTraining(io, { ...config, output: config.output });
  }
}

/** Trains to the end, or to the step in which the process is asked to stop. */
async function runTraining(io: CliIo, config: TrainConfig & { output: string }): Promise<void> {
  const { configWarnings, usedConfig } = await import("../config.js");
  const { Progress } = await import("../trainer/progress.js");
  const { checkRunFolder } = await import("../trainer/run-folder.js");
  const { Trainer } = await import("../trainer/trainer.js");
  await checkRunFolder(config);
  const progress = new Progress(io.stdout);
  for (const warning of configWarnings(config)) progress.note(`warning: ${warning}`);
  const stop = { requested: false };
  const release = onStop(() => {
    stop.requested = true;
    progress.note("Finishing the step, then a checkpoint. Ctrl-C again exits at once.");
  });
  try {
    using trainer = await Trainer.create(usedConfig(config), {
      onPhase: (phase, done, total) => progress.phase(phase, done, total),
      log: (message) => progress.note(message),
    });
    await runSteps(trainer, progress, stop);
    const isShort = trainer.step < config.steps;
    const checkpoint = isShort && trainer.step > 0 ? await trainer.checkpoint() : undefined;
    const left = isShort
      ? `, stopped${checkpoint ? "; --resume goes on from there" : " before the first"}`
      : "";
    print(io, `step ${trainer.step} of ${config.steps}${left}; run folder: ${config.output}`);
  } finally {
    release();
  }
}

async function runSteps(
  trainer: Trainer,
  progress: Progress,
  stop: { readonly requested: boolean },
): Promise<void> {
  const { steps } = trainer.config;
  progress.start();
  if (stop.requested) return;
  for await (const { step, metrics, warnings } of trainer.run()) {
    for (const warning of warnings) progress.note(`warning: step ${step}: ${warning}`);
    const tokens = ["tokens.rollout", "tokens.score", "tokens.train"].reduce(
      (sum, name) => sum + (metrics[name] ?? 0),
      0,
    );
    progress.step({ step, steps, loss: metrics.loss, reward: metrics["reward.mean"], tokens });
    if (stop.requested) break;
  }
  progress.end();
}
