/** Reading of the golden text data, and a minimal GGUF metadata reader of the tests' own. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export type TokenizerName = "smollm2" | "qwen" | "llama3";
export const TOKENIZERS: readonly TokenizerName[] = ["smollm2", "qwen", "llama3"];

export interface GoldenText {
  name: string;
  text: string;
  ids: number[];
  ids_with_special_tokens?: number[];
  ids_split_special?: number[];
  ids_no_added_tokens?: number[];
  decoded?: string;
  decoded_skip_special?: string;
}

export interface GoldenDecoding {
  ids: number[];
  text: string;
  text_skip_special: string;
}

export interface GoldenChat {
  name: string;
  messages: { role: string; content: string | null }[];
  tools?: unknown[];
  arguments?: Record<string, unknown>;
  add_generation_prompt: boolean;
  text?: string;
  ids?: number[];
  safe_ids?: number[];
  error?: string;
}

export function goldenFolder(name: string): string {
  return fileURLToPath(new URL(`../golden/text/${name}`, import.meta.url));
}

export function goldenJson(name: string, file: string): unknown {
  return JSON.parse(readFileSync(`${goldenFolder(name)}/${file}`, "utf8"));
}

export function goldenLines<T>(name: string, file: "texts" | "decode" | "chats"): T[] {
  const lines = readFileSync(`${goldenFolder(name)}/${file}.jsonl`, "utf8")
    .trim()
    .split("\n");
  return lines.map((line) => JSON.parse(line) as T);
}

/** The metadata of a GGUF file; arrays are plain arrays, 64-bit numbers are numbers. */
export function readGgufMetadata(path: string): Record<string, unknown> {
  const bytes = readFileSync(path);
  let at = 24;
  const number = (size: number, read: (offset: number) => number | bigint) => {
    at += size;
    return Number(read(at - size));
  };
  const u32 = () => number(4, (i) => bytes.readUInt32LE(i));
  const u64 = () => number(8, (i) => bytes.readBigUInt64LE(i));
  const string = () => {
    const length = u64();
    at += length;
    return bytes.toString("utf8", at - length, at);
  };
  const value = (type: number): unknown => {
    if (type === 9) {
      const [inner, count] = [u32(), u64()];
      return Array.from({ length: count }, () => value(inner));
    }
    const readers: Record<number, () => unknown> = {
      0: () => number(1, (i) => bytes.readUInt8(i)),
      4: u32,
      5: () => number(4, (i) => bytes.readInt32LE(i)),
      6: () => number(4, (i) => bytes.readFloatLE(i)),
      7: () => number(1, (i) => bytes.readUInt8(i)) === 1,
      8: string,
      10: u64,
    };
    return readers[type]!();
  };
  const count = Number(bytes.readBigUInt64LE(16));
  return Object.fromEntries(Array.from({ length: count }, () => [string(), value(u32())]));
}

/** GGUF metadata as llama.cpp's converter would write them for a golden tokenizer. */
export function asGguf(name: TokenizerName, pre: string): Record<string, unknown> {
  const json = goldenJson(name, "tokenizer.json") as {
    model: { vocab: Record<string, number>; merges: [string, string][] };
    added_tokens: { id: number; content: string; special: boolean }[];
  };
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(json.model.vocab)) tokens[id] = token;
  const types = new Int32Array(tokens.length + json.added_tokens.length).fill(1);
  for (const { id, content, special } of json.added_tokens) {
    tokens[id] = content;
    types[id] = special ? 3 : 4;
  }
  return {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": pre,
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": types.subarray(0, tokens.length),
    "tokenizer.ggml.merges": json.model.merges.map((pair) => pair.join(" ")),
    "tokenizer.ggml.bos_token_id": json.added_tokens[0]!.id,
  };
}
