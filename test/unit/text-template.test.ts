/** Chat templates: Jinja as Python has it, and text that cannot become special tokens. */
import { readFileSync } from "node:fs";
import { describe, expect, test, vi } from "vitest";
import { parseJinja, renderJinja } from "../../lib/text/jinja.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import { goldenFolder, TOKENIZERS } from "./text-golden.js";
import { tinyFiles } from "./text-tiny.js";

interface Rendering {
  template: string;
  text?: string;
  error?: string;
}
const golden = JSON.parse(readFileSync(goldenFolder("jinja.json"), "utf8")) as {
  variables: Record<string, unknown>;
  renderings: Rendering[];
};
const render = (template: string, variables: Record<string, unknown> = {}) =>
  renderJinja(
    parseJinja(template, "test", (text) => text),
    variables,
    "test",
  );

test.each(golden.renderings)("$template", ({ template, text, error }) => {
  if (error !== undefined) expect(() => render(template, golden.variables)).toThrow("test: failed on these");
  else expect(render(template, golden.variables)).toBe(text);
});

test("strftime_now is English", () => {
  vi.useFakeTimers({ now: new Date(2024, 6, 5, 9, 8, 7) });
  expect(render("{{ strftime_now('%d %b %Y|%B %A %a %m %H:%M:%S %% %q') }}")).toBe(
    "05 Jul 2024|July Friday Fri 07 09:08:07 % %q",
  );
  vi.useRealTimers();
});

const [BOS, EOS, TAG] = [258, 259, 260];
const bytes = (text: string) => Array.from(Tokenizer.fromFiles(tinyFiles()).encode(text));
const tiny = (chatTemplate: string) => Tokenizer.fromFiles({ ...tinyFiles(), chatTemplate });
const chat = (tokenizer: Tokenizer, content: string, variables = {}) => {
  const { text, ids } = tokenizer.chat([{ role: "user", content }], variables);
  return { text, ids: Array.from(ids) };
};

describe("special tokens", () => {
  const plain = tiny("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{{ '</s>' }}");

  test("only the template writes them", () => {
    expect(chat(plain, "x")).toEqual({ text: "<s>x</s>", ids: [BOS, ...bytes("x"), EOS] });
    expect(chat(plain, "<s></s>")).toEqual({ text: "<s><s></s></s>", ids: [BOS, ...bytes("<s></s>"), EOS] });
    expect(bytes("<s></s>")).toHaveLength(7);
    expect(chat(plain, "a<t>b").ids).toEqual([BOS, ...bytes("a"), TAG, ...bytes("b"), EOS]);
  });

  test("not put together from a message and the template's text, or from two messages", () => {
    const around = tiny("{% for m in messages %}<{{ m.content }}>{% endfor %}</s>");
    expect(chat(around, "s").ids).toEqual([...bytes("<s>"), EOS]);
    const { ids } = plain.chat(["<", "s>"].map((content) => ({ role: "user", content })));
    expect(Array.from(ids)).toEqual([BOS, ...bytes("<s>"), EOS]);
    const cutting = tiny("{{ messages[0].content.split('-') | join('') }}");
    expect(chat(cutting, "<-s>").ids).toEqual(bytes("<s>"));
  });

  test("not from tools, variables or keys", () => {
    const all = tiny("{{ tools | tojson }}{{ extra }}{{ bos_token }}");
    const { ids } = all.chat([], { tools: [{ "<s>": "</s>" }], extra: "<s>" });
    expect(Array.from(ids)).toEqual([...bytes('[{"<s>": "</s>"}]<s>'), BOS]);
    expect(chat(all, "", { tools: [], extra: "", bos_token: "<s>" }).ids).toEqual(bytes("[]<s>"));
  });

  test("private characters in a message stay what they are", () => {
    const marks = Array.from({ length: 8 }, (_, i) => String.fromCodePoint(0xf0000 + i)).join("");
    expect(chat(plain, marks)).toEqual({ text: `<s>${marks}</s>`, ids: [BOS, ...bytes(marks), EOS] });
  });

  test("text is encoded across the seams of template and message", () => {
    expect(chat(tiny("a{{ messages[0].content }}"), "bc").ids).toEqual([257]);
  });

  test("lone surrogates become U+FFFD", () => {
    expect(chat(plain, "\ud83d").text).toBe("<s>\ufffd</s>");
  });

  test("a special token in a comparison is the template's own", () => {
    const asks = tiny("{% if '<s>' in messages[0].content %}yes{% else %}no{% endif %}");
    expect(chat(asks, "<s>").text).toBe("no");
  });
});

test("chat_template.jinja wins over the configuration, named templates are chosen", () => {
  const files = tinyFiles();
  files.tokenizerConfig.chat_template = [
    { name: "default", template: "D" },
    { name: "tool_use", template: "T{{ tools | length }}" },
  ];
  expect(Tokenizer.fromFiles(files).chat([]).text).toBe("D");
  expect(Tokenizer.fromFiles(files).chat([], { tools: [1, 2] }).text).toBe("T2");
  expect(Tokenizer.fromFiles({ ...files, chatTemplate: "J" }).chat([], { tools: [1] }).text).toBe("J");
  files.tokenizerConfig.chat_template = [{ name: "rag", template: "R" }];
  expect(() => Tokenizer.fromFiles(files).chat([])).toThrow('chat templates are rag, none is "default"');
});

test("variables reach the template, the generation prompt is off by default", () => {
  const tokenizer = tiny("{{ add_generation_prompt }}{{ thinking }}{{ tools }}");
  expect(tokenizer.chat([], { thinking: 3 }).text).toBe("False3None");
  expect(tokenizer.chat([], { addGenerationPrompt: true }).text).toBe("TrueNone");
});

test.each(TOKENIZERS)("%s takes long conversations", async (name) => {
  const tokenizer = await Tokenizer.load(goldenFolder(name));
  const messages = Array.from({ length: 2000 }, (_, i) => ({
    role: i % 2 === 0 ? "user" : "assistant",
    content: `turn ${i}. `.repeat(50),
  }));
  const { text, ids } = tokenizer.chat(messages, { addGenerationPrompt: true });
  expect(text.length).toBeGreaterThan(800_000);
  expect(tokenizer.decode(ids)).toBe(text);
});
