import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseConfigJson } from "../../lib/cli/settings.js";
import { type ConfigOptions, readSftConfig, readTrainConfig } from "../../lib/cli/train-config.js";
import { cli } from "../cli-io.js";

let folder = "";
const file = (name: string) => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "sdpo-refused-"));
  mkdirSync(file("full"));
  writeFileSync(file("full/x"), "");
  writeFileSync(file("comma.json"), '{\n  "alpha": 1,\n  "steps": 5,\n}\n');
  writeFileSync(file("cut.json"), '{\n  "alpha": 1');
  writeFileSync(file("word.json"), "{ alpha: 1 }");
  writeFileSync(file("list.json"), "[1]");
  writeFileSync(file("empty.json"), "");
  writeFileSync(file("bytes.json"), Buffer.from([0x22, 0xff, 0x22]));
  writeFileSync(file("typo.json"), '{"learningrate": 1}');
  writeFileSync(file("options.json"), '{"environmentOptions": "formatFeedback"}');
  writeFileSync(file("rows.jsonl"), '{"prompt": "a", "answer": "b"}\n{"prompt": 1}\n');
});
afterAll(() => rmSync(folder, { recursive: true }));

const least = { model: "m", data: "d", environment: "mcq" };

describe("JSON that is not valid is shown by line and column", () => {
  const cases: [text: string, line: number, column: number, reason: RegExp][] = [
    ['{\n "alpha": tru}', 2, 14, /Unexpected token '}'\)/],
    ['{"a": [1,}\n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}', 1, 10, /Unexpected token '}'\)/],
    ['{"a" 1}', 1, 6, /Expected ':' after property name\)/],
    ['{"a": 1}\n\n x', 3, 2, /Unexpected non-whitespace character\)/],
    ["{'a': 1}", 1, 2, /Expected property name or '}'\)/],
    ['{"a": NaN}', 1, 7, /Unexpected token 'N'\)/],
    ["x", 1, 1, /Unexpected token 'x'\)/],
    ['{"a": 1,', 1, 9, /./],
    ['{"a": "b', 1, 9, /Unterminated string\)/],
    ['{"a": 1,\n"b": 2,\n}', 3, 1, /./],
  ];
  test.each(cases)("%j", (text, line, column, reason) => {
    expect(() => parseConfigJson(text, "x.json")).toThrow(
      `x.json: line ${line}, column ${column}: not valid JSON (`,
    );
    expect(() => parseConfigJson(text, "x.json")).toThrow(reason);
  });
});

test("JSON that gives a key twice is refused", () => {
  expect(() => parseConfigJson('{"alpha": 1, "alpha": 0}', "x.json")).toThrow(
    /x\.json: the key "alpha" is given twice/,
  );
});

describe("the configuration of train refuses", () => {
  const cases: [name: string, options: () => ConfigOptions, message: RegExp][] = [
    [
      "a missing file",
      () => ({ config: file("none.json") }),
      /none\.json: the configuration cannot be read: no such file/,
    ],
    ["a folder as file", () => ({ config: folder }), /is not a file/],
    [
      "JSON with a comma too many",
      () => ({ config: file("comma.json") }),
      /comma\.json: line 4, column 1: not valid JSON/,
    ],
    [
      "JSON that ends early",
      () => ({ config: file("cut.json") }),
      /cut\.json: line 2, column 13: not valid JSON/,
    ],
    [
      "a key without quotes",
      () => ({ config: file("word.json") }),
      /word\.json: line 1, column 3: not valid JSON/,
    ],
    ["a list", () => ({ config: file("list.json") }), /list\.json: expected one JSON object.*got \[1\]/],
    [
      "an empty file",
      () => ({ config: file("empty.json") }),
      /empty\.json: line 1, column 1: not valid JSON/,
    ],
    [
      "bytes that are no text",
      () => ({ config: file("bytes.json") }),
      /bytes\.json: .*not valid for encoding utf-8/,
    ],
    ["a misspelt key", () => ({ config: file("typo.json") }), /"learningrate" is no key.*learningRate/],
    [
      "options that are a text",
      () => ({ config: file("options.json") }),
      /environmentOptions: expected an object/,
    ],
    [
      "one more option of them",
      () => ({ config: file("options.json"), option: ["a=1"] }),
      /expected an object, got/,
    ],
    ["a setting without a value", () => ({ set: ["alpha"] }), /--set: expected name=value, got "alpha"/],
    ["a setting without a key", () => ({ set: ["=1"] }), /--set: expected name=value, got "=1"/],
    ["a setting of no key", () => ({ set: ["alhpa=1"] }), /--set: "alhpa" is no key.*did you mean alpha/],
    ["a key set twice", () => ({ set: ["alpha=1", "alpha=0"] }), /--set: alpha is set twice/],
    ["a key set in two ways", () => ({ steps: 5, set: ["steps=6"] }), /steps is set by --steps and by --set/],
    [
      "a word for a number",
      () => ({ set: ["alpha=high"] }),
      /alpha: expected a number from 0 to 1, got "high"/,
    ],
    ["a value out of range", () => ({ set: ["alpha=7"] }), /alpha: expected a number from 0 to 1, got 7/],
    ["an empty number", () => ({ set: ["alpha="] }), /alpha: expected a number from 0 to 1, got ""/],
    [
      "half of JSON",
      () => ({ set: ["environmentOptions={a"] }),
      /environmentOptions: expected an object, got "\{a"/,
    ],
    ["an option without a value", () => ({ option: ["formatFeedback"] }), /--option: expected name=value/],
    ["an option given twice", () => ({ option: ["a=1", "a=2"] }), /--option: a is given twice/],
    [
      "an unknown preset",
      () => ({ preset: "rich-feedbak" }),
      /preset: unknown name.*did you mean rich-feedback/,
    ],
    [
      "a key that GRPO ignores",
      () => ({ preset: "grpo", set: ["alpha=1"] }),
      /alpha is used only where algorithm/,
    ],
    ["resume without a run folder", () => ({ resume: true }), /--resume: name the run folder/],
  ];
  test.each(cases)("%s", async (_, options, message) => {
    const rejected = expect(readTrainConfig({ ...least, ...options() })).rejects;
    await rejected.toMatchObject({ code: "ERR_SDPO_CONFIG", message: expect.stringMatching(message) });
  });

  test("what is missing, one by one", async () => {
    await expect(readTrainConfig({})).rejects.toThrow(/model is missing; set it/);
    await expect(readTrainConfig({ model: "m" })).rejects.toThrow(/environment is missing/);
    await expect(readTrainConfig({ model: "m", environment: "mcq" })).rejects.toThrow(/data is missing/);
    await expect(readSftConfig({ ...least, set: ["alpha=1"] })).rejects.toThrow(/--set: "alpha" is no key/);
  });
});

describe("a command line is wrong", () => {
  const cases: [args: string[], message: RegExp][] = [
    [["trian"], /unknown command 'trian'/],
    [["eval"], /required option '-m, --model <path>' not specified/],
    [["generate", "-m"], /option '-m, --model <path>' argument missing/],
    [["generate", "-m", "x", "a", "b"], /too many arguments/],
    [["generate", "-m", "x", "--temprature", "1"], /unknown option '--temprature'[\s\S]*--temperature/],
    [["generate", "-m", "x", "-t", "hot"], /argument 'hot' is invalid. Expected a number from 0 to 100/],
    [["generate", "-m", "x", "-t", ""], /argument '' is invalid/],
    [["generate", "-m", "x", "-t", "-1"], /Expected a number from 0/],
    [["generate", "-m", "x", "--top-p", "0"], /Expected a number from 0.000001 to 1/],
    [["generate", "-m", "x", "-n", "1.5"], /Expected an integer from 1/],
    [["generate", "-m", "x", "--seed", "-3"], /Expected an integer from 0/],
    [["generate", "-m", "x", "--dtype", "f16"], /Allowed choices are f32, bf16/],
    [["convert", "x"], /missing required argument 'folder'/],
    [["inspect"], /missing required argument 'path'/],
  ];
  test.each(cases)("%j", async (args, message) => {
    const { code, out, err } = await cli(args);
    expect([code, out]).toEqual([2, ""]);
    expect(err).toMatch(message);
    expect(err).toMatch(/--help lists the options/);
  });
});

describe("a command fails", () => {
  const evaluate = ["eval", "-m", "none", "-d", "x"];
  const cases: [args: () => string[], code: string, message: RegExp][] = [
    [() => ["inspect", file("none")], "ERR_SDPO_FILE", /none: no such file or folder/],
    [() => ["inspect", file("full")], "ERR_SDPO_FILE", /full: is neither a model/],
    [() => ["inspect", file("comma.json")], "ERR_SDPO_DATA", /comma\.json line 1: not JSON/],
    [() => ["inspect", file("rows.jsonl"), "-e", "exact"], "ERR_SDPO_DATA", /rows\.jsonl line 2: prompt/],
    [() => ["inspect", file("rows.jsonl"), "-e", "exakt"], "ERR_SDPO_CONFIG", /did you mean exact\?/],
    [
      () => [...evaluate, "-e", "mqc"],
      "ERR_SDPO_CONFIG",
      /environment: unknown name "mqc"; did you mean mcq/,
    ],
    [
      () => [...evaluate, "-e", "mcq", "--option", "x=1"],
      "ERR_SDPO_CONFIG",
      /environment mcq: unknown option "x"/,
    ],
    [
      () => [...evaluate, "-e", "mcq", "--device", "gpu"],
      "ERR_SDPO_DEVICE",
      /device 'gpu': expected auto, cpu/,
    ],
    [() => [...evaluate, "-e", "mcq", "--device", "cuda"], "ERR_SDPO_DEVICE", /device 'cuda'/],
    [() => [...evaluate, "-e", "mcq"], "ERR_SDPO_FILE", /none: is neither a folder nor/],
    [() => [...evaluate, "-e", "mcq", "--rows", file("no/rows")], "ERR_SDPO_FILE", /rows: cannot be written/],
    [() => ["generate", "-m", file("none.gguf"), "Hello"], "ERR_SDPO_FILE", /none\.gguf/],
    [() => ["convert", file("none.gguf"), file("to")], "ERR_SDPO_FILE", /none\.gguf/],
    [() => ["convert", "x", file("full")], "ERR_SDPO_FILE", /full: is not empty/],
    [() => ["convert", "x", file("rows.jsonl")], "ERR_SDPO_FILE", /rows\.jsonl: is not a folder/],
    [() => ["presets", "sdpo"], "ERR_SDPO_CONFIG", /preset: unknown name "sdpo"/],
  ];
  test.each(cases)("case %#", async (args, code, message) => {
    const result = await cli(args());
    expect([result.code, result.out]).toEqual([1, ""]);
    expect(result.err).toMatch(new RegExp(`^sdpo: ${code}: [^\\n]*\\n$`));
    expect(result.err).toMatch(message);
  });
});

test("--resume without a run folder says so, and a refused completion prints nothing", async () => {
  expect((await cli(["train", "--resume"])).err).toMatch(/--resume: name the run folder .* with --output/);
  const refused = await cli(["generate", "-m", "lib/demo/model", "-n", "100000", "x"]);
  expect(refused).toMatchObject({
    code: 1,
    out: "",
    err: expect.stringMatching(/exceed the model's 128 positions/),
  });
});
