/**
 * What determines a tokenizer's ids (byte-level BPE, or whole words), checked and compiled from tokenizer.json.
 * Kinds of tokenizers.json that the models here do not use (WordPiece, Unigram, byte fallback, ...) are refused by name.
 */
import { asArray, asIndex, asObject, asString, type Json, malformed, unsupported } from "./json.js";
import { SplitPreTokenizer } from "./libraries.js";

/** A token found in the text before anything else is done to it. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Control token: never made from text that users, tasks or models wrote. */
  readonly special: boolean;
  /** Looked for in the normalized text instead of the text as given. */
  readonly normalized: boolean;
  /** Is it in the model's own vocabulary too, whose tokens text is made of where it does not come as an added one? */
  readonly inVocabulary: boolean;
}

/** Cuts text into pieces no merge crosses: each match is a piece; what lies between is a piece too where `keepGaps`. */
export interface Split {
  readonly pattern: string;
  readonly keepGaps: boolean;
}

export type UnicodeForm = "NFC" | "NFD" | "NFKC" | "NFKD";

export interface TokenizerSpec {
  /** Each piece is a token as it stands (WordLevel), and blanks stand between the tokens of a text. */
  readonly words: boolean;
  /** Token by id, in GPT-2's byte alphabet except for added tokens and words; ids may have holes. */
  readonly tokens: readonly (string | undefined)[];
  /** (left, right, result) ids of each merge, best first. */
  readonly merges: Int32Array;
  readonly addedTokens: readonly AddedToken[];
  readonly normalizers: readonly UnicodeForm[];
  readonly splits: readonly Split[];
  /** A piece that is a token as a whole is taken without looking at the merges. */
  readonly ignoreMerges: boolean;
  /** Stands for bytes (or words) without a token; where undefined, or special and for bytes, they vanish. */
  readonly unknownId: number | undefined;
  /** Ids that the post-processor puts before and after a text. */
  readonly prefix: readonly number[];
  readonly suffix: readonly number[];
}

/** GPT-2's splitting, as the ByteLevel pre-tokenizer has it. */
export const GPT2_SPLIT = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

const MAX_TOKENS = 2 ** 22;
const SUPPORTED =
  "this package reads byte-level BPE tokenizers (Llama 3, Qwen, OLMo, SmolLM, GPT-2 style) and WordLevel ones";

/** Checks and compiles a parsed tokenizer.json. `file` names it in errors; `extra` are further added tokens, as in the file. */
export function parseTokenizerJson(
  json: unknown,
  file: string,
  extra: readonly unknown[] = [],
): TokenizerSpec {
  const root = asObject(file, "the file", json);
  const model = asObject(file, "model", root.model);
  checkModel(model, file);
  const words = model.type === "WordLevel";
  const ids = parseVocabulary(model.vocab, file);
  const merges = words ? new Int32Array() : parseMerges(model.merges, ids, file);
  const addedTokens = parseAddedTokens(root.added_tokens ?? [], extra, ids, file);
  const tokens: (string | undefined)[] = [];
  for (const [token, id] of ids) tokens[id] = token;
  const { splits, byteLevel } = parsePreTokenizer(root.pre_tokenizer, file, "pre_tokenizer");
  if (byteLevel === words) {
    const need = words ? "WordLevel takes no ByteLevel step" : "it has no ByteLevel step";
    unsupported(file, "pre_tokenizer", root.pre_tokenizer, `${need}, and ${SUPPORTED}`);
  }
  parseDecoder(root.decoder, words, file);
  return {
    words,
    tokens: Array.from(tokens),
    merges,
    addedTokens,
    normalizers: parseNormalizer(root.normalizer, file, "normalizer"),
    splits,
    ignoreMerges: model.ignore_merges === true,
    unknownId: parseUnknown(model.unk_token, words, ids, file),
    ...parsePostProcessor(root.post_processor, file, "post_processor"),
  };
}

function checkModel(model: Json, file: string): void {
  if (model.type === "WordLevel") return;
  if (model.type !== "BPE") unsupported(file, "model.type", model.type, SUPPORTED);
  for (const field of ["byte_fallback", "fuse_unk"]) {
    if (model[field]) unsupported(file, `model.${field}`, model[field], SUPPORTED);
  }
  for (const field of ["dropout", "continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[field])
      unsupported(file, `model.${field}`, model[field], "remove it, or use another tokenizer");
  }
}

/** A word without a token needs one that stands for it; bytes may vanish. */
function parseUnknown(value: unknown, words: boolean, ids: ReadonlyMap<string, number>, file: string) {
  if (!words && (value == null || value === "")) return undefined;
  const id = ids.get(asString(file, "model.unk_token", value));
  if (words && id === undefined) malformed(file, "model.unk_token", value, "model.vocab must have it");
  return id;
}

function parseVocabulary(value: unknown, file: string): Map<string, number> {
  const entries = Object.entries(asObject(file, "model.vocab", value));
  if (entries.length === 0) malformed(file, "model.vocab", value, "it must hold at least one token");
  const ids = new Map<string, number>();
  const seen = new Map<number, string>();
  for (const [token, id] of entries) {
    const index = asIndex(file, `model.vocab[${JSON.stringify(token)}]`, id, MAX_TOKENS);
    const other = seen.get(index);
    if (other !== undefined) {
      malformed(
        file,
        `model.vocab[${JSON.stringify(token)}]`,
        id,
        `${JSON.stringify(other)} has the same id`,
      );
    }
    seen.set(index, token);
    ids.set(token, index);
  }
  return ids;
}

function parseMerges(value: unknown, ids: ReadonlyMap<string, number>, file: string): Int32Array {
  const list = asArray(file, "model.merges", value);
  if (list.length > MAX_TOKENS)
    malformed(file, "model.merges.length", list.length, `at most ${MAX_TOKENS} are read`);
  const merges = new Int32Array(list.length * 3);
  list.forEach((merge, rank) => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || pair.some((part) => typeof part !== "string")) {
      malformed(file, `model.merges[${rank}]`, merge, 'it must be "left right" or ["left", "right"]');
    }
    [pair[0], pair[1], pair[0] + pair[1]].forEach((token, i) => {
      const id = ids.get(token);
      if (id === undefined) {
        malformed(file, `model.merges[${rank}]`, merge, `model.vocab has no token ${JSON.stringify(token)}`);
      }
      merges[rank * 3 + i] = id;
    });
  });
  return merges;
}

/** Also enters the tokens into `ids`. */
function parseAddedTokens(value: unknown, extra: readonly unknown[], ids: Map<string, number>, file: string) {
  const own = asArray(file, "added_tokens", value);
  const byId = new Map([...ids].map(([token, id]) => [id, token]));
  const vocabulary = new Set(ids.keys());
  const tokens = new Map<string, AddedToken>();
  [...own, ...extra].forEach((entry, i) => {
    const field = `added_tokens[${i}]`;
    const token = asObject(file, field, entry);
    const content = asString(file, `${field}.content`, token.content);
    const earlier = tokens.get(content);
    if (i >= own.length && earlier !== undefined) {
      // Special where either file says so: the other reading would let text write it.
      if (token.special === true) tokens.set(content, { ...earlier, special: true });
      return;
    }
    const id = asIndex(file, `${field}.id`, token.id, MAX_TOKENS);
    if (earlier !== undefined)
      malformed(file, `${field}.content`, content, "an earlier added token has it too");
    if ((byId.get(id) ?? content) !== content || (ids.get(content) ?? id) !== id) {
      malformed(
        file,
        `${field}.id`,
        id,
        `the vocabulary has this id or ${JSON.stringify(content)} for another token`,
      );
    }
    for (const flag of ["single_word", "lstrip", "rstrip"]) {
      if (token[flag])
        unsupported(file, `${field}.${flag}`, token[flag], `set it to false for ${JSON.stringify(content)}`);
    }
    ids.set(content, id);
    byId.set(id, content);
    const special = token.special === true;
    const normalized = token.normalized === undefined ? !special : token.normalized === true;
    tokens.set(content, { id, content, special, normalized, inVocabulary: vocabulary.has(content) });
  });
  return [...tokens.values()];
}

function parseNormalizer(value: unknown, file: string, field: string): UnicodeForm[] {
  if (value == null) return [];
  const { type, normalizers } = asObject(file, field, value);
  switch (type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return [type];
    case "Sequence":
      return asArray(file, `${field}.normalizers`, normalizers).flatMap((step, i) =>
        parseNormalizer(step, file, `${field}.normalizers[${i}]`),
      );
    default:
      unsupported(file, `${field}.type`, type, "known are NFC, NFD, NFKC, NFKD and Sequence");
  }
}

function parsePreTokenizer(
  value: unknown,
  file: string,
  field: string,
): { splits: Split[]; byteLevel: boolean } {
  if (value == null) return { splits: [], byteLevel: false };
  const step = asObject(file, field, value);
  switch (step.type) {
    case "Sequence": {
      const steps = asArray(file, `${field}.pretokenizers`, step.pretokenizers).map((inner, i) =>
        parsePreTokenizer(inner, file, `${field}.pretokenizers[${i}]`),
      );
      if (steps.slice(0, -1).some((inner) => inner.byteLevel)) {
        unsupported(file, field, step.type, "ByteLevel must be the last step");
      }
      return { splits: steps.flatMap((inner) => inner.splits), byteLevel: steps.at(-1)?.byteLevel ?? false };
    }
    case "ByteLevel":
      if (step.add_prefix_space) unsupported(file, `${field}.add_prefix_space`, true, "set it to false");
      return {
        splits: step.use_regex === false ? [] : [compileSplit(GPT2_SPLIT, true, file, field)],
        byteLevel: true,
      };
    case "Digits":
      return {
        splits: [{ pattern: step.individual_digits ? "\\p{N}" : "\\p{N}+", keepGaps: true }],
        byteLevel: false,
      };
    case "Split":
      return { splits: [parseSplit(step, file, field)], byteLevel: false };
    default:
      unsupported(file, `${field}.type`, step.type, "known are Sequence, Split, Digits and ByteLevel");
  }
}

function parseSplit(step: Json, file: string, field: string): Split {
  const pattern = asObject(file, `${field}.pattern`, step.pattern);
  const keepGaps = step.behavior === "Isolated";
  if (!keepGaps && !(step.behavior === "Removed" && step.invert === true)) {
    unsupported(file, `${field}.behavior`, step.behavior, "known are Isolated, and Removed with invert");
  }
  if (pattern.String !== undefined) {
    return { pattern: escapeRegExp(asString(file, `${field}.pattern.String`, pattern.String)), keepGaps };
  }
  return compileSplit(asString(file, `${field}.pattern.Regex`, pattern.Regex), keepGaps, file, field);
}

/**
 * Oniguruma's dialect to JavaScript's: `\s` is Unicode White_Space, `(?i:...)` is spelt out for Node 20. The library folds
 * ASCII only there; the two letters beyond ASCII that fold to it, long s and the Kelvin sign, are added first.
 */
function compileSplit(regex: string, keepGaps: boolean, file: string, field: string): Split {
  const folded = regex.replace(/\(\?i:[^()[\]\\]*\)/g, (group) =>
    group.replace(/s/gi, "[s\u017f]").replace(/k/gi, "[k\u212a]"),
  );
  try {
    const { pattern } = new SplitPreTokenizer({ type: "Split", pattern: { Regex: folded }, invert: false });
    return { pattern: pattern.source, keepGaps };
  } catch (cause) {
    unsupported(file, `${field}.pattern.Regex`, regex, (cause as Error).message);
  }
}

/** `text` as a regular expression that matches it literally. */
export function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}

function parseDecoder(value: unknown, words: boolean, file: string): void {
  if (value == null) return;
  if (words) unsupported(file, "decoder", value, "WordLevel takes none: blanks stand between words");
  const decoder = asObject(file, "decoder", value);
  const steps = decoder.type === "Sequence" ? asArray(file, "decoder.decoders", decoder.decoders) : [decoder];
  steps.forEach((step, i) => {
    const { type } = asObject(file, `decoder.decoders[${i}]`, step);
    if (type !== "ByteLevel") unsupported(file, "decoder.type", type, SUPPORTED);
  });
}

function parsePostProcessor(
  value: unknown,
  file: string,
  field: string,
): { prefix: number[]; suffix: number[] } {
  const none = { prefix: [], suffix: [] };
  if (value == null) return none;
  const step = asObject(file, field, value);
  switch (step.type) {
    case "ByteLevel":
      return none;
    case "Sequence":
      return asArray(file, `${field}.processors`, step.processors)
        .map((inner, i) => parsePostProcessor(inner, file, `${field}.processors[${i}]`))
        .reduce((a, b) => ({ prefix: [...b.prefix, ...a.prefix], suffix: [...a.suffix, ...b.suffix] }), none);
    case "TemplateProcessing":
      return parseTemplateProcessing(step, file, field);
    default:
      unsupported(file, `${field}.type`, step.type, "known are Sequence, ByteLevel and TemplateProcessing");
  }
}

function parseTemplateProcessing(
  step: Json,
  file: string,
  field: string,
): { prefix: number[]; suffix: number[] } {
  const known = asObject(file, `${field}.special_tokens`, step.special_tokens ?? {});
  const parts: number[][] = [[]];
  asArray(file, `${field}.single`, step.single).forEach((entry, i) => {
    const part = asObject(file, `${field}.single[${i}]`, entry);
    if (part.Sequence !== undefined) {
      parts.push([]);
      return;
    }
    const name = asString(
      file,
      `${field}.single[${i}]`,
      asObject(file, `${field}.single[${i}]`, part.SpecialToken).id,
    );
    const token = asObject(file, `${field}.special_tokens[${JSON.stringify(name)}]`, known[name]);
    const ids = asArray(file, `${field}.special_tokens[${JSON.stringify(name)}].ids`, token.ids);
    parts.at(-1)!.push(...ids.map((id) => asIndex(file, `${field}: the id of ${name}`, id, MAX_TOKENS)));
  });
  if (parts.length !== 2)
    malformed(file, `${field}.single`, step.single, "it must hold exactly one Sequence");
  return { prefix: parts[0]!, suffix: parts[1]! };
}
