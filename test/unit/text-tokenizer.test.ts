/** The tokenizer apart from the golden data: laws that must hold, GGUF kinds, budgets, speed. */
import { describe, expect, test } from "vitest";
import { truncateToTokens } from "../../lib/text/budget.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import { asGguf, type GoldenText, goldenFolder, goldenLines, TOKENIZERS } from "./text-golden.js";
import { byteAlphabet, tinyFiles } from "./text-tiny.js";

/** A small generator of our own (xorshift), so that runs repeat. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Byte pair encoding by the book: merge the best pair, leftmost first, until none is left. */
function naiveMerge(ids: number[], merges: [number, number, number][]): number[] {
  for (;;) {
    let best = -1;
    let rank = merges.length;
    for (let i = 0; i + 1 < ids.length; i++) {
      const found = merges.findIndex(([left, right]) => left === ids[i] && right === ids[i + 1]);
      if (found >= 0 && found < rank) [best, rank] = [i, found];
    }
    if (best < 0) return ids;
    ids = [...ids.slice(0, best), merges[rank]![2], ...ids.slice(best + 2)];
  }
}

test("merges agree with the plain algorithm on random vocabularies", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const next = random(seed);
    const files = tinyFiles();
    const { model } = files.tokenizerJson;
    const vocab = model.vocab as Record<string, number>;
    files.tokenizerJson.added_tokens = [];
    files.tokenizerConfig = {};
    const tokens = ["a", "b", "c"];
    const merges: string[] = [];
    while (merges.length < 40) {
      const [left, right] = [tokens[next(tokens.length)]!, tokens[next(tokens.length)]!];
      if (vocab[left + right] !== undefined || left.length + right.length > 8) continue;
      vocab[left + right] = Object.keys(vocab).length;
      merges.push(`${left} ${right}`);
      tokens.push(left + right);
    }
    for (const token of ["ab", "abc"]) if (!tokens.includes(token)) tokens.push(token);
    model.merges = merges;
    const tokenizer = Tokenizer.fromFiles(files);
    const triples = merges.map((merge) => {
      const [left, right] = merge.split(" ") as [string, string];
      return [vocab[left]!, vocab[right]!, vocab[left + right]!] as [number, number, number];
    });
    for (let i = 0; i < 20; i++) {
      const text = Array.from({ length: 1 + next(60) }, () => "abc"[next(3)]).join("");
      const start = Array.from(text, (letter) => vocab[letter]!);
      expect(Array.from(tokenizer.encode(text)), `${seed} ${text}`).toEqual(naiveMerge(start, triples));
    }
  }
});

test.each(TOKENIZERS)("%s: random ids decode the same whole and streamed", async (name) => {
  const tokenizer = await Tokenizer.load(goldenFolder(name));
  const next = random(7);
  for (let i = 0; i < 500; i++) {
    const ids = Array.from({ length: next(30) }, () => next(tokenizer.vocabularySize));
    const stream = tokenizer.stream();
    const parts = ids.map((id) => stream.push(id));
    for (const part of parts) expect(part).toBe(part.replace(/\p{Surrogate}/gu, "!"));
    expect(parts.join("") + stream.flush()).toBe(tokenizer.decode(ids));
  }
});

test("a stream holds back half characters and nothing else", () => {
  const tokenizer = Tokenizer.fromFiles(tinyFiles());
  const stream = tokenizer.stream();
  const parts = Array.from(tokenizer.encode("é€😀a"), (id) => stream.push(id));
  expect(parts).toEqual(["", "é", "", "", "€", "", "", "", "😀", "a"]);
  expect(stream.push(tokenizer.encode("😀")[0]!)).toBe("");
  expect(stream.flush()).toBe("\ufffd");
});

test("decode takes typed arrays, and a byte order mark is a character", () => {
  const tokenizer = Tokenizer.fromFiles(tinyFiles());
  expect(tokenizer.decode(tokenizer.encode("\ufeffx"))).toBe("\ufeffx");
  expect(tokenizer.decode([])).toBe("");
  expect(tokenizer.decode([258, 256, 259], { skipSpecial: true })).toBe("ab");
});

test("added tokens: longest first, leftmost, before and after normalizing", () => {
  const files = tinyFiles();
  const add = (id: number, content: string, normalized: boolean) =>
    files.tokenizerJson.added_tokens.push({ id, content, special: false, normalized });
  add(261, "<t><t>", false);
  add(262, "<tt", false);
  add(263, "caf\u00e9", true);
  files.tokenizerJson.normalizer = { type: "NFC" };
  const tokenizer = Tokenizer.fromFiles(files);
  const ids = (text: string) => Array.from(tokenizer.encode(text));
  expect(ids("<t><t><t>")).toEqual([261, 260]);
  expect(ids("<<t>>")).toEqual(
    [60, 260, 62].map((id) => (id === 260 ? id : ids(String.fromCharCode(id))[0]!)),
  );
  expect(ids("<t><tt>")).toEqual([260, 262, ...ids(">")]);
  expect(ids("cafe\u0301<t>")).toEqual([263, 260]);
  expect(tokenizer.decode([263, 261])).toBe("caf\u00e9<t><t>");
});

test("(?i:'s) takes a long s and (?i:'k) the Kelvin sign, as Oniguruma has it", async () => {
  const tokenizer = await Tokenizer.load(goldenFolder("llama3"));
  const ids = (text: string) => Array.from(tokenizer.encode(text));
  expect(ids("'\u017fzyzzy")).toEqual([...ids("'\u017f"), tokenizer.tokenToId("zyzzy")]);
  const files = tinyFiles();
  const split = { type: "Split", pattern: { Regex: "(?i:k)" }, behavior: "Isolated" };
  files.tokenizerJson.pre_tokenizer = {
    type: "Sequence",
    pretokenizers: [split, { type: "ByteLevel", use_regex: false }],
  };
  const vocab = files.tokenizerJson.model.vocab as Record<string, number>;
  vocab["\u00aaa"] = 280;
  files.tokenizerJson.model.merges = ["\u00aa a"];
  const last = Array.from(Tokenizer.fromFiles(files).encode("\u212aa"));
  expect(last.at(-1)).toBe(vocab.a);
});

describe("what the configuration says", () => {
  test("names and numbers", async () => {
    const qwen = await Tokenizer.load(`${goldenFolder("qwen")}/tokenizer.json`);
    expect(qwen.vocabularySize).toBe(2000);
    expect(qwen.eosTokenIds).toEqual([1997]);
    expect(qwen.bosTokenId).toBeUndefined();
    expect(qwen.padTokenId).toBe(1995);
    expect(qwen.tokenToId("<think>")).toBe(1998);
    expect(qwen.idToToken(1998)).toBe("<think>");
    expect(qwen.tokenToId("nothing like it")).toBeUndefined();
    expect(qwen.idToToken(2000)).toBeUndefined();
  });

  test("stop tokens are generation_config's and the tokenizer's", () => {
    const stops = (generationConfig: unknown) =>
      Tokenizer.fromFiles({ ...tinyFiles(), generationConfig }).eosTokenIds;
    expect(stops(undefined)).toEqual([259]);
    expect(stops({ eos_token_id: 258 })).toEqual([258, 259]);
    expect(stops({ eos_token_id: [259, 7] })).toEqual([259, 7]);
  });

  test("a token it names is special, whatever tokenizer.json says", () => {
    const files = tinyFiles();
    files.tokenizerConfig.additional_special_tokens = ["<t>", { content: "ab" }];
    const tokenizer = Tokenizer.fromFiles(files);
    expect(tokenizer.encode("<t>")).toHaveLength(3);
    expect(Array.from(tokenizer.encode("<t>ab", { special: true }))).toEqual([260, 256]);
    expect(tokenizer.decode([260, 256, 97], { skipSpecial: true })).toBe("a");
  });

  test("added_tokens_decoder adds tokens", () => {
    const files = tinyFiles();
    files.tokenizerConfig.added_tokens_decoder = {
      258: { content: "<s>", special: true },
      270: { content: "<new>", special: false, normalized: false },
    };
    const tokenizer = Tokenizer.fromFiles(files);
    expect(Array.from(tokenizer.encode("<new>"))).toEqual([270]);
    expect(tokenizer.vocabularySize).toBe(271);
    expect(tokenizer.decode([265, 270])).toBe("<new>");
  });
});

test("the hash changes with whatever changes ids, and with nothing else", () => {
  const hash = (change: (files: ReturnType<typeof tinyFiles>) => void) => {
    const files = tinyFiles();
    change(files);
    return Tokenizer.fromFiles(files).hash;
  };
  const plain = hash(() => {});
  expect(plain).toMatch(/^[0-9a-f]{64}$/);
  expect(hash((files) => (files.tokenizerJson.version = "2.0"))).toBe(plain);
  const hashes = [
    plain,
    hash((files) => (files.tokenizerJson.model.merges = [["a", "b"]])),
    hash((files) => (files.tokenizerJson.normalizer = { type: "NFC" })),
    hash((files) => (files.tokenizerJson.model.ignore_merges = true)),
    hash((files) => (files.tokenizerJson.pre_tokenizer = { type: "ByteLevel", use_regex: false })),
    hash((files) => files.tokenizerJson.added_tokens.pop()),
    hash((files) => (files.tokenizerConfig.chat_template = "x")),
    hash((files) => (files.tokenizerConfig.bos_token = "</s>")),
  ];
  expect(new Set(hashes).size).toBe(hashes.length);
});

test.each([
  ["qwen", "qwen2"],
  ["llama3", "llama-bpe"],
  ["llama3", "llama3"],
  ["smollm2", "smollm"],
] as const)("%s from GGUF metadata with pre = %s", (name, pre) => {
  const tokenizer = Tokenizer.fromGguf(asGguf(name, pre));
  for (const row of goldenLines<GoldenText>(name, "texts")) {
    expect(Array.from(tokenizer.encode(row.text, { special: true })), row.name).toEqual(row.ids);
    if (name !== "llama3") continue;
    const withBos = tokenizer.encode(row.text, { special: true, addSpecialTokens: true });
    expect(Array.from(withBos), row.name).toEqual(row.ids_with_special_tokens);
  }
});

test("GGUF kinds split as llama.cpp does", () => {
  const merges = ["1 1", "11 11", "+ =", "\u0120 11", "a 1"];
  const encode = (pre: string, text: string) => {
    const metadata = asGguf("llama3", pre);
    const tokens = byteAlphabet().concat(merges.map((merge) => merge.replace(" ", "")));
    metadata["tokenizer.ggml.tokens"] = tokens;
    metadata["tokenizer.ggml.token_type"] = tokens.map(() => 1);
    metadata["tokenizer.ggml.bos_token_id"] = 0;
    metadata["tokenizer.ggml.merges"] = merges;
    return Array.from(Tokenizer.fromGguf(metadata).encode(text), (id) => tokens[id]!.replace("\u0120", " "));
  };
  expect(encode("gpt-2", "a1111 11+=")).toEqual(["a", "1111", " 11", "+="]);
  expect(encode("olmo", "a1111 11+=")).toEqual(["a", "1111", " 11", "+="]);
  expect(encode("smollm", "a1111 11+=")).toEqual(["a", "1", "1", "1", "1", " ", "1", "1", "+="]);
  expect(encode("qwen2", "a1111 11+=")).toEqual(["a", "1", "1", "1", "1", " ", "1", "1", "+="]);
  expect(encode("dbrx", "a1111 11+=")).toEqual(["a", "11", "1", "1", " ", "11", "+="]);
  expect(encode("llama-bpe", "a1111 11+=")).toEqual(["a", "11", "1", "1", " ", "11", "+="]);
  expect(encode("default", "a1111 11+=")).toEqual(["a", "11", "1", "1", " ", "11", "+="]);
  expect(encode("default", "a 11111")).toEqual(["a", " ", "11", "1", "11"]);
});

describe("truncateToTokens", () => {
  const text = "Line one: naïve café 😀😀😀\nexpected [1,2,3], got [3,2,1]\n".repeat(6);

  test.each(TOKENIZERS)("%s: fits, begins the text, ends with the marker", async (name) => {
    const tokenizer = await Tokenizer.load(goldenFolder(name));
    const count = tokenizer.encode(text).length;
    expect(truncateToTokens(tokenizer, text, count, " [...]")).toBe(text);
    expect(truncateToTokens(tokenizer, text, 0, " [...]")).toBe("");
    for (const marker of ["", " [...]"]) {
      let longest = 0;
      for (let budget = 8; budget < count; budget += 3) {
        const cut = truncateToTokens(tokenizer, text, budget, marker);
        expect(tokenizer.encode(cut).length).toBeLessThanOrEqual(budget);
        expect(cut.endsWith(marker)).toBe(true);
        expect(text.startsWith(cut.slice(0, cut.length - marker.length))).toBe(true);
        longest = Math.max(longest, tokenizer.encode(cut).length / budget);
      }
      expect(longest).toBeGreaterThan(0.95);
    }
  });

  test("never cuts inside a character", () => {
    const tokenizer = Tokenizer.fromFiles(tinyFiles());
    const lengths = Array.from(
      { length: 9 },
      (_, budget) => truncateToTokens(tokenizer, "😀😀x", budget).length,
    );
    expect(lengths).toEqual([0, 0, 0, 0, 2, 2, 2, 2, 4]);
  });
});

test("a megabyte of text, and of one word, takes seconds at most", async () => {
  const tokenizer = await Tokenizer.load(goldenFolder("smollm2"));
  const next = random(3);
  const word = Array.from({ length: 1_000_000 }, () => String.fromCharCode(97 + next(26))).join("");
  const prose = goldenLines<GoldenText>("smollm2", "texts").map((row) => row.text);
  for (const text of [word, "a".repeat(1_000_000), prose.join("\n").repeat(30).slice(0, 1_000_000)]) {
    const started = performance.now();
    const ids = tokenizer.encode(text);
    expect(performance.now() - started).toBeLessThan(15_000);
    expect(ids.length).toBeGreaterThan(1000);
  }
});
