/**
 * A GGUF file's tokenizer as the files of a model folder, complete enough for transformers to load. The file names its splitting (`tokenizer.ggml.pre`) instead of
 * giving it; the names and what they mean are llama.cpp's.
 */
import { asArray, asIndex, asString, type Json, malformed, unsupported } from "./json.js";
import { GPT2_SPLIT } from "./spec.js";

/** The parsed files that make a tokenizer; see {@link Tokenizer.fromFiles}. */
export interface TokenizerFiles {
  tokenizerJson: unknown;
  tokenizerConfig?: unknown;
  chatTemplate?: string;
  generationConfig?: unknown;
}

interface PreKind {
  /** Applied one after the other, each to the pieces that the one before left. */
  readonly patterns: readonly string[];
  readonly nfc?: boolean;
  readonly ignoreMerges?: boolean;
  /** What holds where the file does not say tokenizer.ggml.add_bos_token. */
  readonly addBos?: boolean;
}

/** The splitting of cl100k and its kin, which take this many digits together. */
const cl100k = (digits: string) =>
  String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const GPT2: PreKind = { patterns: [GPT2_SPLIT] };
const QWEN2: PreKind = { patterns: [cl100k("")], nfc: true };
const LLAMA3: PreKind = { patterns: [cl100k("{1,3}")], ignoreMerges: true, addBos: true };

const PRE_KINDS: Readonly<Record<string, PreKind>> = {
  "gpt-2": GPT2,
  olmo: GPT2,
  smollm: { patterns: [String.raw`\p{N}`, GPT2_SPLIT] },
  qwen2: QWEN2,
  "deepseek-r1-qwen": QWEN2,
  llama3: LLAMA3,
  "llama-v3": LLAMA3,
  "llama-bpe": LLAMA3,
  dbrx: { patterns: [cl100k("{1,3}")] },
  default: { patterns: [String.raw`[\p{P}$+<=>^~|]+`, GPT2_SPLIT, String.raw`\p{N}+`, "[0-9]{3}"] },
};

const BYTE_LEVEL = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
const PLAIN_TOKEN = { single_word: false, lstrip: false, rstrip: false, normalized: false };
const CONTROL = 3;
const USER_DEFINED = 4;

/** tokenizer.json, tokenizer_config.json and the chat template that `metadata` amounts to. `file` names it in errors. */
export function filesFromGguf(metadata: Json, file: string): TokenizerFiles {
  const model = asString(file, "tokenizer.ggml.model", metadata["tokenizer.ggml.model"]);
  if (model !== "gpt2")
    unsupported(file, "tokenizer.ggml.model", model, 'only byte-level BPE ("gpt2") is read');
  const name = asString(file, "tokenizer.ggml.pre", metadata["tokenizer.ggml.pre"] ?? "default");
  const pre = Object.hasOwn(PRE_KINDS, name) ? PRE_KINDS[name]! : undefined;
  if (pre === undefined) {
    unsupported(file, "tokenizer.ggml.pre", name, `known are ${Object.keys(PRE_KINDS).join(", ")}`);
  }
  const tokens = asArray(file, "tokenizer.ggml.tokens", metadata["tokenizer.ggml.tokens"]).map((token, id) =>
    asString(file, `tokenizer.ggml.tokens[${id}]`, token),
  );
  const vocab = vocabulary(tokens, file);
  const special = (key: string) => {
    const id = metadata[`tokenizer.ggml.${key}_token_id`];
    return id === undefined
      ? undefined
      : tokens[asIndex(file, `tokenizer.ggml.${key}_token_id`, id, tokens.length)];
  };
  const bos = special("bos");
  const addBos =
    (metadata["tokenizer.ggml.add_bos_token"] ?? pre.addBos ?? false) === true && bos !== undefined;
  const chatTemplate = metadata["tokenizer.chat_template"];
  return {
    tokenizerJson: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(metadata["tokenizer.ggml.token_type"], tokens, file),
      normalizer: pre.nfc ? { type: "NFC" } : null,
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [...pre.patterns.map(isolated), BYTE_LEVEL],
      },
      post_processor: addBos ? bosProcessor(bos, tokens.indexOf(bos)) : null,
      decoder: BYTE_LEVEL,
      model: {
        type: "BPE",
        ignore_merges: pre.ignoreMerges ?? false,
        vocab,
        merges: asArray(file, "tokenizer.ggml.merges", metadata["tokenizer.ggml.merges"]),
      },
    },
    tokenizerConfig: {
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: bos,
      eos_token: special("eos"),
      unk_token: special("unknown"),
      pad_token: special("padding"),
      additional_special_tokens: ["eot", "eom"].flatMap((kind) => special(kind) ?? []),
    },
    chatTemplate:
      chatTemplate === undefined ? undefined : asString(file, "tokenizer.chat_template", chatTemplate),
  };
}

function isolated(regex: string) {
  return { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
}

function bosProcessor(bos: string, id: number) {
  const text = (name: string, type_id: number) => [
    { SpecialToken: { id: bos, type_id } },
    { Sequence: { id: name, type_id } },
  ];
  return {
    type: "TemplateProcessing",
    single: text("A", 0),
    pair: [...text("A", 0), ...text("B", 1)],
    special_tokens: { [bos]: { id: bos, ids: [id], tokens: [bos] } },
  };
}

function vocabulary(tokens: readonly string[], file: string): Record<string, number> {
  const ids = new Map<string, number>();
  tokens.forEach((token, id) => {
    if (ids.has(token))
      malformed(file, `tokenizer.ggml.tokens[${id}]`, token, `token ${ids.get(token)} is the same`);
    ids.set(token, id);
  });
  return Object.fromEntries(ids);
}

function addedTokens(value: unknown, tokens: readonly string[], file: string) {
  const types = ArrayBuffer.isView(value) ? Array.from(value as Int32Array) : value;
  const list = asArray(file, "tokenizer.ggml.token_type", types);
  if (list.length !== tokens.length) {
    malformed(file, "tokenizer.ggml.token_type.length", list.length, `there are ${tokens.length} tokens`);
  }
  return tokens.flatMap((content, id) =>
    list[id] === CONTROL || list[id] === USER_DEFINED
      ? [{ id, content, special: list[id] === CONTROL, ...PLAIN_TOKEN }]
      : [],
  );
}
