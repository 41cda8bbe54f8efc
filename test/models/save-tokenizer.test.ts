/** The tokenizer that Model.save writes, wherever it came from, and what it says where it cannot. */
import { execFileSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SdpoError } from "../../lib/errors.js";
import { parseModelConfig } from "../../lib/models/formats/config.js";
import { systemError } from "../../lib/models/formats/files.js";
import { Model } from "../../lib/models/model.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import { asGguf, type GoldenText, goldenFolder, goldenLines } from "../unit/text-golden.js";
import { tinyFiles } from "../unit/text-tiny.js";

const CONFIG = parseModelConfig(
  {
    ...{ model_type: "llama", vocab_size: 2000, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1 },
    ...{ num_attention_heads: 2, tie_word_embeddings: true },
  },
  "test",
);
const CHAT = [{ role: "user", content: "Hello</s> 12" }] as const;
const python = process.env.SDPO_TEST_PYTHON;

let device: Device;
let folder: string;
beforeAll(async () => {
  device = await openDevice("cpu");
  folder = await mkdtemp(join(tmpdir(), "sdpo-save-tokenizer-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function saved(name: string, tokenizer: Tokenizer, target = join(folder, name)): Promise<Model> {
  using model = Model.create(CONFIG, { device, tokenizer });
  await model.save(target);
  return Model.load(target, { device });
}

describe("the tokenizer of a created model is saved", () => {
  test("from files' contents, with its template and end tokens", async () => {
    const chatTemplate = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}";
    const tokenizer = Tokenizer.fromFiles({
      ...tinyFiles(),
      chatTemplate,
      generationConfig: { eos_token_id: [97, 259] },
    });
    const target = join(folder, "files");
    await mkdir(target);
    await writeFile(join(target, "chat_template.jinja"), "an earlier model's");
    using again = await saved("files", tokenizer, target);
    expect(again.tokenizer.hash).toBe(tokenizer.hash);
    expect(again.tokenizer.eosTokenIds).toEqual([97, 259]);
    expect(again.tokenizer.chat(CHAT)).toEqual(tokenizer.chat(CHAT));
  });

  test("from a folder, and from a file of another name", async () => {
    const original = await Tokenizer.load(goldenFolder("qwen"));
    using again = await saved("folder", original);
    expect(again.tokenizer.hash).toBe(original.hash);
    expect(again.tokenizer.chat(CHAT)).toEqual(original.chat(CHAT));
    const other = join(folder, "other.json");
    await cp(join(goldenFolder("llama3"), "tokenizer.json"), other);
    using named = await saved("named", await Tokenizer.load(other));
    expect(named.tokenizer.hash).toBe((await Tokenizer.load(other)).hash);
  });

  test("a model without one writes none, and over itself a model is saved as it is", async () => {
    using model = Model.create(CONFIG, { device });
    await model.save(join(folder, "none"));
    expect((await readdir(join(folder, "none"))).sort()).toEqual(["config.json", "model.safetensors"]);
    using loaded = await Model.load(join(folder, "folder"), { device });
    await loaded.save(join(folder, "folder"));
    using again = await Model.load(join(folder, "folder"), { device });
    expect(again.tokenizer.hash).toBe(loaded.tokenizer.hash);
  });
});

const PEER = `
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
texts = json.load(sys.stdin)
print(json.dumps([tokenizer(t).input_ids for t in texts]))
`;

describe.skipIf(!python)("transformers reads a tokenizer that was in a GGUF file", () => {
  test.each([
    ["qwen", "qwen2"],
    ["llama3", "llama-bpe"],
    ["smollm2", "smollm"],
  ] as const)("%s", { timeout: 120_000 }, async (name, pre) => {
    using model = await saved(`gguf-${name}`, Tokenizer.fromGguf(asGguf(name, pre)));
    const texts = goldenLines<GoldenText>(name, "texts").map((row) => row.text);
    const input = JSON.stringify(texts);
    const output = execFileSync(python!, ["-c", PEER, join(folder, `gguf-${name}`)], {
      encoding: "utf8",
      input,
    });
    const theirs = JSON.parse(output.trim().split("\n").at(-1)!) as number[][];
    for (const [i, text] of texts.entries()) {
      const ours = model.tokenizer.encode(text, { special: true, addSpecialTokens: true });
      expect(Array.from(ours), text).toEqual(theirs[i]);
    }
  });
});

describe("refused", () => {
  const refusal = async (body: () => Promise<unknown>) => {
    const error = await body().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(SdpoError);
    expect((error as SdpoError).code).toBe("ERR_SDPO_FILE");
    return (error as SdpoError).message;
  };

  test("a tokenizer whose folder is gone, named with what to do", async () => {
    const source = join(folder, "source");
    await cp(goldenFolder("qwen"), source, { recursive: true });
    const tokenizer = await Tokenizer.load(source);
    await rm(source, { recursive: true });
    using model = Model.create(CONFIG, { device, tokenizer });
    expect(await refusal(() => model.save(join(folder, "gone")))).toMatch(
      /source\/tokenizer\.json: cannot be read: ENOENT.*; check the path/,
    );
  });

  test.each(["tokenizer.json", "config.json", "model.safetensors", "chat_template.jinja"])(
    "a folder in the place of %s",
    async (name) => {
      const target = join(folder, `in the way of ${name}`);
      await mkdir(join(target, name, "x"), { recursive: true });
      using model = Model.create(CONFIG, { device, tokenizer: Tokenizer.fromFiles(tinyFiles()) });
      expect(await refusal(() => model.save(target))).toMatch(
        new RegExp(`${name}: cannot be .*(folder|directory)`),
      );
      expect(await readdir(target)).not.toContain(`${name}.tmp`);
    },
  );

  test("a file in the place of the folder", async () => {
    const file = join(folder, "file");
    await writeFile(file, "");
    using model = Model.create(CONFIG, { device });
    expect(await refusal(() => model.save(file))).toMatch(/file: cannot be made: EEXIST/);
    expect(await refusal(() => model.save(join(file, "x")))).toMatch(
      /ENOTDIR.*; a part of the path is a file/,
    );
  });

  test("a full disk and missing rights say what can be done", () => {
    const message = (code: string) =>
      systemError("f", "cannot be written", Object.assign(new Error(`${code}: x`), { code })).message;
    expect(message("ENOSPC")).toBe(
      "f: cannot be written: ENOSPC: x; the disk is full; free space or name another folder",
    );
    expect(message("EACCES")).toMatch(/; check who owns it and its permissions$/);
    expect(message("EIO")).toBe("f: cannot be written: EIO: x");
  });

  test("what Model.create cannot use", () => {
    const create = (options: unknown) => () => Model.create(CONFIG, options as never);
    expect(create(undefined)).toThrow("device: expected what openDevice gives, got undefined");
    expect(create({ device, tokenizer: "x" })).toThrow('tokenizer: expected a Tokenizer, got "x"');
  });
});
