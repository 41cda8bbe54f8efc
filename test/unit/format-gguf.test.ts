import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { ModelConfig } from "../../lib/models/formats/config.js";
import { readTensorBytes, type TensorSource } from "../../lib/models/formats/files.js";
import { readGguf, readGgufMetadata } from "../../lib/models/formats/gguf.js";
import { hfName } from "../../lib/models/formats/gguf-model.js";
import { readConfig, readModel } from "../../lib/models/formats/model-files.js";
import { expectedParameters } from "../../lib/models/formats/parameters.js";
import { readSafetensorsFolder } from "../../lib/models/formats/safetensors.js";

const golden = join(import.meta.dirname, "../golden");
const smollm2 = process.env.SDPO_TEST_GGUF;

/** Float32 rows in Hugging Face's order: (head, half, pair) from (head, pair, half). */
async function hfRows(source: TensorSource): Promise<Buffer> {
  const stored = await readTensorBytes(source);
  const dim = source.pairedHeadDim;
  if (dim === undefined) return stored;
  const rowBytes = stored.length / source.shape[0]!;
  const rows: Buffer[] = [];
  for (let head = 0; head < source.shape[0]! / dim; head++)
    for (let half = 0; half < 2; half++)
      for (let pair = 0; pair < dim / 2; pair++) {
        const row = head * dim + 2 * pair + half;
        rows.push(stored.subarray(row * rowBytes, (row + 1) * rowBytes));
      }
  return Buffer.concat(rows);
}

/** With an attention factor as GGUF holds it, in float32. */
function closely(config: ModelConfig): ModelConfig {
  const { scaling } = config.rope.full;
  if (scaling.kind !== "yarn") return config;
  const rounded = { ...scaling, attentionFactor: Math.fround(scaling.attentionFactor) };
  return { ...config, rope: { ...config.rope, full: { ...config.rope.full, scaling: rounded } } };
}

describe.each(["llama-tied-gqa-rope3", "qwen2-tied-bias", "qwen3-untied-headdim", "olmo3-sliding-yarn"])(
  "%s.gguf",
  (name) => {
    test("has the configuration and the weights of the folder it was made from", async () => {
      const folder = join(golden, "models", name);
      const { config, parameters } = await readModel(join(golden, "gguf", `${name}.gguf`));
      expect(closely(config)).toEqual(closely(await readConfig(folder)));
      const originals = await readSafetensorsFolder(folder);
      expect([...parameters.keys()].sort()).toEqual([...originals.keys()].sort());
      for (const [parameter, source] of parameters) {
        const original = originals.get(parameter)!;
        expect([parameter, source.shape, source.dtype]).toEqual([parameter, original.shape, "F32"]);
        expect((await hfRows(source)).equals(await readTensorBytes(original)), parameter).toBe(true);
        const paired = name.startsWith("llama") && /[qk]_proj/.test(parameter);
        expect(source.pairedHeadDim).toBe(paired ? config.headDim : undefined);
      }
    });
  },
);

test("blocks of every type lie where their sizes say", async () => {
  const { tensors, metadata } = await readGguf(join(golden, "gguf/blocks.gguf"));
  expect(metadata["general.architecture"]).toBe("blocks");
  const bitsOfAnElement: Record<string, number> = {
    ...{ F32: 32, F16: 16, BF16: 16, Q8_0: 8.5, Q4_0: 4.5, Q4_1: 5, Q5_0: 5.5, Q5_1: 6 },
    ...{ Q4_K: 4.5, Q5_K: 5.5, Q6_K: 6.5625 },
  };
  expect([...tensors.keys()]).toEqual(Object.keys(bitsOfAnElement));
  for (const [name, tensor] of tensors) {
    const bytes = (5 * 512 * bitsOfAnElement[name]!) / 8;
    expect(tensor).toMatchObject({ dtype: name, shape: [5, 512], bytes });
    expect(tensor.offset % 32).toBe(0);
  }
  const expected = (await readTensorBytes(tensors.get("F32")!)).subarray(0, 8);
  expect(readFileSync(join(golden, "gguf/blocks.gguf")).includes(expected)).toBe(true);
});

test("names", () => {
  expect(hfName("blk.12.ffn_down.weight")).toBe("model.layers.12.mlp.down_proj.weight");
  expect(hfName("blk.0.attn_q.bias")).toBe("model.layers.0.self_attn.q_proj.bias");
  expect(hfName("output.weight")).toBe("lm_head.weight");
  for (const name of [
    "blk.01.attn_q.weight",
    "attn_q.weight",
    "blk.0.output.weight",
    "blk.0.toString.weight",
    "",
  ])
    expect(hfName(name)).toBeUndefined();
  expect(hfName("blk.0.ffn_norm.weight")).toBe("model.layers.0.post_attention_layernorm.weight");
  expect(hfName("blk.0.ffn_norm.weight", "post")).toBeUndefined();
  expect(hfName("blk.0.post_ffw_norm.weight", "post")).toBe(
    "model.layers.0.post_feedforward_layernorm.weight",
  );
  expect(hfName("blk.0.post_ffw_norm.weight")).toBeUndefined();
});

describe.skipIf(!smollm2)("SmolLM2-135M-Instruct.Q4_1.gguf", () => {
  test("its configuration, tensors and tokenizer metadata", async () => {
    const { config, parameters } = await readModel(smollm2!);
    expect(config).toMatchObject({
      ...{ modelType: "llama", vocabSize: 49152, hiddenSize: 576, intermediateSize: 1536, layers: 30 },
      ...{ heads: 9, keyValueHeads: 3, headDim: 64, normEps: 1e-5, tieEmbeddings: true, maxPositions: 8192 },
      ...{ eosTokenIds: [2], bosTokenId: 1, rope: { full: { theta: 100000, scaling: { kind: "none" } } } },
    });
    expect(parameters.size).toBe(272);
    expect([...parameters.keys()]).toEqual([...expectedParameters(config).keys()]);
    expect(parameters.get("model.layers.29.self_attn.k_proj.weight")).toMatchObject({
      ...{ dtype: "Q4_1", shape: [192, 576], pairedHeadDim: 64, bytes: (192 * 576 * 20) / 32 },
    });
    const metadata = await readGgufMetadata(smollm2!);
    expect(metadata["tokenizer.ggml.tokens"]).toHaveLength(49152);
    expect(metadata["tokenizer.ggml.pre"]).toBe("smollm");
  });
});
