/** Bad tokenizers, templates and arguments: refused with a code and a message that names place, value and remedy. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { SdpoError } from "../../lib/errors.js";
import { truncateToTokens } from "../../lib/text/budget.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import { byteAlphabet, type TinyFiles, tinyFiles } from "./text-tiny.js";

const tiny = () => Tokenizer.fromFiles(tinyFiles());
const user = (content: unknown) => [{ role: "user", content }] as never;
const messages = user("hi");

async function refusal(run: () => unknown): Promise<SdpoError> {
  try {
    await run();
  } catch (error) {
    expect(error, String(error)).toBeInstanceOf(SdpoError);
    return error as SdpoError;
  }
  throw new Error("was not refused");
}

function set(object: object, path: string, value: unknown): void {
  const names = path.split("/");
  const last = names.pop()!;
  const parent = names.reduce((at, name) => (at as never)[name], object) as Record<string, unknown>;
  parent[last] = value;
}

const FILE = "ERR_SDPO_FILE";
const TEXT = "ERR_SDPO_TEXT";
/** Path into the files, value put there, code, what the message says. */
const FILES: [string, unknown, string, RegExp][] = [
  ["tokenizerJson", [], FILE, /tokenizer\.json: the file is \[\]; it must be a JSON object/],
  ["tokenizerJson", undefined, FILE, /tokenizer\.json: the file is undefined/],
  ["tokenizerJson/model", null, FILE, /model is null/],
  [
    "tokenizerJson/model/type",
    "WordPiece",
    TEXT,
    /model\.type "WordPiece" is not supported; .*byte-level BPE/,
  ],
  ["tokenizerJson/model/type", "Unigram", TEXT, /model\.type "Unigram"/],
  ["tokenizerJson/model", { type: "WordLevel", vocab: {} }, FILE, /model\.vocab is \{\}/],
  [
    "tokenizerJson/model/type",
    "WordLevel",
    TEXT,
    /pre_tokenizer .* is not supported; WordLevel takes no ByteL/,
  ],
  ["tokenizerJson/model/byte_fallback", true, TEXT, /model\.byte_fallback true/],
  ["tokenizerJson/model/dropout", 0.1, TEXT, /model\.dropout 0\.1/],
  ["tokenizerJson/model/end_of_word_suffix", "</w>", TEXT, /end_of_word_suffix "<\/w>"/],
  ["tokenizerJson/model/vocab", ["a"], FILE, /model\.vocab is \["a"\]/],
  ["tokenizerJson/model/vocab", {}, FILE, /model\.vocab is \{\}; .*at least one/],
  ["tokenizerJson/model/vocab/ab", 7, FILE, /model\.vocab\["ab"\] is 7; "\S+" has the same id/],
  ["tokenizerJson/model/vocab/ab", -1, FILE, /model\.vocab\["ab"\] is -1; it must be a whole number/],
  ["tokenizerJson/model/vocab/ab", 1.5, FILE, /model\.vocab\["ab"\] is 1\.5/],
  ["tokenizerJson/model/vocab/ab", 2 ** 40, FILE, /model\.vocab\["ab"\] is 1099511627776/],
  ["tokenizerJson/model/vocab/ab", "7", FILE, /model\.vocab\["ab"\] is "7"/],
  ["tokenizerJson/model/merges", {}, FILE, /model\.merges is \{\}; it must be an array/],
  ["tokenizerJson/model/merges/0", "a b c", FILE, /model\.merges\[0\] is "a b c"/],
  ["tokenizerJson/model/merges/0", ["a", 1], FILE, /model\.merges\[0\]/],
  [
    "tokenizerJson/model/merges/1",
    "a c",
    FILE,
    /model\.merges\[1\] is "a c"; model\.vocab has no token "ac"/,
  ],
  ["tokenizerJson/model/merges/1", "q€ b", FILE, /no token "q€"/],
  ["tokenizerJson/added_tokens", "x", FILE, /added_tokens is "x"/],
  ["tokenizerJson/added_tokens/0/content", "", FILE, /added_tokens\[0\]\.content is ""/],
  ["tokenizerJson/added_tokens/0/id", 3, FILE, /added_tokens\[0\]\.id is 3; the vocabulary has/],
  ["tokenizerJson/added_tokens/1/content", "<s>", FILE, /added_tokens\[1\]\.content is "<s>"; an earlier/],
  ["tokenizerJson/added_tokens/0/lstrip", true, TEXT, /added_tokens\[0\]\.lstrip true/],
  ["tokenizerJson/normalizer", { type: "Lowercase" }, TEXT, /normalizer\.type "Lowercase"/],
  ["tokenizerJson/normalizer", { type: "Sequence" }, FILE, /normalizer\.normalizers is undefined/],
  ["tokenizerJson/pre_tokenizer", null, TEXT, /pre_tokenizer null/],
  ["tokenizerJson/pre_tokenizer", { type: "Metaspace" }, TEXT, /pre_tokenizer\.type "Metaspace"/],
  ["tokenizerJson/pre_tokenizer/add_prefix_space", true, TEXT, /pre_tokenizer\.add_prefix_space true/],
  ["tokenizerJson/pre_tokenizer", split("(a", "Isolated"), TEXT, /pattern\.Regex "\(a"/],
  ["tokenizerJson/pre_tokenizer", split("a", "MergedWithNext"), TEXT, /behavior "MergedWithNext"/],
  ["tokenizerJson/decoder", { type: "WordPiece" }, TEXT, /decoder\.type "WordPiece"/],
  ["tokenizerJson/post_processor", { type: "BertProcessing" }, TEXT, /post_processor\.type "BertProcessing"/],
  ["tokenizerJson/post_processor", { type: "TemplateProcessing", single: [] }, FILE, /exactly one Sequence/],
  ["tokenizerConfig", 3, FILE, /tokenizer_config\.json: the file is 3/],
  ["tokenizerConfig/bos_token", 1, FILE, /bos_token is 1/],
  [
    "tokenizerConfig/eos_token",
    "<nope>",
    FILE,
    /names the special token "<nope>", which tokenizer\.json lacks/,
  ],
  ["tokenizerConfig/chat_template", 5, FILE, /chat_template: the template is 5/],
  ["tokenizerConfig/chat_template", [{ name: "a" }], FILE, /chat_template\[0\]: the template is undefined/],
  ["tokenizerConfig/chat_template", "{% if x %}", TEXT, /chat_template: is not a Jinja template/],
  ["tokenizerConfig/chat_template", "{{ 'a }}", TEXT, /is not a Jinja template/],
  ["tokenizerConfig/chat_template", `{{${"(".repeat(50000)}`, TEXT, /is not a Jinja template/],
  ["tokenizerConfig/chat_template", "x".repeat(200_000), TEXT, /has 200000 characters; at most 131072/],
  ["tokenizerConfig/chat_template", " ".repeat(100_000), TEXT, /blanks/],
  ["chatTemplate", "", FILE, /chat_template\.jinja: the template is ""/],
  ["generationConfig", { eos_token_id: 261 }, FILE, /generation_config\.json: eos_token_id is 261/],
  ["generationConfig", { eos_token_id: [2, "x"] }, FILE, /eos_token_id is "x"/],
];

function split(regex: string, behavior: string) {
  const step = { type: "Split", pattern: { Regex: regex }, behavior };
  return { type: "Sequence", pretokenizers: [step, { type: "ByteLevel", use_regex: false }] };
}

test.each(FILES)("%s (%#)", async (path, value, code, message) => {
  const files: TinyFiles = tinyFiles();
  set(files, path, value);
  const error = await refusal(() => Tokenizer.fromFiles(files).chat(messages));
  expect(error.code).toBe(code);
  expect(error.message).toMatch(message);
});

const loop = (body: string) =>
  `{% for a in range(1000) %}{% for b in range(1000) %}${body}{% endfor %}{% endfor %}`;
/** Templates that fail while they run, and what the message says. */
const TEMPLATES: [string, string, RegExp][] = [
  [
    "raises",
    "{{ raise_exception('Unknown role: ' ~ messages[0].role) }}",
    /refuses these messages: Unknown role: user/,
  ],
  ["endless loops", loop("{% for c in range(1000) %}{% endfor %}"), /too many steps/],
  ["long output", loop("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"), /too many steps/],
  [
    "doubling text",
    "{% set n = namespace(a='xx') %}{% for i in range(60) %}{% set n.a = n.a + n.a %}{% endfor %}",
    /too long a text or list/,
  ],
  [
    "doubling list",
    "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = n.a + n.a %}{% endfor %}",
    /too long a text or list/,
  ],
  ["long range", "{{ range(1000000000) | length }}", /range\(1000000000\) has more than/],
  ["range by zero", "{{ range(1, 2, 0) | length }}", /range\(1, 2, 0\)/],
  ["endless recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", /nests deeper than 300/],
  ["splitting", "{% set x = 'a' * 3 %}", /Unknown operator/],
  ["unknown filter", "{{ messages | frobnicate }}", /frobnicate/],
  ["unknown method", "{{ 'a'.frobnicate() }}", /not a function/],
  ["a list as text", "{{ messages }}", /writes a ArrayValue/],
  ["adding none", "{{ 'a' + none }}", /adds a StringValue and a NullValue/],
  ["adding undefined", "{{ 'a' + messages[0].nothing }}", /UndefinedValue/],
  [
    "a token from pieces",
    "{% for m in messages %}{{ '<' + 's>' + m.content }}{% endfor %}",
    /<s> together from pieces/,
  ],
];

test.each(TEMPLATES)("a template with %s", async (_, source, message) => {
  const tokenizer = Tokenizer.fromFiles({ ...tinyFiles(), chatTemplate: source });
  const error = await refusal(() => tokenizer.chat(messages));
  expect(error.code).toBe(TEXT);
  expect(error.message).toMatch(message);
  expect(error.message).toContain("chat_template.jinja");
});

const cyclic: Record<string, unknown> = { role: "user", content: "x" };
cyclic.self = cyclic;
const CALLS: [string, () => unknown, RegExp][] = [
  [
    "id beyond the vocabulary",
    () => tiny().decode([1, 261]),
    /token id 261 is not a whole number from 0 to 260/,
  ],
  ["negative id", () => tiny().decode([-1]), /token id -1/],
  ["fractional id", () => tiny().decode([0.5]), /token id 0\.5/],
  ["id that is NaN", () => tiny().stream().push(Number.NaN), /token id NaN/],
  ["id that is a text", () => tiny().decode(["1"] as never), /token id "1"/],
  ["ids that are no array", () => tiny().decode(5 as never), /ids is 5; it must be an array/],
  ["ids null", () => tiny().decode(null as never), /ids is null/],
  ["text that is no text", () => tiny().encode(7 as never), /text is 7; it must be a string/],
  ["messages that are no array", () => tiny().chat("hi" as never), /messages is "hi"; it must be an array/],
  ["a message that is null", () => tiny().chat([null] as never), /messages\[0\] is null/],
  [
    "a message without role",
    () => tiny().chat([{ content: "x" }] as never),
    /messages\[0\]\.role is undefined/,
  ],
  ["content that is a number", () => tiny().chat(user(4)), /messages\[0\]\.content is 4/],
  [
    "a function in a message",
    () => tiny().chat(user([() => 1])),
    /messages\[0\]\.content\[0\] is a function/,
  ],
  ["an infinite number", () => tiny().chat(messages, { x: Number.POSITIVE_INFINITY }), /x is Infinity/],
  ["a message in a message in a ...", () => tiny().chat([cyclic] as never), /64 levels of nesting/],
  ["tools that are no array", () => tiny().chat(messages, { tools: {} as never }), /tools is \{\}/],
  [
    "a variable with a meaning",
    () => tiny().chat(messages, { range: 1 }),
    /the variable range has a meaning/,
  ],
  ["a budget below 0", () => truncateToTokens(tiny(), "x", -1), /maxTokens is -1/],
  ["a fractional budget", () => truncateToTokens(tiny(), "x", 1.5), /maxTokens is 1\.5/],
];

test.each(CALLS)("%s", async (_, run, message) => {
  const error = await refusal(run);
  expect([TEXT, FILE]).toContain(error.code);
  expect(error.message).toMatch(message);
});

test("a conversation without a template", async () => {
  const { tokenizerJson } = tinyFiles();
  const error = await refusal(() => Tokenizer.fromFiles({ tokenizerJson }).chat(messages));
  expect(error.message).toMatch(/no chat template; encode text instead/);
});

describe("folders", () => {
  const folder = mkdtempSync(join(tmpdir(), "sdpo-text-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const cases: [string, Record<string, string | Uint8Array>, RegExp][] = [
    ["no file", {}, /tokenizer\.json: cannot be read \(ENOENT\); check the path/],
    ["not JSON", { "tokenizer.json": '{"model": {' }, /tokenizer\.json: is not JSON/],
    ["not UTF-8", { "tokenizer.json": Uint8Array.of(0x7b, 0xff, 0x7d) }, /tokenizer\.json: is not UTF-8/],
    ["deep JSON", { "tokenizer.json": "[".repeat(1e6) }, /tokenizer\.json: is not JSON/],
    [
      "bad configuration",
      { "tokenizer.json": JSON.stringify(tinyFiles().tokenizerJson), "tokenizer_config.json": "x" },
      /tokenizer_config\.json: is not JSON/,
    ],
  ];
  test.each(cases)("%s", async (_, files, message) => {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    const error = await refusal(() => Tokenizer.load(folder));
    expect(error.code).toBe(FILE);
    expect(error.message).toMatch(message);
    expect(error.message).toContain(folder);
  });
  test("GGUF and non-paths", async () => {
    expect((await refusal(() => Tokenizer.load("x.gguf"))).message).toMatch(/is a GGUF file; open it with/);
    expect((await refusal(() => Tokenizer.load(3 as never))).message).toMatch(/path is 3/);
  });
});

/** Key of the metadata, value put there, what the message says. */
const GGUF: [string, unknown, RegExp][] = [
  ["tokenizer.ggml.model", "llama", /tokenizer\.ggml\.model "llama" is not supported; only byte-level BPE/],
  ["tokenizer.ggml.model", undefined, /tokenizer\.ggml\.model is undefined/],
  ["tokenizer.ggml.pre", "jina-v2-de", /tokenizer\.ggml\.pre "jina-v2-de" is not supported; known are gpt-2/],
  ["tokenizer.ggml.pre", "constructor", /tokenizer\.ggml\.pre "constructor"/],
  ["tokenizer.ggml.tokens", "x", /tokenizer\.ggml\.tokens is "x"/],
  ["tokenizer.ggml.tokens", ["a", "a"], /tokenizer\.ggml\.tokens\[1\] is "a"; token 0 is the same/],
  ["tokenizer.ggml.tokens", ["a", 1], /tokenizer\.ggml\.tokens\[1\] is 1/],
  ["tokenizer.ggml.token_type", [1], /tokenizer\.ggml\.token_type\.length is 1; there are 258 tokens/],
  ["tokenizer.ggml.merges", undefined, /tokenizer\.ggml\.merges is undefined/],
  ["tokenizer.ggml.merges", ["a q"], /model\.merges\[0\] is "a q"/],
  ["tokenizer.ggml.bos_token_id", 258, /tokenizer\.ggml\.bos_token_id is 258/],
  ["tokenizer.chat_template", 3, /tokenizer\.chat_template is 3/],
];

test.each(GGUF)("GGUF %s (%#)", async (key, value, message) => {
  const tokens = [...byteAlphabet(), "ab", "abc"];
  const metadata: Record<string, unknown> = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": new Int32Array(tokens.length).fill(1),
    "tokenizer.ggml.merges": ["a b", "ab c"],
  };
  expect(Array.from(Tokenizer.fromGguf(metadata).encode("abc"))).toEqual([257]);
  const error = await refusal(() => Tokenizer.fromGguf({ ...metadata, [key]: value }, "m.gguf"));
  expect([TEXT, FILE]).toContain(error.code);
  expect(error.message).toMatch(message);
  expect(error.message).toContain("m.gguf");
});
