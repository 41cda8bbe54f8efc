/** Ids, texts and conversations against transformers (test/golden/text). */
import { describe, expect, test } from "vitest";
import { Encoder } from "../../lib/text/encoder.js";
import { parseTokenizerJson } from "../../lib/text/spec.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import {
  type GoldenChat,
  type GoldenDecoding,
  type GoldenText,
  goldenFolder,
  goldenJson,
  goldenLines,
  readGgufMetadata,
  TOKENIZERS,
} from "./text-golden.js";

/** Names with what differs, so that one failure does not hide the others. */
function differences<T extends { name: string }>(
  rows: T[],
  expected: (row: T) => unknown,
  got: (row: T) => unknown,
) {
  const key = (value: unknown) => JSON.stringify(value instanceof Int32Array ? Array.from(value) : value);
  return rows.filter((row) => key(got(row)) !== key(expected(row))).map((row) => row.name);
}

function checkTexts(tokenizer: Tokenizer, texts: GoldenText[]): void {
  expect(texts.length).toBeGreaterThan(100);
  const split = (row: GoldenText) => row.ids_split_special ?? row.ids;
  const decoded = (row: GoldenText) => row.decoded ?? row.text;
  expect(
    differences(
      texts,
      (row) => row.ids,
      (row) => tokenizer.encode(row.text, { special: true }),
    ),
  ).toEqual([]);
  expect(differences(texts, split, (row) => tokenizer.encode(row.text))).toEqual([]);
  const withSpecial = (row: GoldenText) =>
    tokenizer.encode(row.text, { special: true, addSpecialTokens: true });
  expect(differences(texts, (row) => row.ids_with_special_tokens ?? row.ids, withSpecial)).toEqual([]);
  expect(differences(texts, decoded, (row) => tokenizer.decode(row.ids))).toEqual([]);
  const skipping = (row: GoldenText) => tokenizer.decode(row.ids, { skipSpecial: true });
  expect(differences(texts, (row) => row.decoded_skip_special ?? decoded(row), skipping)).toEqual([]);
}

function checkChats(tokenizer: Tokenizer, chats: GoldenChat[]): void {
  expect(chats.length).toBeGreaterThan(40);
  for (const row of chats) {
    const options = { addGenerationPrompt: row.add_generation_prompt, tools: row.tools, ...row.arguments };
    if (row.error !== undefined) {
      expect(() => tokenizer.chat(row.messages, options), row.name).toThrow(row.error);
      continue;
    }
    const { text, ids } = tokenizer.chat(row.messages, options);
    expect(text, row.name).toBe(row.text);
    expect(Array.from(ids), row.name).toEqual(row.safe_ids ?? row.ids);
  }
}

describe.each(TOKENIZERS)("%s", (name) => {
  test("texts", async () => {
    checkTexts(await Tokenizer.load(goldenFolder(name)), goldenLines<GoldenText>(name, "texts"));
  });

  test("texts without any added token", () => {
    const encoder = new Encoder(parseTokenizerJson(goldenJson(name, "tokenizer.json"), "tokenizer.json"));
    const expected = (row: GoldenText) => row.ids_no_added_tokens ?? row.ids_split_special ?? row.ids;
    const texts = goldenLines<GoldenText>(name, "texts");
    expect(differences(texts, expected, (row) => encoder.encodePlain(row.text))).toEqual([]);
  });

  test("decodings, whole and streamed", async () => {
    const tokenizer = await Tokenizer.load(goldenFolder(name));
    const rows = goldenLines<GoldenDecoding>(name, "decode");
    expect(rows.length).toBeGreaterThan(30);
    for (const { ids, text, text_skip_special } of rows) {
      for (const [skipSpecial, expected] of [[false, text] as const, [true, text_skip_special] as const]) {
        expect(tokenizer.decode(ids, { skipSpecial })).toBe(expected);
        const stream = tokenizer.stream({ skipSpecial });
        expect(ids.map((id) => stream.push(id)).join("") + stream.flush()).toBe(expected);
      }
    }
  });

  test("conversations", async () => {
    checkChats(await Tokenizer.load(goldenFolder(name)), goldenLines<GoldenChat>(name, "chats"));
  });
});

test.skipIf(!process.env.SDPO_TEST_GGUF)(
  "a GGUF file's metadata make the tokenizer of its folder",
  async () => {
    const tokenizer = Tokenizer.fromGguf(readGgufMetadata(process.env.SDPO_TEST_GGUF!));
    checkTexts(tokenizer, goldenLines<GoldenText>("smollm2", "texts"));
    checkChats(tokenizer, goldenLines<GoldenChat>("smollm2", "chats"));
    const folder = await Tokenizer.load(goldenFolder("smollm2"));
    expect(tokenizer.eosTokenIds).toEqual(folder.eosTokenIds);
    expect(tokenizer.bosTokenId).toBe(folder.bosTokenId);
    expect(tokenizer.hash).toBe(folder.hash);
  },
);
