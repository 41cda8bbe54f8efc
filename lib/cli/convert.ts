import { Command, Option } from "commander";
import { bytes, type CliIo, count, print } from "./io.js";

interface Options {
  dtype: "f32" | "bf16";
}

/** `sdpo convert`. */
export function convertCommand(io: CliIo): Command {
  return new Command("convert")
    .description("write a model (.gguf, .safetensors or folder) as a Hugging Face folder")
    .argument("<model>", "a .gguf or .safetensors file, or a Hugging Face folder")
    .argument("<folder>", "where to write; made where it is missing, must be empty")
    .addOption(new Option("--dtype <type>", "of the weights written").choices(["f32", "bf16"]).default("f32"))
    .addHelpText("after", "\nExample:\n  sdpo convert model.Q4_1.gguf model --dtype bf16\n")
    .action(async (model: string, folder: string, options: Options) => {
      await convert(io, model, folder, options.dtype);
    });
}

async function convert(io: CliIo, path: string, folder: string, dtype: "f32" | "bf16"): Promise<void> {
  const { refuseFilled } = await import("./folders.js");
  const { Model } = await import("../models/model.js");
  const { openDevice } = await import("../native/device.js");
  await refuseFilled(folder);
  using device = await openDevice("cpu");
  using model = await Model.load(path, { device, dtype });
  await model.save(folder);
  const parameters = model.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const size = bytes(parameters * (dtype === "bf16" ? 2 : 4));
  print(io, `${folder}: ${model.config.modelType}, ${count(parameters)} parameters, ${dtype}, ${size}`);
  if (!model.hasTokenizer) print(io, "There was no tokenizer to write.");
}
