import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseModelConfig, ropeTables, toHfConfig } from "../../lib/models/formats/config.js";
import { readTensorBytes } from "../../lib/models/formats/files.js";
import { readModel } from "../../lib/models/formats/model-files.js";
import { expectedParameters } from "../../lib/models/formats/parameters.js";
import { readSafetensors, readSafetensorsFolder } from "../../lib/models/formats/safetensors.js";

const golden = join(import.meta.dirname, "../golden/models");
const manifest = JSON.parse(readFileSync(join(golden, "manifest.json"), "utf8"));
const names = Object.keys(manifest.models);
const configOf = (name: string) => JSON.parse(readFileSync(join(golden, name, "config.json"), "utf8"));
const parse = (name: string, changes: object = {}) =>
  parseModelConfig({ ...configOf(name), ...changes }, "config.json");

describe.each(names)("%s", (name) => {
  test("its parameters are the tensors that transformers saved", async () => {
    const config = parse(name);
    const stored = await readSafetensorsFolder(join(golden, name));
    const shapes = new Map([...stored].map(([tensor, { shape }]) => [tensor, shape]));
    expect(new Map([...expectedParameters(config)].sort())).toEqual(new Map([...shapes].sort()));
    const elements = [...expectedParameters(config).values()].map((shape) =>
      shape.reduce((a, b) => a * b, 1),
    );
    expect(elements.reduce((a, b) => a + b)).toBe(manifest.models[name].parameters);
    const model = await readModel(join(golden, name));
    expect(model.config).toEqual(config);
    expect([...model.parameters.keys()]).toEqual([...expectedParameters(config).keys()]);
  });

  test("its rotary frequencies, cosines and sines are those of transformers", async () => {
    const { tensors } = await readSafetensors(join(golden, name, "golden.safetensors"));
    const floats = async (tensor: string) =>
      new Float32Array(new Uint8Array(await readTensorBytes(tensors.get(tensor)!)).buffer);
    const positions = new Int32Array(
      new Uint8Array(await readTensorBytes(tensors.get("rope.positions")!)).buffer,
    );
    const tables = ropeTables(parse(name));
    const scaling = manifest.models[name].rope_attention_scaling;
    for (const kind of Object.keys(scaling)) {
      const prefix = kind === "all" ? "rope." : `rope.${kind}.`;
      const { invFreq, attentionFactor } = kind === "sliding_attention" ? tables.sliding : tables.full;
      expect(attentionFactor).toBeCloseTo(scaling[kind], 12);
      const expected = await floats(`${prefix}inv_freq`);
      expect(invFreq.length).toBe(expected.length);
      expected.forEach((f, i) => {
        expect(Math.abs(invFreq[i]! / f - 1)).toBeLessThan(1e-6);
      });
      const [cos, sin] = [await floats(`${prefix}cos`), await floats(`${prefix}sin`)];
      for (const [row, position] of positions.entries())
        for (const [i, f] of invFreq.entries()) {
          const at = row * invFreq.length + i;
          const tolerance = 1e-6 + position * f * 1e-6;
          expect(Math.abs(Math.cos(position * f) * attentionFactor - cos[at]!)).toBeLessThan(tolerance);
          expect(Math.abs(Math.sin(position * f) * attentionFactor - sin[at]!)).toBeLessThan(tolerance);
        }
    }
  });

  test("written and read again it is the same", () => {
    const config = parse(name);
    expect(parseModelConfig(JSON.parse(JSON.stringify(toHfConfig(config))), "written")).toEqual(config);
  });
});

test("what each golden configuration says", () => {
  expect(parse("llama-tied-gqa-rope3")).toMatchObject({
    modelType: "llama",
    ...{
      vocabSize: 97,
      hiddenSize: 64,
      intermediateSize: 112,
      layers: 2,
      heads: 4,
      keyValueHeads: 2,
      headDim: 16,
    },
    ...{ tieEmbeddings: true, attentionBias: false, outputBias: false, mlpBias: false, qkNorm: "none" },
    ...{ normPlacement: "pre", normEps: 1e-5, slidingWindow: [0, 0], maxPositions: 4096, dtype: "float32" },
    ...{ bosTokenId: 1, eosTokenIds: [2] },
    rope: {
      full: { theta: 1e4, scaling: { kind: "llama3", factor: 8, lowFreqFactor: 1, highFreqFactor: 4 } },
    },
  });
  expect(parse("qwen2-tied-bias")).toMatchObject({
    attentionBias: true,
    outputBias: false,
    slidingWindow: [0, 0],
  });
  expect(parse("qwen3-untied-headdim")).toMatchObject({ qkNorm: "head", headDim: 16, tieEmbeddings: false });
  expect(parse("llama-bf16").dtype).toBe("bfloat16");
  const olmo = parse("olmo3-sliding-yarn");
  expect(olmo).toMatchObject({ qkNorm: "all", normPlacement: "post", slidingWindow: [8, 8, 8, 0] });
  expect(olmo.rope.sliding.scaling.kind).toBe("none");
  expect(olmo.rope.full.scaling.kind).toBe("yarn");
});

describe("the two styles and the defaults", () => {
  test("rope_parameters says the same as rope_theta and rope_scaling", () => {
    const { rope_theta, rope_scaling, torch_dtype, ...rest } = configOf("llama-tied-gqa-rope3");
    const renewed = { ...rest, dtype: torch_dtype, rope_parameters: { rope_theta, ...rope_scaling } };
    expect(parseModelConfig(renewed, "new")).toEqual(parse("llama-tied-gqa-rope3"));
    const olmo = configOf("olmo3-sliding-yarn");
    const parameters = {
      full_attention: { rope_theta: 500000, ...olmo.rope_scaling },
      sliding_attention: { rope_theta: 500000, rope_type: "default" },
    };
    const nested = { ...olmo, rope_theta: undefined, rope_scaling: undefined, rope_parameters: parameters };
    expect(parseModelConfig(nested, "new")).toEqual(parse("olmo3-sliding-yarn"));
  });

  test("layers of olmo3 may have thetas of their own", () => {
    const rope_parameters = { full_attention: { rope_theta: 2e6 }, sliding_attention: { rope_theta: 1e4 } };
    const config = parse("olmo3-sliding-yarn", { rope_parameters, rope_scaling: null });
    expect([config.rope.full.theta, config.rope.sliding.theta]).toEqual([2e6, 1e4]);
    const stretched = { ...config, rope: { ...config.rope, full: parse("olmo3-sliding-yarn").rope.full } };
    expect(parseModelConfig(toHfConfig(stretched), "written")).toEqual(stretched);
  });

  test("rope_scaling added to a new-style file scales its rope_parameters", () => {
    const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 1024 };
    const { full } = parse("qwen3-untied-headdim", { rope_scaling: yarn }).rope;
    expect(full).toMatchObject({ theta: 1e6, scaling: { kind: "yarn", factor: 4 } });
  });

  test("heads, head size and windows where the file is silent", () => {
    expect(parse("llama-untied-mha", { num_key_value_heads: undefined })).toMatchObject({ keyValueHeads: 4 });
    expect(parse("llama-untied-mha").headDim).toBe(12);
    expect(parse("qwen3-tied", { head_dim: undefined }).headDim).toBe(128);
    expect(parse("olmo3-sliding-yarn", { layer_types: undefined }).slidingWindow).toEqual([8, 8, 8, 0]);
    const slides = { use_sliding_window: true };
    expect(parse("qwen2-tied-bias", slides).slidingWindow).toEqual([0, 16]);
    const types = { layer_types: ["sliding_attention", "full_attention"] };
    expect(parse("qwen2-tied-bias", { ...slides, ...types }).slidingWindow).toEqual([16, 0]);
    expect(parse("qwen2-tied-bias", types).slidingWindow).toEqual([0, 0]);
    expect(parse("qwen2-tied-bias", { eos_token_id: [5, 6, 5], bos_token_id: null })).toMatchObject({
      eosTokenIds: [5, 6],
      bosTokenId: null,
    });
  });

  test("biases by architecture", () => {
    const all = { attention_bias: true, mlp_bias: true };
    const biased = (name: string) =>
      [...expectedParameters(parse(name, all)).keys()]
        .filter((parameter) => parameter.startsWith("model.layers.0.") && parameter.endsWith(".bias"))
        .map((parameter) => parameter.split(".").at(-2));
    const attention = ["q_proj", "k_proj", "v_proj"];
    expect(biased("llama-untied-mha")).toEqual([...attention, "o_proj", "gate_proj", "up_proj", "down_proj"]);
    expect(biased("qwen2-tied-bias")).toEqual(attention);
    expect(biased("qwen3-tied")).toEqual([...attention, "o_proj"]);
    expect(expectedParameters(parse("llama-untied-mha", all)).get("model.layers.0.mlp.up_proj.bias")).toEqual(
      [80],
    );
  });

  test("linear scaling divides frequencies; yarn's attention factor follows from its factor", () => {
    const plain = ropeTables(parse("llama-untied-mha")).full.invFreq;
    const linear = ropeTables(
      parse("llama-untied-mha", { rope_scaling: { type: "linear", factor: 4 } }),
    ).full;
    linear.invFreq.forEach((f, i) => {
      expect(f).toBeCloseTo(plain[i]! / 4, 7);
    });
    const yarn = { rope_type: "yarn", factor: 8, original_max_position_embeddings: 512 };
    const factor = (changes: object) =>
      ropeTables(parse("llama-untied-mha", { rope_scaling: { ...yarn, ...changes } })).full.attentionFactor;
    expect(factor({})).toBeCloseTo(0.1 * Math.log(8) + 1, 12);
    expect(factor({ factor: null })).toBeCloseTo(0.1 * Math.log(4096 / 512) + 1, 12);
    expect(factor({ mscale: 1, mscale_all_dim: 0.5 })).toBeCloseTo(
      (0.1 * Math.log(8) + 1) / (0.05 * Math.log(8) + 1),
      12,
    );
  });
});
