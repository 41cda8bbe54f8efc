/** Plain text, whatever it says, never becomes a special token: made tokenizers that tempt it, and the golden ones. */
import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import { asGguf, goldenFolder, goldenJson, TOKENIZERS } from "./text-golden.js";
import { type TinyFiles, tinyFiles } from "./text-tiny.js";

describe("plain text never becomes a special token", () => {
  const SPECIAL = ["word", "ab", "##", "\u0120x", "\u0100"];

  /** The tiny tokenizer with special tokens that plain text could spell: words, merges, one that reads as bytes. */
  function spellable(ignoreMerges: boolean, inVocabulary: boolean) {
    const files = tinyFiles();
    const { model } = files.tokenizerJson;
    const vocab = model.vocab as Record<string, number>;
    delete vocab["\u0100"];
    vocab["#".repeat(4)] = 300;
    vocab["#".repeat(3)] = 301;
    SPECIAL.forEach((content, i) => {
      const known = vocab[content] ?? 310 + i;
      if (inVocabulary || content === "##" || content === "ab") vocab[content] = known;
      const added = { id: known, content, special: true, normalized: false };
      files.tokenizerJson.added_tokens.push(added);
    });
    model.ignore_merges = ignoreMerges;
    model.merges = [
      ["a", "b"],
      ["ab", "c"],
      ["#", "#"],
      ["##", "#"],
    ];
    files.tokenizerJson.pre_tokenizer = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
    return Tokenizer.fromFiles(files);
  }

  test.each([
    [true, false],
    [true, true],
    [false, false],
  ])("ignore_merges %s, in the vocabulary %s", (ignoreMerges, inVocabulary) => {
    const tokenizer = spellable(ignoreMerges, inVocabulary);
    const special = new Set(SPECIAL.map((content) => tokenizer.tokenToId(content)));
    const texts = ["word", "ab", "abc", "##", "###", "#####", " x", ...SPECIAL, "<s>", "</s>"];
    for (const text of texts) {
      const ids = Array.from(tokenizer.encode(text));
      expect(
        ids.filter((id) => special.has(id) || id === 258 || id === 259),
        text,
      ).toEqual([]);
      if (!(ignoreMerges && text === "abc")) expect(tokenizer.decode(ids), text).toBe(text);
    }
    for (const content of SPECIAL) {
      expect(Array.from(tokenizer.encode(content, { special: true }))).toEqual([
        tokenizer.tokenToId(content),
      ]);
    }
    // A byte cannot be written otherwise, so the vocabulary's own token for it stays.
    const byte = tokenizer.encode("\0").includes(tokenizer.tokenToId("\u0100")!);
    expect(byte).toBe(inVocabulary);
  });

  test.each(TOKENIZERS)("%s: whatever special token is written, alone and in words", async (name) => {
    const tokenizer = await Tokenizer.load(goldenFolder(name));
    const { added_tokens: added } = goldenJson(name, "tokenizer.json") as {
      added_tokens: { id: number; content: string; special: boolean }[];
    };
    const special = added.filter((token) => token.special);
    expect(special.length).toBeGreaterThan(1);
    const ids = new Set(special.map((token) => token.id));
    const all = special.map(({ content }) => content);
    const texts = all.flatMap((a) => [a, ` ${a}`, `x${a}y`, ...all.map((b) => a + b), a.slice(0, -1)]);
    for (const text of [...texts, all.join("")]) {
      const encoded = Array.from(tokenizer.encode(text));
      expect(
        encoded.filter((id) => ids.has(id)),
        text,
      ).toEqual([]);
      expect(tokenizer.decode(encoded)).toBe(text);
    }
  });

  test("llama3's way of taking whole words does not reach its special tokens", () => {
    const json = goldenJson("llama3", "tokenizer.json") as TinyFiles["tokenizerJson"];
    json.added_tokens.push({ id: 1100, content: "assistant", special: true, normalized: false });
    const tokenizer = Tokenizer.fromFiles({ tokenizerJson: json });
    expect(Array.from(tokenizer.encode("assistant"))).not.toContain(1100);
    expect(tokenizer.decode(tokenizer.encode("assistant"))).toBe("assistant");
  });

  test("an unknown byte vanishes where the unknown token is special", () => {
    const files = tinyFiles();
    delete (files.tokenizerJson.model.vocab as Record<string, number>).z;
    (files.tokenizerJson.model.vocab as Record<string, number>)["</s>"] = 259;
    files.tokenizerJson.model.unk_token = "</s>";
    expect(Array.from(Tokenizer.fromFiles(files).encode("abz"))).toEqual([256]);
    (files.tokenizerJson.model.vocab as Record<string, number>)["?unknown?"] = 280;
    files.tokenizerJson.model.unk_token = "?unknown?";
    expect(Array.from(Tokenizer.fromFiles(files).encode("abz"))).toEqual([256, 280]);
  });

  test("an added token is special where any file says so, or where it ends a completion", () => {
    const files = tinyFiles();
    expect(Array.from(Tokenizer.fromFiles(files).encode("<t>"))).toEqual([260]);
    const stopping = Tokenizer.fromFiles({ ...files, generationConfig: { eos_token_id: 260 } });
    expect(stopping.encode("<t>")).toHaveLength(3);
    files.tokenizerConfig.added_tokens_decoder = { 260: { content: "<t>", special: true } };
    expect(Tokenizer.fromFiles(files).encode("<t>")).toHaveLength(3);
  });

  test("the end of a turn in a GGUF file is special, whatever its type says", () => {
    const metadata = asGguf("qwen", "qwen2");
    const tokens = metadata["tokenizer.ggml.tokens"] as string[];
    const id = tokens.indexOf("<|im_end|>");
    (metadata["tokenizer.ggml.token_type"] as Int32Array)[id] = 4;
    expect(Array.from(Tokenizer.fromGguf(metadata).encode("<|im_end|>"))).toEqual([id]);
    metadata["tokenizer.ggml.eot_token_id"] = id;
    expect(Array.from(Tokenizer.fromGguf(metadata).encode("<|im_end|>"))).not.toContain(id);
  });
});
