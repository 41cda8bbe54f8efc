import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { SdpoError } from "../errors.js";
import { filesFromGguf } from "../text/gguf.js";
import { toHfConfig } from "./formats/config.js";
import { readGgufMetadata } from "./formats/gguf.js";
import { exists } from "./formats/safetensors.js";
import { writeJson, writeSafetensorsFolder } from "./formats/safetensors-write.js";
import type { Model } from "./model.js";

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
  } catch (cause) {
    throw new SdpoError("ERR_SDPO_FILE", `${folder}: cannot be made: ${(cause as Error).message}`, { cause });
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
  await saveTokenizer(model.tokenizerPath, folder);
}

async function saveTokenizer(source: string, folder: string): Promise<void> {
  if (source.endsWith(".gguf")) {
    const files = filesFromGguf(await readGgufMetadata(source), source);
    await writeJson(join(folder, "tokenizer.json"), files.tokenizerJson);
    const config = files.tokenizerConfig as Record<string, unknown> | undefined;
    await writeJson(join(folder, "tokenizer_config.json"), { ...config, chat_template: files.chatTemplate });
    return;
  }
  for (const name of TOKENIZER_FILES) {
    const file = join(source, name);
    if (source && (await exists(file))) await copyFile(file, join(folder, name));
  }
}
