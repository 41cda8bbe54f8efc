/** GGUF files of architecture olmo2, which is OLMo 3 and OLMo 2: windows, scaling and norms as llama.cpp's converters wrote them. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseModelConfig, toHfConfig } from "../../lib/models/formats/config.js";
import { readModel } from "../../lib/models/formats/model-files.js";
import { field, float, gguf, integer, refusal, string, u32, u64 } from "./format-samples.js";

const LAYERS = 5;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sdpo-olmo-"));
});
afterAll(() => rm(folder, { recursive: true }));

const base = (): Record<string, Buffer> => ({
  architecture: string("general.architecture", "olmo2"),
  ...Object.fromEntries(
    Object.entries({
      ...{ embedding_length: 8, feed_forward_length: 6, block_count: LAYERS, context_length: 64 },
      ...{ "attention.head_count": 2, "attention.head_count_kv": 1 },
    }).map(([key, value]) => [key, integer(`olmo2.${key}`, value)]),
  ),
  eps: float("olmo2.attention.layer_norm_rms_epsilon", 1e-6),
  theta: float("olmo2.rope.freq_base", 5e5),
});

const LAYER = {
  ...{
    attn_q: [8, 8],
    attn_k: [4, 8],
    attn_v: [4, 8],
    attn_output: [8, 8],
    attn_q_norm: [8],
    attn_k_norm: [4],
  },
  ...{ post_attention_norm: [8], post_ffw_norm: [8], ffn_gate: [6, 8], ffn_up: [6, 8], ffn_down: [8, 6] },
};
const window = integer("olmo2.attention.sliding_window", 16);
const booleans = (...values: number[]) =>
  field(
    "olmo2.attention.sliding_window_pattern",
    9,
    Buffer.concat([u32(7), u64(values.length), Buffer.from(values)]),
  );

async function read(fields: Record<string, Buffer>, rename: (name: string) => string = (name) => name) {
  const layers = Array.from({ length: LAYERS }, (_, i) =>
    Object.entries(LAYER).map(([name, shape]) => ({ name: `blk.${i}.${rename(name)}.weight`, shape })),
  );
  const tensors = [
    { name: "token_embd.weight", shape: [5, 8] },
    { name: "output_norm.weight", shape: [8] },
    { name: "output.weight", shape: [5, 8] },
    ...layers.flat(),
  ];
  const file = join(folder, "olmo.gguf");
  await writeFile(file, gguf({ fields: Object.values({ ...base(), ...fields }), tensors }));
  return (await readModel(file)).config;
}

test.each<[string, Record<string, Buffer>, number[]]>([
  ["a list", { window, pattern: booleans(0, 1, 1, 0, 1) }, [0, 16, 16, 0, 16]],
  [
    "every third",
    { window, pattern: integer("olmo2.attention.sliding_window_pattern", 3) },
    [16, 16, 0, 16, 16],
  ],
  ["nothing said", { window }, [16, 16, 16, 0, 16]],
  ["no window, which is OLMo 2", {}, [0, 0, 0, 0, 0]],
])("windows: %s", async (_, fields, expected) => {
  const config = await read(fields);
  expect(config).toMatchObject({ modelType: "olmo3", qkNorm: "all", normPlacement: "post" });
  expect(config.slidingWindow).toEqual(expected);
  expect(parseModelConfig(toHfConfig(config), "written").slidingWindow).toEqual(expected);
  expect(toHfConfig(config).sliding_window).toBeGreaterThan(0);
});

describe("rotary embedding", () => {
  const yarn = {
    window,
    type: string("olmo2.rope.scaling.type", "yarn"),
    factor: float("olmo2.rope.scaling.factor", 8),
    length: integer("olmo2.rope.scaling.original_context_length", 8),
  };

  test.each(["attn_factor", "yarn_attn_factor"])("scaled where there is no window, with %s", async (name) => {
    const { rope } = await read({ ...yarn, attention: float(`olmo2.rope.scaling.${name}`, 1.25) });
    expect(rope.full).toMatchObject({
      theta: 5e5,
      scaling: { kind: "yarn", factor: 8, attentionFactor: 1.25, originalMaxPositions: 8 },
    });
    expect(rope.sliding).toEqual({ theta: 5e5, scaling: { kind: "none" } });
  });

  test("the usual attention factor, and llama.cpp's usual theta", async () => {
    const { rope } = await read({ ...yarn, theta: integer("unknown", 0) });
    expect(rope.full.theta).toBe(1e4);
    expect(rope.full.scaling).toMatchObject({ attentionFactor: 0.1 * Math.log(8) + 1 });
  });
});

test.each<[string, Record<string, Buffer>, RegExp]>([
  [
    "a short list",
    { window, pattern: booleans(1, 0) },
    /sliding_window_pattern is \[true,false\]; expected 5 booleans/,
  ],
  [
    "a period of 0",
    { window, pattern: integer("olmo2.attention.sliding_window_pattern", 0) },
    /pattern is 0; expected/,
  ],
  [
    "a text",
    { window, pattern: string("olmo2.attention.sliding_window_pattern", "x") },
    /pattern is "x"; expected/,
  ],
  ["a window of text", { window: string("olmo2.attention.sliding_window", "x") }, /sliding_window is "x"/],
  [
    "another theta",
    { window, swa: float("olmo2.rope.freq_base_swa", 100) },
    /freq_base_swa is 100; supported: 500000/,
  ],
  ["extrapolation", { extra: float("olmo2.rope.scaling.yarn_ext_factor", 0.5) }, /yarn_ext_factor is 0\.5/],
])("refused: %s", async (_, fields, message) => {
  const error = await refusal(() => read(fields));
  expect(error).toMatchObject({ code: "ERR_SDPO_MODEL", message: expect.stringMatching(message) });
  expect(error.message).toContain("olmo.gguf");
});

test("refused: norms before attention", async () => {
  const error = await refusal(() => read({ window }, (name) => name.replace("post_ffw_norm", "ffn_norm")));
  expect(error.message).toMatch(/tensor "blk\.0\.ffn_norm\.weight" is not part of the olmo2 model/);
});
