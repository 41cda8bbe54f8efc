/** Tokenizers of whole words (WordLevel); expectations are those of the Python package tokenizers 0.23. */
import { describe, expect, test } from "vitest";
import { Tokenizer } from "../../lib/text/tokenizer.js";

const REGEX = String.raw`(?:new york)(?![^ \n])|\n|[^ \n]+`;

function files() {
  return {
    tokenizerJson: {
      added_tokens: [{ id: 7, content: "<end>", special: true, normalized: false }],
      normalizer: null as object | null,
      pre_tokenizer: {
        type: "Split",
        pattern: { Regex: REGEX },
        behavior: "Removed",
        invert: true,
      } as object,
      post_processor: null,
      decoder: null as object | null,
      model: {
        type: "WordLevel",
        unk_token: "?" as string | undefined,
        vocab: { "?": 0, "\n": 1, new: 2, york: 3, "new york": 4, café: 5, Ġx: 6 } as object,
      },
    },
    tokenizerConfig: { chat_template: "{% for m in messages %}{{ m.content }}<end>{% endfor %}" },
  };
}

type Files = ReturnType<typeof files>;

const tokenizer = Tokenizer.fromFiles(files());

describe("whole words", () => {
  test.each<[string, number[]]>([
    ["new york", [4]],
    ["  new   york ", [2, 3]],
    ["new yorks new york\nnew york", [2, 0, 4, 1, 4]],
    ["café Ġx x é", [5, 6, 0, 0]],
    ["", []],
    [" ", []],
    ["new <end> york", [2, 0, 3]],
  ])("%j is %j", (text, ids) => expect([...tokenizer.encode(text)]).toEqual(ids));

  test("special tokens count where they are asked for, and in templates", () => {
    expect([...tokenizer.encode("new<end>york", { special: true })]).toEqual([2, 7, 3]);
    expect([...tokenizer.chat([{ role: "user", content: "york <end>" }]).ids]).toEqual([3, 0, 7]);
  });

  test.each<[number[], string, string]>([
    [[4, 1, 5, 6], "new york \n café Ġx", "new york \n café Ġx"],
    [[7, 2, 7, 3, 7], "<end> new <end> york <end>", "new york"],
    [[], "", ""],
  ])("%j reads %j", (ids, text, skipped) => {
    for (const [skipSpecial, expected] of [[false, text] as const, [true, skipped] as const]) {
      expect(tokenizer.decode(ids, { skipSpecial })).toBe(expected);
      const stream = tokenizer.stream({ skipSpecial });
      expect(ids.map((id) => stream.push(id)).join("") + stream.flush()).toBe(expected);
    }
  });

  test.each<[string, (files: Files) => void, RegExp]>([
    [
      "no unknown token",
      ({ tokenizerJson }) => (tokenizerJson.model.unk_token = undefined),
      /model\.unk_token is undefined/,
    ],
    [
      "an unknown token that is none",
      ({ tokenizerJson }) => (tokenizerJson.model.unk_token = "no"),
      /model\.unk_token is "no"; model\.vocab must have it/,
    ],
    [
      "an unknown token that ends a text",
      (files) => Object.assign(files, { generationConfig: { eos_token_id: 0 } }),
      /model\.unk_token is "\?"; text could begin or end a turn with it/,
    ],
    [
      "a decoder",
      ({ tokenizerJson }) => (tokenizerJson.decoder = { type: "ByteLevel" }),
      /decoder .*WordLevel takes none/,
    ],
    [
      "bytes",
      ({ tokenizerJson }) => (tokenizerJson.pre_tokenizer = { type: "ByteLevel" }),
      /WordLevel takes no ByteLevel step/,
    ],
  ])("%s is refused", (_, change, message) => {
    const changed = files();
    change(changed);
    expect(() => Tokenizer.fromFiles(changed)).toThrow(message);
  });
});
