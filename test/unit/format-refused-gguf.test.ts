import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { readGguf, readGgufMetadata } from "../../lib/models/formats/gguf.js";
import { readModel } from "../../lib/models/formats/model-files.js";
import type * as sample from "./format-samples.js";
import {
  field,
  gguf,
  integer,
  llamaFields,
  llamaTensors,
  refusal,
  string,
  text,
  u32,
  u64,
} from "./format-samples.js";

const temporary = await mkdtemp(join(tmpdir(), "sdpo-refused-"));
afterAll(() => rm(temporary, { recursive: true }));

async function expectRefused(
  read: (file: string) => unknown,
  name: string,
  bytes: Buffer,
  says: RegExp,
  code: string,
) {
  const file = join(temporary, name);
  await writeFile(file, bytes);
  const error = await refusal(() => read(file));
  expect(error.message).toContain(name);
  expect(error.message).toMatch(says);
  expect(error.message.length).toBeLessThan(600);
  expect(error.code).toBe(code);
}

const array = (key: string, kind: number, count: number | bigint, ...values: Buffer[]) =>
  field(key, 9, Buffer.concat([u32(kind), u64(count), ...values]));
const one = (changes: Partial<sample.GgufTensor>, dataBytes = 1024) =>
  gguf({ tensors: [{ name: "t", shape: [4, 64], ...changes }], dataBytes });
const withField = (...fields: Buffer[]) => gguf({ fields });

describe("GGUF", () => {
  const cases: [string, Buffer, RegExp][] = [
    ["an empty file", Buffer.alloc(0), /magic number at byte 0 needs 4 bytes/],
    ["another magic", gguf({ magic: "GGML" }), /does not begin with GGUF/],
    ["version 1", gguf({ version: 1 }), /version is 1; supported: 2 and 3/],
    ["big endian", gguf({ version: 0x03000000 }), /version is 50331648/],
    ["more tensors than fit", gguf({ tensorCount: 1_000_000 }), /tensor count is 1000000/],
    ["2^63 tensors", gguf({ tensorCount: 2n ** 63n }), /tensor count at byte 8 is 9223372036854775808/],
    ["more metadata than fits", gguf({ fieldCount: 2n ** 40n }), /metadata count is 1099511627776/],
    ["one tensor too many", gguf({ tensors: [{ name: "t", shape: [8] }], tensorCount: 2 }), /tensor|needs/],
    [
      "a key longer than the file",
      withField(Buffer.concat([u64(10_000), Buffer.alloc(40)])),
      /metadata key 0/,
    ],
    [
      "a key of 2^64 - 1 bytes",
      withField(Buffer.concat([u64(2n ** 64n - 1n), Buffer.alloc(40)])),
      /metadata key 0/,
    ],
    ["a key given twice", withField(integer("a", 1), integer("a", 2)), /metadata "a" is given twice/],
    ["a value of unknown kind", withField(field("a", 13, u64(0))), /type of metadata "a" is 13/],
    ["an array of unknown kind", withField(array("a", 99, 0, u64(0))), /type of metadata "a" is 99/],
    ["an array of arrays", withField(array("a", 9, 1, u64(0), u64(0))), /array of arrays/],
    ["an array longer than the file", withField(array("a", 4, 2n ** 40n)), /length of metadata "a"/],
    [
      "strings longer than the file",
      withField(array("a", 8, 2, text("x"), u64(1e6), u64(0))),
      /metadata "a"/,
    ],
    ["an alignment of 0", withField(integer("general.alignment", 0)), /general.alignment is 0/],
    ["an alignment of 12", withField(integer("general.alignment", 12)), /general.alignment is 12/],
    ["an alignment that is text", withField(string("general.alignment", "32")), /general.alignment is "32"/],
    [
      "a tensor given twice",
      gguf({
        tensors: [
          { name: "t", shape: [8] },
          { name: "t", shape: [8] },
        ],
      }),
      /"t" is given twice/,
    ],
    ["no dimensions", one({ dimensions: 0 }), /"t" has 0 dimensions/],
    ["five dimensions", one({ shape: [1, 1, 1, 1, 1] }), /"t" has 5 dimensions/],
    ["4 billion dimensions", one({ dimensions: 2 ** 32 - 1 }), /4294967295 dimensions/],
    ["a dimension of 0", one({ shape: [0, 4] }), /shape is \[0,4\]/],
    ["a dimension of 2^64 - 1", one({ shape: [2n ** 64n - 1n] }), /18446744073709551615/],
    ["a size that overflows", one({ shape: [2 ** 40, 2 ** 40] }, 64), /below 2\^53 bytes/],
    ["Q2_K", one({ type: 10 }), /type 10 \(Q2_K\); supported: F32, F16, BF16/],
    ["IQ4_XS", one({ type: 23 }), /type 23 \(IQ4_XS\)/],
    ["a type withdrawn", one({ type: 4 }), /type 4; supported/],
    ["a type unknown", one({ type: 1e9 }), /type 1000000000; supported/],
    ["a row that is no whole block", one({ shape: [4, 40], type: 8 }), /rows of whole Q8_0 blocks/],
    ["a row that is no whole K block", one({ shape: [2, 128], type: 12 }), /rows of whole Q4_K blocks/],
    ["an offset not aligned", one({ offset: 8 }), /offset is 8, not a multiple of 32/],
    ["an offset outside", one({ offset: 2 ** 40 }), /ends at byte 1099511/],
    [
      "an offset of 2^63",
      gguf({ tensors: [{ name: "t", shape: [4], offset: 2n ** 63n }], dataBytes: 64 }),
      /9223372036854775808/,
    ],
    ["data cut short", one({}, 1023), /"t" ends at byte/],
    [
      "tensors that overlap",
      gguf({
        tensors: [
          { name: "t", shape: [16] },
          { name: "u", shape: [8], offset: 32 },
        ],
      }),
      /"u" overlaps/,
    ],
  ];
  test.each(cases)("%s", (_, bytes, says) =>
    expectRefused(readGguf, "bad.gguf", bytes, says, "ERR_SDPO_FILE"),
  );

  const llama = (fields: Record<string, Buffer>, tensors = llamaTensors()) =>
    gguf({ fields: Object.values({ ...llamaFields(), ...fields }), tensors });
  const without = (key: string) => {
    const { [key]: _, ...fields } = llamaFields();
    return gguf({ fields: Object.values(fields), tensors: llamaTensors() });
  };
  const replaced = (name: string, ...by: sample.GgufTensor[]) => [
    ...llamaTensors().filter((tensor) => tensor.name !== name),
    ...by,
  ];
  const models: [string, Buffer, RegExp][] = [
    [
      "another architecture",
      llama({ "general.architecture": string("general.architecture", "gemma") }),
      /architecture is "gemma"; supported: llama/,
    ],
    ["no architecture", without("general.architecture"), /architecture is undefined/],
    ["no layer count", without("block_count"), /llama.block_count is missing/],
    ["no eps", without("eps"), /layer_norm_rms_epsilon is missing/],
    ["layers as text", llama({ block_count: string("llama.block_count", "1") }), /llama.block_count is "1"/],
    [
      "heads for each layer",
      llama({ "attention.head_count": array("llama.attention.head_count", 4, 1, u32(2)) }),
      /llama.attention.head_count is \[2\]/,
    ],
    [
      "four billion layers",
      llama({ block_count: integer("llama.block_count", 2 ** 32 - 1) }),
      /llama.block_count is 4294967295/,
    ],
    [
      "heads that do not divide",
      llama({ "attention.head_count": integer("llama.attention.head_count", 3) }),
      /llama.attention.key_length/,
    ],
    ["experts", llama({ x: integer("llama.expert_count", 8) }), /llama.expert_count is 8/],
    [
      "a rotary part of the head",
      llama({ x: integer("llama.rope.dimension_count", 2) }),
      /rope.dimension_count is 2/,
    ],
    [
      "an unknown scaling",
      llama({ x: string("llama.rope.scaling.type", "longrope") }),
      /rope_type is "longrope"/,
    ],
    [
      "an end token as text",
      llama({ x: string("tokenizer.ggml.eos_token_id", "2") }),
      /eos_token_id is \["2"\]/,
    ],
    ["no embedding", llama({}, replaced("token_embd.weight")), /"token_embd.weight" is missing/],
    [
      "a missing tensor",
      llama({}, replaced("blk.0.ffn_up.weight")),
      /"model.layers.0.mlp.up_proj.weight" is missing/,
    ],
    [
      "a tensor of another shape",
      llama({}, replaced("blk.0.ffn_up.weight", { name: "blk.0.ffn_up.weight", shape: [8, 6] })),
      /up_proj.weight has the shape \[8,6\]; its configuration says \[6,8\]/,
    ],
    [
      "an unknown tensor",
      llama({}, [...llamaTensors(), { name: "blk.0.ffn_gate_inp.weight", shape: [8] }]),
      /"blk.0.ffn_gate_inp.weight" is not part/,
    ],
    [
      "a layer too many",
      llama({}, [...llamaTensors(), { name: "blk.1.attn_norm.weight", shape: [8] }]),
      /layers.1.input_layernorm.weight" is not part/,
    ],
    [
      "divisors of no known scaling",
      llama({}, [...llamaTensors(), { name: "rope_freqs.weight", shape: [2] }]),
      /rope_freqs.weight does not hold/,
    ],
    [
      "too many divisors",
      llama({}, [...llamaTensors(), { name: "rope_freqs.weight", shape: [3] }]),
      /rope_freqs.weight is F32 \[3\]/,
    ],
  ];
  test.each(models)("as a model: %s", (_, bytes, says) =>
    expectRefused(readModel, "bad.gguf", bytes, says, "ERR_SDPO_MODEL"),
  );

  test("the file they were spoilt from is read, and every cut of it is refused", async () => {
    const bytes = llama({});
    const file = join(temporary, "cut.gguf");
    await writeFile(file, bytes);
    expect((await readModel(file)).parameters.size).toBe(11);
    for (let length = 0; length < bytes.length; length += 1 + (length % 3)) {
      await writeFile(file, bytes.subarray(0, length));
      expect((await refusal(() => readModel(file))).code).toBe("ERR_SDPO_FILE");
    }
  });

  test("divisors that rise as no llama3 scaling does", async () => {
    const bytes = llama({}, [...llamaTensors(), { name: "rope_freqs.weight", shape: [2] }]);
    const file = join(temporary, "divisors.gguf");
    for (const [first, second, accepted] of [
      [1.5, 3, false],
      [8, 1, false],
      [0.5, 1, false],
      [1, 1, true],
    ] as const) {
      bytes.writeFloatLE(first, bytes.length - 32);
      bytes.writeFloatLE(second, bytes.length - 28);
      await writeFile(file, bytes);
      if (accepted) expect((await readModel(file)).config.rope.full.scaling.kind).toBe("none");
      else expect((await refusal(() => readModel(file))).message).toMatch(/rope_freqs.weight does not hold/);
    }
  });

  test("metadata longer than the first read", async () => {
    const file = join(temporary, "long.gguf");
    const fields = [string("long", "x".repeat(5 << 20)), integer("after", 7)];
    await writeFile(file, gguf({ fields, tensors: [{ name: "t", shape: [8] }] }));
    const { metadata, tensors } = await readGguf(file);
    expect([(metadata.long as string).length, metadata.after, tensors.get("t")?.bytes]).toEqual([
      5 << 20,
      7,
      32,
    ]);
    await writeFile(
      file,
      gguf({ fields: [string("__proto__", "x")], tensors: [{ name: "t", shape: [256], type: 10 }] }),
    );
    expect(Object.entries(await readGgufMetadata(file))).toEqual([["__proto__", "x"]]);
  });
});
