import { Command } from "commander";
import { SdpoError } from "../errors.js";
import {
  collect,
  deviceOption,
  environmentOption,
  environmentOptionsOption,
  modelOption,
  OPTION_NOTES,
  seedOption,
} from "./arguments.js";
import { type CliIo, interruptible, print } from "./io.js";
import type { ConfigOptions } from "./train-config.js";

interface Options extends ConfigOptions {
  keys?: boolean;
}

const EXAMPLES = `
Learns the answers that the environment knows for its tasks, nothing else, and writes the model. Needs a model, an
environment, data and an output, from --config or the options above. Every other key has a default: --seed 0, --device
auto; --keys lists all of them.

Example:
  sdpo sft -m model.gguf -e mcq -d train.json -o warm --option omitReasoningRequest=true \\
    --set rows=64 --set maxPromptTokens=330
`;

/** `sdpo sft`. */
export function sftCommand(io: CliIo): Command {
  return new Command("sft")
    .description("warm a model start: supervised learning of a data set's own answers")
    .option("-c, --config <file>", "a JSON file of keys")
    .option("--set <key=value>", "one key; may be repeated", collect)
    .addOption(modelOption())
    .option("-d, --data <source>", "tasks with answers: a file of rows, or what else the environment takes")
    .addOption(environmentOption())
    .addOption(environmentOptionsOption())
    .option("-o, --output <folder>", "where the model is written, as a Hugging Face folder")
    .addOption(seedOption())
    .addOption(deviceOption())
    .option("--keys", "list all keys, and end")
    .addHelpText("after", OPTION_NOTES + EXAMPLES)
    .action((options: Options) => interruptible((signal) => warmStart(io, options, signal)));
}

async function warmStart(io: CliIo, options: Options, signal: AbortSignal): Promise<void> {
  if (options.keys) {
    const [{ sftKeys }, { describeKeys }] = [await import("../config.js"), await import("./settings.js")];
    io.stdout.write(describeKeys(sftKeys));
    return;
  }
  const { readSftConfig } = await import("./train-config.js");
  const config = await readSftConfig(options);
  if (config.output === null) {
    throw new SdpoError("ERR_SDPO_CONFIG", "output is missing; name a folder for the model with --output");
  }
  const { sft } = await import("../trainer/sft.js");
  const { Progress } = await import("../trainer/progress.js");
  const progress = new Progress(io.stdout);
  for await (const { step, steps, metrics } of sft(config, { signal, log: (text) => progress.note(text) })) {
    if (step === 1) progress.start();
    progress.step({ step, steps, loss: metrics.loss, tokens: metrics["tokens.train"] ?? 0 });
  }
  progress.end();
  print(io, `model: ${config.output}`);
}
