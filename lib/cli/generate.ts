import { Command, Option } from "commander";
import type { ChatMessage } from "../environments/types.js";
import { SdpoError } from "../errors.js";
import {
  collect,
  countFrom,
  deviceOption,
  dtypeOption,
  modelOption,
  numberIn,
  seedOption,
} from "./arguments.js";
import { type CliIo, interruptible } from "./io.js";

interface Options {
  model: string;
  system?: string;
  raw?: boolean;
  thinking?: boolean;
  device: string;
  dtype?: "f32" | "bf16";
  maxTokens: number;
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  stop?: string[];
  seed: number;
}

const EXAMPLES = `
Examples:
  sdpo generate -m model.gguf "Name three acids."
  cat question.txt | sdpo generate -m folder --temperature 0 --max-tokens 64

Ctrl-C ends the completion.
`;

/** `sdpo generate`. */
export function generateCommand(io: CliIo): Command {
  return new Command("generate")
    .description("complete a prompt, streamed to standard output")
    .argument("[prompt]", "what to ask; standard input by default")
    .addOption(modelOption().makeOptionMandatory())
    .option("--system <text>", "a system message")
    .option("--raw", "the prompt as it is, without the chat template")
    .option("--thinking", "let the chat template open a thinking block")
    .option("-n, --max-tokens <n>", "tokens at most", countFrom(1), 256)
    .option("-t, --temperature <x>", "0: the most probable token", numberIn(0, 100), 1)
    .option("--top-p <x>", "keep the most probable tokens with this mass", numberIn(1e-6, 1), 1)
    .option("--top-k <n>", "keep this many tokens; 0: all", countFrom(0), 0)
    .option("--min-p <x>", "keep tokens with this share of the best one's probability", numberIn(0, 1), 0)
    .addOption(new Option("--stop <text>", "ends the completion; may be repeated").argParser(collect))
    .addOption(seedOption().default(0))
    .addOption(deviceOption().default("auto"))
    .addOption(dtypeOption())
    .addHelpText("after", EXAMPLES)
    .action(async (prompt: string | undefined, options: Options) => {
      const asked = prompt ?? (await readInput(io));
      await interruptible((signal) => generate(io, asked, options, signal));
    });
}

/** Standard input as one text. Throws ERR_SDPO_ARGUMENT on a terminal, where nothing was given. */
async function readInput(io: CliIo): Promise<string> {
  if (io.stdin.isTTY) {
    throw new SdpoError("ERR_SDPO_ARGUMENT", "no prompt: give one as an argument or on standard input");
  }
  const chunks: Buffer[] = [];
  for await (const chunk of io.stdin) chunks.push(Buffer.from(chunk as Buffer));
  return Buffer.concat(chunks).toString("utf8");
}

async function generate(io: CliIo, prompt: string, options: Options, signal: AbortSignal): Promise<void> {
  if (prompt.trim() === "") throw new SdpoError("ERR_SDPO_ARGUMENT", "the prompt is empty; ask something");
  const { Model } = await import("../models/model.js");
  const { openDevice } = await import("../native/device.js");
  const { chatIds } = await import("../rollouts/prompt.js");
  const { model: path, system, raw, thinking = false, device: name, dtype, ...sampling } = options;
  using device = await openDevice(name);
  using model = await Model.load(path, { device, dtype });
  const before: ChatMessage[] = system === undefined ? [] : [{ role: "system", content: system }];
  const asked = raw
    ? model.tokenizer.encode(prompt, { addSpecialTokens: true })
    : chatIds(model.tokenizer, [...before, { role: "user", content: prompt }], thinking).ids;
  let begun = false;
  try {
    for await (const { text } of model.generate(asked, { ...sampling, signal })) {
      begun = true;
      io.stdout.write(text);
    }
  } finally {
    if (begun) io.stdout.write("\n");
  }
}
