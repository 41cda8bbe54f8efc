import { nearestName, SdpoError, show } from "../errors.js";
import {
  ASPECTS,
  MONTHS,
  NEW_CUSTOMERS,
  OLD_CUSTOMERS,
  SEPARATORS,
  twoDigits,
} from "./house-dates-formats.js";

function range(low: number, high: number): number[] {
  return Array.from({ length: high - low + 1 }, (_, i) => low + i);
}

/**
 * The 263 words in the order of their ids. A rule ("month in capitals") is one word; the newline ends an
 * answer.
 */
export const WORDS: readonly string[] = [
  "<pad>",
  "\n",
  ...[...range(1, 28), ...range(30, 99)].map(twoDigits),
  ...range(1930, 1999).map(String),
  ...MONTHS,
  ...MONTHS.map((month) => month.toUpperCase()),
  "for",
  ...[...NEW_CUSTOMERS, ...OLD_CUSTOMERS].map((customer) => `${customer}:`),
  ...SEPARATORS,
  "ok",
  "error:",
  "expected",
  ",",
  ...ASPECTS.flat(),
];
export const PAD_ID = 0;
/** The newline's id: the model's end-of-text token. */
export const NEWLINE_ID = 1;
/** Tokens of an answer: five and the newline. */
export const ANSWER_TOKENS = 6;

const IDS = new Map(WORDS.map((word, id) => [word, id]));
const RULES = ASPECTS.flat().map((rule) => rule.replace(/[/.]/g, "\\$&"));
/** One word: a rule of several, a newline, or anything between blanks. */
const WORD = `(?:${RULES.join("|")})(?![^ \\n])|\\n|[^ \\n]+`;

/** The ids of a text's words. Throws `ERR_SDPO_TEXT` for a word that is not in the vocabulary. */
export function encodeWords(text: string): number[] {
  return (text.match(new RegExp(WORD, "g")) ?? []).map((word) => {
    const id = IDS.get(word);
    if (id !== undefined) return id;
    const near = nearestName(word, WORDS);
    const remedy = near ? `did you mean ${show(near)}?` : "a date reads 28 jul 1994 for B:";
    throw new SdpoError("ERR_SDPO_TEXT", `house-dates: no word of the vocabulary: ${show(word)}; ${remedy}`);
  });
}

/**
 * The words of ids, separated by blanks (a newline stands alone). Throws `ERR_SDPO_TEXT` for an id from 263
 * on.
 */
export function decodeWords(ids: Iterable<number>): string {
  const words = Array.from(ids, (id) => {
    const word = WORDS[id];
    if (word !== undefined) return word;
    throw new SdpoError(
      "ERR_SDPO_TEXT",
      `house-dates: token id: expected 0 to ${WORDS.length - 1}, got ${show(id)}`,
    );
  });
  return words.join(" ").replace(/ ?\n ?/g, "\n");
}

/**
 * The same vocabulary as the contents of `tokenizer.json` and `tokenizer_config.json`. No token is special:
 * sessions hold newlines as ordinary words, so the end of text (id 1) belongs in the model's `eos_token_id`
 * alone.
 */
export function wordTokenizerFiles(): Record<"tokenizer.json" | "tokenizer_config.json", object> {
  const vocab = Object.fromEntries(WORDS.map((word, id) => [word, id]));
  return {
    "tokenizer.json": {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: { type: "Split", pattern: { Regex: WORD }, behavior: "Removed", invert: true },
      post_processor: null,
      decoder: null,
      model: { type: "WordLevel", unk_token: "<pad>", vocab },
    },
    "tokenizer_config.json": {
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
      chat_template: "{% for message in messages %}{{ message.content }}{% endfor %}",
    },
  };
}
