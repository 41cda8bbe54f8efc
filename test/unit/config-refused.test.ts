import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { parseModelConfig } from "../../lib/models/formats/config.js";
import { readModel } from "../../lib/models/formats/model-files.js";
import { entry, llamaConfig as llama, refusal, safetensors } from "./format-samples.js";

const temporary = await mkdtemp(join(tmpdir(), "sdpo-refused-"));
afterAll(() => rm(temporary, { recursive: true }));

const yarn = { rope_type: "yarn", factor: 8 };
const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };

describe("config.json", () => {
  const cases: [string, object, RegExp][] = [
    [
      "no model_type",
      { model_type: undefined },
      /model_type is missing; expected one of llama, qwen2, qwen3, olmo3/,
    ],
    ["an unknown model_type", { model_type: "mamba" }, /model_type is "mamba"; expected one of/],
    ["a model_type that is a number", { model_type: 3 }, /model_type is 3/],
    [
      "quantised weights",
      { quantization_config: { bits: 4 } },
      /quantization_config is \{"bits":4\}.*convert/,
    ],
    ["another activation", { hidden_act: "gelu" }, /hidden_act is "gelu"; expected one of silu/],
    ["no vocabulary", { vocab_size: undefined }, /vocab_size is missing/],
    ["a vocabulary of 0", { vocab_size: 0 }, /vocab_size is 0; expected an integer from 1/],
    ["a vocabulary of 2^40", { vocab_size: 2 ** 40 }, /vocab_size is 1099511627776/],
    ["a hidden size as text", { hidden_size: "8" }, /hidden_size is "8"/],
    ["a hidden size that is a fraction", { hidden_size: 8.5 }, /hidden_size is 8.5/],
    ["a hidden size that is an array", { hidden_size: [8] }, /hidden_size is \[8\]/],
    ["negative layers", { num_hidden_layers: -1 }, /num_hidden_layers is -1/],
    ["billions of layers", { num_hidden_layers: 4e9 }, /num_hidden_layers is 4000000000/],
    [
      "heads that do not divide",
      { num_attention_heads: 3 },
      /hidden_size is 8; expected a multiple of the 3/,
    ],
    ["more key-value heads than heads", { num_key_value_heads: 4 }, /num_key_value_heads is 4/],
    [
      "key-value heads that do not divide",
      { num_attention_heads: 4, num_key_value_heads: 3 },
      /a divisor of the 4/,
    ],
    ["an odd head_dim", { head_dim: 3 }, /head_dim is 3; expected an even number/],
    ["an odd head_dim that follows", { num_attention_heads: 8, num_key_value_heads: 8 }, /head_dim/],
    ["a head_dim of a million", { head_dim: 1e6 }, /head_dim is 1000000/],
    ["an intermediate size of null", { intermediate_size: null }, /intermediate_size is missing/],
    ["a negative eps", { rms_norm_eps: -1e-5 }, /rms_norm_eps is -0.00001/],
    ["an eps as text", { rms_norm_eps: "1e-5" }, /rms_norm_eps is "1e-5"/],
    ["ties as text", { tie_word_embeddings: "yes" }, /tie_word_embeddings is "yes"; expected true or false/],
    ["a bias as number", { attention_bias: 1 }, /attention_bias is 1/],
    ["no positions", { max_position_embeddings: 0 }, /max_position_embeddings is 0/],
    ["a theta of 0", { rope_theta: 0 }, /rope_theta is 0/],
    ["an infinite theta", { rope_theta: Number.POSITIVE_INFINITY }, /rope_theta is Infinity/],
    ["a part of the head rotated", { partial_rotary_factor: 0.5 }, /partial_rotary_factor is 0.5/],
    ["scaling as text", { rope_scaling: "yarn" }, /rope_scaling is "yarn"; expected an object/],
    [
      "an unknown scaling",
      { rope_scaling: { rope_type: "longrope" } },
      /rope_scaling.rope_type is "longrope"; expected one of default, linear/,
    ],
    [
      "dynamic scaling, old name",
      { rope_scaling: { type: "dynamic", factor: 2 } },
      /rope_scaling.type is "dynamic"/,
    ],
    ["linear without factor", { rope_scaling: { type: "linear" } }, /rope_scaling.factor is missing/],
    ["a factor below 1", { rope_scaling: { type: "linear", factor: 0.5 } }, /rope_scaling.factor is 0.5/],
    [
      "llama3 bounds reversed",
      { rope_scaling: { ...llama3, high_freq_factor: 1 } },
      /high_freq_factor is 1; expected more than/,
    ],
    [
      "llama3 without bounds",
      { rope_scaling: { rope_type: "llama3", factor: 8 } },
      /low_freq_factor is missing/,
    ],
    [
      "yarn's betas reversed",
      { rope_scaling: { ...yarn, beta_fast: 1, beta_slow: 32 } },
      /beta_fast is 1; expected at least/,
    ],
    [
      "yarn's attention factor 0",
      { rope_scaling: { ...yarn, attention_factor: 0 } },
      /attention_factor is 0/,
    ],
    [
      "an original length of 1.5",
      { rope_scaling: { ...yarn, original_max_position_embeddings: 1.5 } },
      /original_max_position_embeddings is 1.5/,
    ],
    [
      "parameters for each kind of layer",
      { rope_parameters: { full_attention: {} } },
      /rope_parameters is .*one set of parameters/,
    ],
    [
      "sliding layers in llama",
      { layer_types: ["sliding_attention"] },
      /layer_types is .*full_attention only/,
    ],
    [
      "too few layer types",
      { model_type: "olmo3", layer_types: [] },
      /layer_types is \[\]; expected 1 times/,
    ],
    [
      "an unknown layer type",
      { model_type: "olmo3", layer_types: ["chunked"] },
      /layer_types is \["chunked"\]/,
    ],
    ["a window of 0", { model_type: "olmo3", sliding_window: 0 }, /sliding_window is 0/],
    [
      "use_sliding_window as text",
      { model_type: "qwen2", use_sliding_window: "no" },
      /use_sliding_window is "no"/,
    ],
    ["an end token as text", { eos_token_id: "</s>" }, /eos_token_id is "<\/s>"/],
    ["a negative end token", { eos_token_id: [-1] }, /eos_token_id is \[-1\]/],
    ["a begin token that is a fraction", { bos_token_id: 0.5 }, /bos_token_id is 0.5/],
    ["an unknown dtype", { torch_dtype: "float8" }, /torch_dtype is "float8"; expected one of float32/],
  ];
  test.each(cases)("%s", async (_, changes, says) => {
    const error = await refusal(() => parseModelConfig({ ...llama, ...changes }, "some/config.json"));
    expect(error.message).toMatch(/^some\/config\.json: /);
    expect(error.message).toMatch(says);
    expect(error.code).toBe("ERR_SDPO_MODEL");
  });

  test("what is no object, and the configuration they were spoilt from", async () => {
    for (const json of [null, 7, "x", [], undefined])
      expect((await refusal(() => parseModelConfig(json, "c"))).message).toMatch(/expected a JSON object/);
    expect(parseModelConfig(llama, "c").layers).toBe(1);
  });
});

describe("folders", () => {
  const shapes: Record<string, number[]> = {
    "model.embed_tokens.weight": [5, 8],
    "model.norm.weight": [8],
    ...Object.fromEntries(
      Object.entries({
        ...{ "self_attn.q_proj": [8, 8], "self_attn.k_proj": [4, 8], "self_attn.v_proj": [4, 8] },
        ...{
          "self_attn.o_proj": [8, 8],
          "mlp.gate_proj": [6, 8],
          "mlp.up_proj": [6, 8],
          "mlp.down_proj": [8, 6],
        },
        ...{ input_layernorm: [8], post_attention_layernorm: [8] },
      }).map(([name, shape]) => [`model.layers.0.${name}.weight`, shape]),
    ),
  };
  async function folder(tensors: Record<string, number[]>, config: object | string = {}, dtype = "F32") {
    const path = join(temporary, "folder");
    await rm(path, { recursive: true, force: true });
    await mkdir(path);
    let end = 0;
    const header: Record<string, unknown> = {};
    for (const [name, shape] of Object.entries(tensors)) {
      const bytes = shape.reduce((a, b) => a * b, dtype === "F32" ? 4 : 8);
      header[name] = entry(shape, end, end + bytes, dtype);
      end += bytes;
    }
    const data = safetensors(header, end);
    // The output matrix, where there is one, comes last and differs from the embedding.
    if ("lm_head.weight" in tensors && "differs" in (config as object)) data.writeUInt8(2, data.length - 1);
    await writeFile(join(path, "model.safetensors"), data);
    const text = typeof config === "string" ? config : JSON.stringify({ ...llama, ...config });
    await writeFile(join(path, "config.json"), text);
    return path;
  }
  const head = { "lm_head.weight": [5, 8] };

  test("a complete one; rotary buffers and an equal tied output matrix do no harm", async () => {
    const extra = { "model.layers.0.self_attn.rotary_emb.inv_freq": [2], ...head };
    const { parameters } = await readModel(await folder({ ...shapes, ...extra }));
    expect([...parameters.keys()].sort()).toEqual(Object.keys(shapes).sort());
  });

  const { "model.norm.weight": _, ...incomplete } = shapes;
  const cases: [string, () => Promise<string>, RegExp, string][] = [
    ["a tensor missing", () => folder(incomplete), /"model.norm.weight" is missing/, "MODEL"],
    ["seven tensors missing", () => folder({ "model.norm.weight": [8] }), /and 5 more are missing/, "MODEL"],
    [
      "an unexpected tensor",
      () => folder({ ...shapes, "model.layers.0.self_attn.q_norm.weight": [4] }),
      /q_norm.weight" is not part of a llama/,
      "MODEL",
    ],
    [
      "another shape",
      () => folder({ ...shapes, "model.norm.weight": [7] }),
      /model.norm.weight has the shape \[7\].*\[8\]/,
      "MODEL",
    ],
    ["weights of integers", () => folder(shapes, {}, "I64"), /is I64; supported: F32/, "MODEL"],
    [
      "an untied model without output matrix",
      () => folder(shapes, { tie_word_embeddings: false }),
      /"lm_head.weight" is missing; is tie_word/,
      "MODEL",
    ],
    [
      "a tied output matrix that differs",
      () => folder({ ...shapes, ...head }, { differs: 1 }),
      /set it to false/,
      "MODEL",
    ],
    [
      "config.json that is cut",
      () => folder(shapes, '{"model_type": "lla'),
      /config.json: is not valid JSON/,
      "FILE",
    ],
    [
      "config.json with a key twice",
      () => folder(shapes, '{"vocab_size": 5, "vocab_size": 6}'),
      /"vocab_size" is given twice/,
      "FILE",
    ],
  ];
  test.each(cases)("%s", async (_, make, says, code) => {
    const path = await make();
    const error = await refusal(() => readModel(path));
    expect(error.message).toMatch(says);
    expect(error.message).toContain("folder");
    expect(error.code).toBe(`ERR_SDPO_${code}`);
  });

  test("end tokens of generation_config.json; a bad one, no config.json, nothing there", async () => {
    const path = await folder(shapes);
    const generation = join(path, "generation_config.json");
    for (const [ids, read] of [
      ["[4, 3]", [4, 3]],
      ["null", []],
    ] as const) {
      await writeFile(generation, `{"eos_token_id": ${ids}}`);
      expect((await readModel(path)).config.eosTokenIds).toEqual(read);
    }
    await writeFile(generation, '{"eos_token_id": "x"}');
    expect((await refusal(() => readModel(path))).message).toMatch(
      /generation_config.json: eos_token_id is "x"/,
    );
    await rm(join(path, "config.json"));
    expect((await refusal(() => readModel(path))).message).toMatch(/config.json: cannot be read/);
    expect((await refusal(() => readModel(join(temporary, "nothing")))).message).toMatch(
      /neither a folder nor/,
    );
  });
});
