import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { TokenizerFiles } from "../text/tokenizer.js";
import { toHfConfig } from "./formats/config.js";
import { readWhole, systemError } from "./formats/files.js";
import { exists } from "./formats/safetensors.js";
import { writeBytes, writeJson, writeSafetensorsFolder } from "./formats/safetensors-write.js";
import type { Model } from "./model.js";

const FILE_LIMIT = 1 << 28;
const TOKENIZER_FILES = [
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
  "generation_config.json",
];

/** See {@link Model.save}. */
export async function saveModel(model: Model, folder: string, slot: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw systemError(folder, "cannot be made", error);
  }
  using flat = model.flat(slot);
  const dtype = flat.dtype === "bf16" ? "BF16" : "F32";
  const tensors = model.parameters.map(({ name, shape }) => ({
    name,
    dtype,
    shape,
    data: async () => {
      using view = model.parameter(slot, name);
      return new Uint8Array(await view.readBytes());
    },
  }));
  await writeSafetensorsFolder(folder, tensors);
  await writeJson(join(folder, "config.json"), {
    ...toHfConfig(model.config),
    ...{ dtype: undefined, torch_dtype: dtype === "BF16" ? "bfloat16" : "float32" },
  });
  const origin = model.hasTokenizer ? model.tokenizer.origin : model.tokenizerPath;
  if (typeof origin === "object") await writeTokenizer(origin, folder);
  else if (origin !== "") await copyTokenizer(origin, folder, model.hasTokenizer);
}

async function writeTokenizer(files: TokenizerFiles, folder: string): Promise<void> {
  const { tokenizerJson, tokenizerConfig, chatTemplate, generationConfig } = files;
  await writeJson(join(folder, "tokenizer.json"), tokenizerJson);
  const template = chatTemplate === undefined ? {} : { chat_template: chatTemplate };
  await writeJson(join(folder, "tokenizer_config.json"), { ...(tokenizerConfig as object), ...template });
  if (generationConfig !== undefined)
    await writeJson(join(folder, "generation_config.json"), generationConfig);
  const stale = join(folder, "chat_template.jinja");
  try {
    // One that an earlier model left would win over the configuration's.
    await rm(stale, { force: true });
  } catch (error) {
    throw systemError(stale, "cannot be removed", error);
  }
}

async function copyTokenizer(source: string, folder: string, hasTokenizer: boolean): Promise<void> {
  for (const name of TOKENIZER_FILES) {
    const file = join(source, name);
    const required = hasTokenizer && name === "tokenizer.json";
    if (required || (await exists(file)))
      await writeBytes(join(folder, name), await readWhole(file, FILE_LIMIT));
  }
}
