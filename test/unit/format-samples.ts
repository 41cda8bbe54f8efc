/** Small valid model files, made byte by byte, for tests to spoil, and what a refusal must be. */
import { expect } from "vitest";
import { SdpoError } from "../../lib/errors.js";

/** The SdpoError that the call throws. */
export async function refusal(call: () => unknown): Promise<SdpoError> {
  const error = await Promise.resolve()
    .then(call)
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(SdpoError);
  return error as SdpoError;
}

export const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
export const u64 = (value: number | bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
export const text = (value: string) => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)]);

/** A safetensors file of this header (an object or the bytes themselves) and so many bytes of data. */
export function safetensors(header: unknown, dataBytes: number, length?: number | bigint): Buffer {
  const json = Buffer.isBuffer(header)
    ? header
    : Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  return Buffer.concat([u64(length ?? json.length), json, Buffer.alloc(dataBytes, 1)]);
}

export const entry = (shape: unknown, begin: unknown, end: unknown, dtype: unknown = "F32") => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

/** Two tensors, 24 bytes. */
export const twoTensors = () => ({ a: entry([2, 2], 0, 16), b: entry([2], 16, 24) });

/** A metadata entry of a GGUF file. */
export const field = (key: string, kind: number, value: Buffer) =>
  Buffer.concat([text(key), u32(kind), value]);
const f32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
};
export const integer = (key: string, value: number) => field(key, 4, u32(value));
export const float = (key: string, value: number) => field(key, 6, f32(value));
export const string = (key: string, value: string) => field(key, 8, text(value));

export interface GgufTensor {
  name: string;
  shape: (number | bigint)[];
  type?: number;
  offset?: number | bigint;
  dimensions?: number;
}

export interface GgufParts {
  magic?: string;
  version?: number;
  fields?: Buffer[];
  fieldCount?: number | bigint;
  tensors?: GgufTensor[];
  tensorCount?: number | bigint;
  dataBytes?: number;
}

/** A GGUF file; shapes as Hugging Face has them, F32 and one after another where nothing else is said. */
export function gguf({ magic = "GGUF", version = 3, fields = [], tensors = [], ...rest }: GgufParts): Buffer {
  let end = 0;
  const infos = tensors.map(({ name, shape, type = 0, offset = end, dimensions = shape.length }) => {
    const bytes = shape.reduce<number>((a, b) => a * Number(b), 4);
    end = Math.ceil((Number(offset) + bytes) / 32) * 32;
    return Buffer.concat([
      text(name),
      u32(dimensions),
      ...[...shape].reverse().map(u64),
      u32(type),
      u64(offset),
    ]);
  });
  const header = Buffer.concat([
    ...[Buffer.from(magic), u32(version), u64(rest.tensorCount ?? tensors.length)],
    ...[u64(rest.fieldCount ?? fields.length), ...fields, ...infos],
  ]);
  const padding = Buffer.alloc((32 - (header.length % 32)) % 32);
  return Buffer.concat([header, padding, Buffer.alloc(rest.dataBytes ?? end, 1)]);
}

/** The metadata of a llama of one layer, by key, so that a test may change one. */
export const llamaFields = (): Record<string, Buffer> => ({
  "general.architecture": string("general.architecture", "llama"),
  ...Object.fromEntries(
    Object.entries({
      ...{ embedding_length: 8, feed_forward_length: 6, block_count: 1, context_length: 64 },
      ...{ "attention.head_count": 2, "attention.head_count_kv": 1 },
    }).map(([key, value]) => [key, integer(`llama.${key}`, value)]),
  ),
  eps: float("llama.attention.layer_norm_rms_epsilon", 1e-5),
});

/** Its tensors. */
export const llamaTensors = (): GgufTensor[] => [
  { name: "token_embd.weight", shape: [5, 8] },
  { name: "output_norm.weight", shape: [8] },
  ...Object.entries({
    ...{ attn_norm: [8], ffn_norm: [8], attn_q: [8, 8], attn_k: [4, 8], attn_v: [4, 8], attn_output: [8, 8] },
    ...{ ffn_gate: [6, 8], ffn_up: [6, 8], ffn_down: [8, 6] },
  }).map(([name, shape]) => ({ name: `blk.0.${name}.weight`, shape })),
];

/** The configuration of the same model. */
export const llamaConfig = {
  ...{ model_type: "llama", vocab_size: 5, hidden_size: 8, intermediate_size: 6, num_hidden_layers: 1 },
  ...{ num_attention_heads: 2, num_key_value_heads: 1, tie_word_embeddings: true },
};
