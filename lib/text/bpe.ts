/**
 * Byte-level byte pair encoding: a piece of text, as UTF-8 bytes, is merged pair by pair, best rank first, leftmost first.
 * Written here because the library's BPE merges by rescanning strings and decodes by searching the added tokens linearly;
 * this one works on ids with a heap (n log n in the piece's length) and is shorter than the corrections would be.
 * Special tokens never come of a piece: no merge makes one, and none is taken whole. One exception: a special token that
 * is in the vocabulary and stands for a single byte, which could not be written otherwise (a padding token "!").
 */
import type { TokenizerSpec } from "./spec.js";

/** GPT-2's alphabet: bytes that print stand for themselves, the others for U+0100 on. */
const BYTE_TO_CHARACTER: readonly string[] = (() => {
  let next = 256;
  const prints = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(prints(byte) ? byte : next++));
})();
const CHARACTER_TO_BYTE: ReadonlyMap<string, number> = new Map(BYTE_TO_CHARACTER.map((c, byte) => [c, byte]));

/** Longer strings cut from a text keep the whole text alive in V8 (sliced strings), so they are not cached. */
const CACHED_LENGTH = 12;
const CACHED_PIECES = 65536;
const POSITIONS = 2 ** 31;

/** The bytes a token stands for: its own UTF-8 where it is literal or has characters outside the alphabet. */
export function tokenBytes(token: string, literal: boolean): Uint8Array {
  const bytes = literal ? [undefined] : Array.from(token, (character) => CHARACTER_TO_BYTE.get(character));
  return bytes.includes(undefined) ? new TextEncoder().encode(token) : Uint8Array.from(bytes as number[]);
}

export class BytePairEncoder {
  readonly #size: number;
  readonly #merges: Int32Array;
  readonly #ranks = new Map<number, number>();
  readonly #byteIds: readonly (number | undefined)[];
  /** Whole pieces that are tokens; only filled where merges are ignored for them. */
  readonly #whole = new Map<string, number>();
  readonly #cache = new Map<string, readonly number[]>();
  readonly #utf8 = new TextEncoder();

  constructor(spec: TokenizerSpec) {
    this.#size = spec.tokens.length;
    this.#merges = spec.merges;
    const special = new Set(spec.addedTokens.filter((token) => token.special).map((token) => token.id));
    const foreign = new Set(spec.addedTokens.filter((token) => !token.inVocabulary).map((token) => token.id));
    for (let rank = 0; rank < spec.merges.length / 3; rank++) {
      if (!special.has(spec.merges[rank * 3 + 2]!))
        this.#ranks.set(this.#key(spec.merges[rank * 3]!, spec.merges[rank * 3 + 1]!), rank);
    }
    const words = spec.tokens.map((token, id) => [token, id] as const);
    const ids = new Map(words.filter(([, id]) => !foreign.has(id)));
    const unknownId = special.has(spec.unknownId!) ? undefined : spec.unknownId;
    this.#byteIds = BYTE_TO_CHARACTER.map((character) => ids.get(character) ?? unknownId);
    if (!spec.ignoreMerges) return;
    for (const [token, id] of ids) if (token !== undefined && !special.has(id)) this.#whole.set(token, id);
  }

  /** Appends the ids of one piece. Bytes without a token vanish (or become the unknown token). */
  encode(piece: string, out: number[]): void {
    let ids = this.#cache.get(piece);
    if (ids === undefined) {
      ids = this.#encode(this.#utf8.encode(piece));
      if (piece.length <= CACHED_LENGTH) {
        if (this.#cache.size >= CACHED_PIECES) this.#cache.clear();
        this.#cache.set(piece, ids);
      }
    }
    for (const id of ids) out.push(id);
  }

  #encode(bytes: Uint8Array): readonly number[] {
    if (this.#whole.size > 0) {
      const whole = this.#whole.get(Array.from(bytes, (byte) => BYTE_TO_CHARACTER[byte]).join(""));
      if (whole !== undefined) return [whole];
    }
    const ids: number[] = [];
    for (const byte of bytes) {
      const id = this.#byteIds[byte];
      if (id !== undefined) ids.push(id);
    }
    return ids.length > 1 ? this.#merge(ids) : ids;
  }

  #key(left: number, right: number): number {
    return left * this.#size + right;
  }

  /** Merges a linked list of ids; a heap entry is rank * 2^31 + position, stale ones are seen by their rank. */
  #merge(ids: number[]): readonly number[] {
    const count = ids.length;
    const next = Int32Array.from(ids, (_, i) => i + 1);
    const previous = Int32Array.from(ids, (_, i) => i - 1);
    const heap: number[] = [];
    const rankAt = (i: number) =>
      i < 0 || next[i]! >= count ? undefined : this.#ranks.get(this.#key(ids[i]!, ids[next[i]!]!));
    const offer = (i: number) => {
      const rank = rankAt(i);
      if (rank !== undefined) pushHeap(heap, rank * POSITIONS + i);
    };
    for (let i = 0; i + 1 < count; i++) offer(i);
    while (heap.length > 0) {
      const entry = popHeap(heap);
      const i = entry % POSITIONS;
      const rank = (entry - i) / POSITIONS;
      if (ids[i]! < 0 || rankAt(i) !== rank) continue;
      const gone = next[i]!;
      ids[i] = this.#merges[rank * 3 + 2]!;
      ids[gone] = -1;
      next[i] = next[gone]!;
      if (next[i]! < count) previous[next[i]!] = i;
      offer(previous[i]!);
      offer(i);
    }
    return ids.filter((id) => id >= 0);
  }
}

function pushHeap(heap: number[], entry: number): void {
  let i = heap.length;
  while (i > 0) {
    const parent = (i - 1) >> 1;
    if (heap[parent]! <= entry) break;
    heap[i] = heap[parent]!;
    i = parent;
  }
  heap[i] = entry;
}

function popHeap(heap: number[]): number {
  const top = heap[0]!;
  const last = heap.pop()!;
  if (heap.length === 0) return top;
  let i = 0;
  for (let child = 1; child < heap.length; child = 2 * i + 1) {
    if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child++;
    if (heap[child]! >= last) break;
    heap[i] = heap[child]!;
    i = child;
  }
  heap[i] = last;
  return top;
}
