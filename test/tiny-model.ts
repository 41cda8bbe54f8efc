import { cp, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseModelConfig } from "../lib/models/formats/config.js";
import { Model } from "../lib/models/model.js";
import { type Device, openDevice } from "../lib/native/device.js";
import { run } from "../lib/native/run.js";
import { Tensor } from "../lib/native/tensor.js";
import { generator } from "./ops/helpers.js";

/** A tokenizer with 2,000 tokens and a Qwen3-like chat template. */
export const tokenizerFolder = fileURLToPath(new URL("golden/text/qwen", import.meta.url));
const TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

export interface TinyOptions {
  device?: Device;
  seed?: number;
  /** Standard deviation of the weights; larger ones give more decided distributions. */
  scale?: number;
  tied?: boolean;
}

/** A folder with a two-layer llama with random weights, its tokenizer beside it. */
export async function writeTinyModel({ device, seed = 1, scale = 0.2, tied = true }: TinyOptions = {}) {
  const folder = await mkdtemp(join(tmpdir(), "sdpo-tiny-"));
  const json = {
    model_type: "llama",
    vocab_size: 2000,
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 1024,
    tie_word_embeddings: tied,
    torch_dtype: "float32",
  };
  const used = device ?? (await openDevice("cpu"));
  const model = Model.create(parseModelConfig(json, "tiny"), { device: used });
  const uniform = generator(seed);
  for (const { name, shape } of model.parameters) {
    const size = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: size }, () =>
      shape.length === 1 ? 1 : (uniform() + uniform() + uniform() - 1.5) * 2 * scale,
    );
    const y = Tensor.from(used, values, shape);
    await run(used, "lerp", { x: model.parameter("weight", name), y }, { rate: 1 });
  }
  await model.save(folder);
  for (const name of TOKENIZER_FILES) await cp(join(tokenizerFolder, name), join(folder, name));
  model.dispose();
  return folder;
}

/** The same model, loaded. */
export async function loadTinyModel(options: TinyOptions = {}): Promise<Model> {
  const device = options.device ?? (await openDevice("cpu"));
  return Model.load(await writeTinyModel({ ...options, device }), { device });
}
