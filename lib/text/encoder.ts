/** Text to ids: added tokens are cut out, the rest is normalized, split into pieces; these are byte pair encoded, or words. */
import { BytePairEncoder } from "./bpe.js";
import { type AddedToken, escapeRegExp, type TokenizerSpec } from "./spec.js";

/** Finds added tokens, leftmost first and longest first among those that begin at the same place. */
class AddedTokenFinder {
  readonly #tokens: ReadonlyMap<string, AddedToken>;
  readonly #pattern: RegExp | undefined;

  constructor(tokens: ReadonlyMap<string, AddedToken>) {
    this.#tokens = tokens;
    const longestFirst = [...tokens.keys()].sort((a, b) => b.length - a.length);
    this.#pattern = tokens.size > 0 ? new RegExp(longestFirst.map(escapeRegExp).join("|"), "g") : undefined;
  }

  /** Appends the ids of the tokens found, and calls `rest` for the text around them. Special ones count only if `special`. */
  encode(text: string, special: boolean, out: number[], rest: (text: string) => void): void {
    let start = 0;
    for (const match of this.#pattern === undefined ? [] : text.matchAll(this.#pattern)) {
      const token = this.#tokens.get(match[0])!;
      if (token.special && !special) continue;
      if (match.index > start) rest(text.slice(start, match.index));
      out.push(token.id);
      start = match.index + match[0].length;
    }
    if (start < text.length) rest(text.slice(start));
  }
}

/** Each piece is one token: its own, or the unknown one. */
class WordEncoder {
  readonly #ids: ReadonlyMap<string | undefined, number>;
  readonly #unknownId: number;

  constructor(spec: TokenizerSpec) {
    const special = new Set(spec.addedTokens.filter((token) => token.special).map((token) => token.id));
    const words = spec.tokens.map((token, id) => [token, id] as const);
    this.#ids = new Map(words.filter(([, id]) => !special.has(id)));
    this.#unknownId = spec.unknownId!;
  }

  encode(piece: string, out: number[]): void {
    out.push(this.#ids.get(piece) ?? this.#unknownId);
  }
}

export class Encoder {
  readonly #spec: TokenizerSpec;
  readonly #model: BytePairEncoder | WordEncoder;
  readonly #splits: readonly { readonly regExp: RegExp; readonly keepGaps: boolean }[];
  readonly #raw: AddedTokenFinder;
  readonly #normalized: AddedTokenFinder;

  constructor(spec: TokenizerSpec) {
    this.#spec = spec;
    this.#model = spec.words ? new WordEncoder(spec) : new BytePairEncoder(spec);
    this.#splits = spec.splits.map(({ pattern, keepGaps }) => ({
      regExp: new RegExp(pattern, "gu"),
      keepGaps,
    }));
    const entries = (normalized: boolean) =>
      spec.addedTokens
        .filter((token) => token.normalized === normalized)
        .map((token) => [normalized ? this.#normalize(token.content) : token.content, token] as const);
    this.#raw = new AddedTokenFinder(new Map(entries(false)));
    this.#normalized = new AddedTokenFinder(new Map(entries(true)));
  }

  /** Ids of `text`; added tokens in it are found, special ones only if `special`. */
  encode(text: string, special: boolean): number[] {
    const out: number[] = [];
    this.#raw.encode(text, special, out, (rest) => {
      this.#normalized.encode(this.#normalize(rest), special, out, (piece) => this.#encodePieces(piece, out));
    });
    return out;
  }

  /** Ids of `text` with no added token recognised at all. */
  encodePlain(text: string): number[] {
    const out: number[] = [];
    this.#encodePieces(this.#normalize(text), out);
    return out;
  }

  #normalize(text: string): string {
    return this.#spec.normalizers.reduce((normalized, form) => normalized.normalize(form), text);
  }

  #encodePieces(text: string, out: number[]): void {
    let pieces = [text];
    for (const { regExp, keepGaps } of this.#splits) {
      pieces = pieces.flatMap((piece) => splitPieces(piece, regExp, keepGaps));
    }
    for (const piece of pieces) this.#model.encode(piece, out);
  }
}

function splitPieces(text: string, regExp: RegExp, keepGaps: boolean): string[] {
  const pieces: string[] = [];
  let start = 0;
  for (const match of text.matchAll(regExp)) {
    if (keepGaps && match.index > start) pieces.push(text.slice(start, match.index));
    if (match[0] !== "") pieces.push(match[0]);
    start = match.index + match[0].length;
  }
  if (keepGaps && start < text.length) pieces.push(text.slice(start));
  return pieces;
}
