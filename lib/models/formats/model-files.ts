import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type ModelConfig, parseModelConfig, parseTokenIds } from "./config.js";
import { fileError, readWhole, type TensorSource } from "./files.js";
import { readGguf } from "./gguf.js";
import { ggufModel } from "./gguf-model.js";
import { Fields, parseJson } from "./json.js";
import { selectParameters } from "./parameters.js";
import { exists, readSafetensors, readSafetensorsFolder } from "./safetensors.js";

const JSON_LIMIT = 16 << 20;

/** A model on disk, checked, with none of its weights read. */
export interface ModelFiles {
  config: ModelConfig;
  /** Every parameter, by Hugging Face name, in the order of `expectedParameters`. */
  parameters: Map<string, TensorSource>;
  /** Where tokenizer files lie: the folder, or the GGUF file. */
  tokenizerPath: string;
}

/**
 * Opens a Hugging Face folder, a `.safetensors` file with `config.json` beside it, or a `.gguf` file.
 * Where there is a `generation_config.json`, its end tokens replace those of `config.json`, as in transformers.
 * Throws ERR_SDPO_FILE, ERR_SDPO_MODEL.
 */
export async function readModel(path: string): Promise<ModelFiles> {
  if (path.endsWith(".gguf")) {
    const { config, tensors } = await ggufModel(await readGguf(path));
    return { config, parameters: await selectParameters(config, tensors, path), tokenizerPath: path };
  }
  const single = path.endsWith(".safetensors") && !(await isFolder(path));
  const folder = single ? dirname(path) : path;
  if (!single && !(await isFolder(path)))
    throw fileError(path, "is neither a folder nor a .safetensors or .gguf file; give the path of a model");
  const config = await readConfig(folder);
  const tensors = single ? (await readSafetensors(path)).tensors : await readSafetensorsFolder(folder);
  return { config, parameters: await selectParameters(config, tensors, path), tokenizerPath: folder };
}

/** The configuration in a Hugging Face folder. */
export async function readConfig(folder: string): Promise<ModelConfig> {
  const file = join(folder, "config.json");
  const config = parseModelConfig(parseJson(await readWhole(file, JSON_LIMIT), file), file);
  const generation = join(folder, "generation_config.json");
  if (await exists(generation)) {
    const json = parseJson(await readWhole(generation, JSON_LIMIT), generation);
    const ids = parseTokenIds(new Fields(json, generation), "eos_token_id");
    if (ids.length > 0) config.eosTokenIds = ids;
  }
  return config;
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
}
