import { SdpoError, show } from "../errors.js";

/**
 * A small random generator: sfc32 (Chris Doty-Humphrey's "small fast counting" generator, 128 bits of state).
 * The numbers depend on `seed` and `stream` alone, on every machine. Not for secrets.
 */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** `seed` and `stream` are integers from 0 to 2^53 - 1 and 2^32 - 1; another stream is another sequence. */
  constructor(seed: number, stream = 0) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new SdpoError(
        "ERR_SDPO_ARGUMENT",
        `seed: expected an integer from 0 to 2^53 - 1, got ${show(seed)}`,
      );
    }
    this.#a = seed >>> 0;
    this.#b = Math.floor(seed / 2 ** 32);
    this.#c = stream >>> 0;
    for (let i = 0; i < 16; i++) this.uint32();
  }

  /** An integer from 0 to 2^32 - 1. */
  uint32(): number {
    const result = (this.#a + this.#b + this.#counter++) >>> 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) >>> 0;
    return result;
  }

  /** A number in [0, 1), 32 bits of it random. */
  uniform(): number {
    return this.uint32() / 2 ** 32;
  }

  /** An integer from 0 to `n` - 1, each as likely as the others; n from 1 to 2^32. */
  below(n: number): number {
    const limit = 2 ** 32 - (2 ** 32 % n);
    let value = this.uint32();
    while (value >= limit) value = this.uint32();
    return value % n;
  }

  /** One of `items`, which is not empty. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** `count` different places of `items`, in random order. */
  sample<T>(items: readonly T[], count: number): T[] {
    const pool = [...items];
    for (let i = 0; i < count; i++) {
      const j = i + this.below(pool.length - i);
      [pool[i], pool[j]] = [pool[j]!, pool[i]!];
    }
    return pool.slice(0, count);
  }
}

/** All of `items` in an order that depends on `seed` and `stream` alone (such as an epoch's number). */
export function shuffled<T>(items: readonly T[], seed: number, stream = 0): T[] {
  return new Random(seed, stream).sample(items, items.length);
}
