/** A tokenizer small enough to see through: the 256 bytes, "ab" (256), "abc" (257) and a few added tokens. */
export interface TinyFiles {
  tokenizerJson: Record<string, unknown> & { model: Record<string, unknown>; added_tokens: object[] };
  tokenizerConfig: Record<string, unknown>;
  generationConfig?: unknown;
  chatTemplate?: string;
}

/** GPT-2's byte alphabet, written out apart from the code under test. */
export function byteAlphabet(): string[] {
  const printing = (b: number) =>
    (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
  const others = Array.from({ length: 256 }, (_, b) => b).filter((b) => !printing(b));
  return Array.from({ length: 256 }, (_, b) =>
    String.fromCodePoint(printing(b) ? b : 256 + others.indexOf(b)),
  );
}

export function tinyFiles(): TinyFiles {
  const alphabet = byteAlphabet();
  const vocab = Object.fromEntries([...alphabet, "ab", "abc"].map((token, id) => [token, id]));
  const added = (id: number, content: string, special: boolean) => ({
    id,
    content,
    special,
    normalized: false,
  });
  return {
    tokenizerJson: {
      added_tokens: [added(258, "<s>", true), added(259, "</s>", true), added(260, "<t>", false)],
      normalizer: null,
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
      post_processor: null,
      decoder: { type: "ByteLevel" },
      model: {
        type: "BPE",
        vocab,
        merges: [
          ["a", "b"],
          ["ab", "c"],
        ],
      },
    },
    tokenizerConfig: {
      bos_token: "<s>",
      eos_token: "</s>",
      chat_template: "{% for m in messages %}<s>{{ m.role }}:{{ m.content }}</s>{% endfor %}",
    },
  };
}
