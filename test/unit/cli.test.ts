import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readTrainConfig } from "../../lib/cli/train-config.js";
import { resolveConfig } from "../../lib/config.js";
import { Model } from "../../lib/models/model.js";
import { openDevice } from "../../lib/native/device.js";
import { writeCheckpoint } from "../../lib/trainer/checkpoint.js";
import { findPreset } from "../../lib/trainer/presets.js";
import { cli } from "../cli-io.js";
import { writeTinyModel } from "../tiny-model.js";

const main = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const rows = ["red", "green", "blue"].map((answer, i) => ({ prompt: `Colour ${i}?`, answer }));

let folder = "";
let model = "";
let data = "";
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "sdpo-cli-"));
  model = await writeTinyModel();
  data = join(folder, "data.jsonl");
  writeFileSync(data, rows.map((row) => JSON.stringify(row)).join("\n"));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  rmSync(model, { recursive: true });
});

describe("help", () => {
  test("names every command, and each says more", async () => {
    const { code, out } = await cli(["--help"]);
    expect(code).toBe(0);
    const commands = [...out.matchAll(/^ {2}([a-z]+) /gm)].map((match) => match[1]!);
    for (const name of commands.filter((command) => command !== "help" && command !== "sdpo")) {
      const help = await cli([name, "--help"]);
      expect(help.code, name).toBe(0);
      expect(help.out, name).toMatch(new RegExp(`^Usage: sdpo ${name}`));
    }
    expect(commands).toContain("inspect");
  });
});

describe("presets", () => {
  test("are listed, and shown as a configuration that can be used", async () => {
    expect((await cli(["presets"])).out).toMatch(/^no-feedback +SDPO/m);
    const { out } = await cli(["presets", "no-feedback", "--json"]);
    expect(JSON.parse(out)).toEqual(findPreset("no-feedback").values);
    const file = join(folder, "preset.json");
    writeFileSync(file, out);
    const options = { model: "m", data: "d", environment: "mcq" };
    const evaluated = { set: ["evaluateEvery=5", "evaluationData=e"] };
    const config = await readTrainConfig({ ...options, ...evaluated, config: file });
    expect(config).toEqual(await readTrainConfig({ ...options, ...evaluated, preset: "no-feedback" }));
    expect((await cli(["presets", "no-feedback"])).out).toMatch(/Source: arXiv[\s\S]*Hardware: /);
  });
});

describe("the configuration of train", () => {
  const options = { model: "m", data: "d", environment: "mcq" };

  test("is the preset's, then the file's, then the options'", async () => {
    const file = join(folder, "layers.json");
    writeFileSync(
      file,
      JSON.stringify({ alpha: 0.3, steps: 7, seed: 1, environmentOptions: { formatFeedback: true } }),
    );
    const config = await readTrainConfig({
      ...options,
      preset: "smollm2-cpu",
      config: file,
      steps: 9,
      set: ["seed=2", "output=123", "distillationTopK=null", "teacher=live"],
      option: ["omitReasoningRequest=true"],
    });
    expect(config).toMatchObject({ alpha: 0.3, steps: 9, seed: 2, output: "123", distillationTopK: null });
    expect(config).toMatchObject({ teacher: "live", tasksPerBatch: 4, environment: "mcq" });
    expect(config.environmentOptions).toEqual({ formatFeedback: true, omitReasoningRequest: true });
    const onPreset = { ...options, preset: "smollm2-cpu", option: ["formatFeedback=true"] };
    expect((await readTrainConfig(onPreset)).environmentOptions).toEqual({
      formatFeedback: true,
      omitReasoningRequest: true,
    });
  });

  test("of a run that goes on is the run's", async () => {
    const run = mkdtempSync(join(folder, "run-"));
    writeFileSync(join(run, "config.json"), JSON.stringify({ ...options, output: run, alpha: 0.25 }));
    const config = await readTrainConfig({ output: run, resume: true, steps: 12 });
    expect(config).toMatchObject({ ...options, alpha: 0.25, steps: 12, resume: true });
    await expect(readTrainConfig({ output: join(run, "none"), resume: true })).rejects.toThrow(
      /model is missing/,
    );
  });
});

describe("inspect", () => {
  const inspect = async (...args: string[]) => {
    const { code, out, err } = await cli(["inspect", "--json", ...args]);
    expect(err).toBe("");
    expect(code).toBe(0);
    return JSON.parse(out);
  };

  test("a model folder, and its file", async () => {
    const expected = {
      ...{ kind: "model", architecture: "llama", vocabulary: 2000, layers: 2, hidden: 32 },
      // embedding, and for each layer two norms, q and o, k and v, three of the feed-forward; the last norm
      parameters: 2000 * 32 + 2 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32) + 32,
      "chat template": expect.stringContaining("Hello"),
    };
    expect(await inspect(model)).toMatchObject(expected);
    expect(await inspect(join(model, "model.safetensors"))).toMatchObject({
      ...expected,
      path: expect.anything(),
    });
  });

  test("tensors without a configuration, a model without a tokenizer", async () => {
    const alone = mkdtempSync(join(folder, "alone-"));
    cpSync(join(model, "model.safetensors"), join(alone, "x.safetensors"));
    const report = await inspect(join(alone, "x.safetensors"));
    expect(report).toMatchObject({ kind: "tensors", metadata: { format: "pt" } });
    expect(report.tensors).toContain("model.norm.weight F32 [32]");
    cpSync(join(model, "model.safetensors"), join(alone, "model.safetensors"));
    cpSync(join(model, "config.json"), join(alone, "config.json"));
    expect(await inspect(alone)).toMatchObject({ kind: "model", tokenizer: "none" });
  });

  test("rows, and the tasks that an environment makes of them", async () => {
    expect(await inspect(data)).toEqual({
      kind: "data",
      path: data,
      rows: 3,
      fields: { prompt: "string", answer: "string" },
      "first row": { prompt: '"Colour 0?"', answer: '"red"' },
    });
    const more = join(folder, "more.json");
    writeFileSync(more, JSON.stringify([{ a: 1 }, { a: null, b: [1] }]));
    expect((await inspect(more)).fields).toEqual({ a: "number or null", b: "list, in 1 rows" });
    expect(await inspect(data, "-e", "exact", "--option", "ignoreCase=true")).toMatchObject({
      environment: "exact",
      tasks: 3,
      "first prompt": "user: Colour 0?",
    });
  });

  test("a checkpoint and a run", async () => {
    const run = mkdtempSync(join(folder, "run-"));
    writeFileSync(join(run, "config.json"), JSON.stringify({ algorithm: "sdpo" }));
    writeFileSync(join(run, "metrics.jsonl"), '{"step":1,"loss":2}\n{"step":2,"loss":1}\n{"st');
    const one = [{ name: "a", dtype: "F32", shape: [2], data: new Uint8Array(8) }];
    const contents = { tensors: { "m.safetensors": one }, state: { cursor: 4 } };
    const checkpoint = await writeCheckpoint(run, 2, contents, 9);
    const other = await writeCheckpoint(run, 3, contents, 9);
    expect(await inspect(checkpoint)).toMatchObject({ kind: "checkpoint", step: 2, state: "cursor" });
    expect((await inspect(checkpoint)).files["m.safetensors"]).toMatch(/, 1 tensors$/);
    writeFileSync(join(other, "m.safetensors"), "x");
    expect(await inspect(run)).toMatchObject({
      kind: "run",
      steps: 2,
      "last step": { step: 2, loss: 1 },
      checkpoints: { "step-3": expect.stringMatching(/^broken: .*m\.safetensors/), "step-2": "whole" },
    });
    expect((await cli(["inspect", other])).err).toMatch(
      /^sdpo: ERR_SDPO_CHECKPOINT: .*m\.safetensors: is 1 bytes/,
    );
    expect((await cli(["inspect", run])).out).toMatch(/^last step +step: 2$/m);
  });
});

describe("doctor", () => {
  test("says what there is, as text and as JSON", async () => {
    const { code, out } = await cli(["doctor", "--json"]);
    expect(code).toBe(0);
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
    const report = JSON.parse(out);
    expect(report).toMatchObject({ version, node: process.version, native: { version } });
    expect(report.devices[0]).toMatchObject({ name: "cpu", available: true });
    for (const { available, detail, remedy } of report.devices) {
      if (!available) expect(`${detail} ${remedy}`).toMatch(/^device '\w+': .* needed/);
    }
    expect(report.native.instructionSets).toContain(report.native.instructionSet);
    expect(report.memory.free).toBeLessThanOrEqual(report.memory.total);
    expect((await cli(["doctor"])).out).toMatch(/^matrix products +\S+/m);
  });
});

describe("convert", () => {
  test("writes the same weights in another type, with the tokenizer", async () => {
    const to = join(folder, "converted");
    const { code, out } = await cli(["convert", model, to, "--dtype", "bf16"]);
    expect([code, out]).toEqual([0, expect.stringMatching(/llama, [\d,]+ parameters, bf16/)]);
    using device = await openDevice("cpu");
    using before = await Model.load(model, { device, dtype: "bf16" });
    using after = await Model.load(to, { device });
    expect(after.dtype).toBe("bf16");
    expect(await after.flat("weight").read()).toEqual(await before.flat("weight").read());
    expect(after.tokenizer.hash).toBe(before.tokenizer.hash);
    const again = await cli(["convert", model, to]);
    expect([again.code, again.err]).toEqual([1, expect.stringMatching(/converted: is not empty/)]);
  });
});

describe("generate", () => {
  const args = () => ["generate", "-m", model, "-n", "5", "--seed", "3", "-t", "0.5", "--top-k", "40"];

  test("streams what the model says, from an argument or standard input", async () => {
    using device = await openDevice("cpu");
    using loaded = await Model.load(model, { device });
    let expected = "";
    const sampling = { maxTokens: 5, seed: 3, temperature: 0.5, topK: 40 };
    const messages = [{ role: "user" as const, content: "Hello" }];
    const { ids } = loaded.tokenizer.chat(messages, { addGenerationPrompt: true, enable_thinking: false });
    for await (const { text } of loaded.generate(ids, sampling)) expected += text;
    expect(await cli([...args(), "Hello"])).toEqual({ code: 0, out: `${expected}\n`, err: "" });
    expect((await cli(args(), "Hello")).out).toBe(`${expected}\n`);
    expect((await cli([...args(), "--system", "Be brief.", "Hello"])).out).not.toBe(`${expected}\n`);
    expect((await cli([...args(), "--thinking", "Hello"])).out).not.toBe(`${expected}\n`);
    expect((await cli([...args(), "--raw", "Hello"])).out).not.toBe(`${expected}\n`);
  });

  test("wants a prompt", async () => {
    expect(await cli(args())).toMatchObject({ code: 1, err: expect.stringMatching(/no prompt/) });
    expect(await cli(args(), " \n")).toMatchObject({
      code: 1,
      err: expect.stringMatching(/prompt is empty/),
    });
  });
});

describe("eval", () => {
  test("scores completions and reports them", async () => {
    const rowsFile = join(folder, "rows.jsonl");
    const args = ["eval", "-m", model, "-d", data, "-e", "exact", "-k", "2", "-n", "4", "--limit", "2"];
    const { code, out, err } = await cli([...args, "--json", "--rows", rowsFile]);
    expect([code, err]).toEqual([0, ""]);
    expect(JSON.parse(out)).toMatchObject({ tasks: 2, rollouts: 2, "avg@k": 0, "pass@k": 0, skipped: 0 });
    const written = readFileSync(rowsFile, "utf8").trimEnd().split("\n");
    expect(written.map((line) => Object.keys(JSON.parse(line)))[0]).toContain("completion");
    expect(written).toHaveLength(4);
    expect((await cli(args)).out).toMatch(/^2 tasks, 2 rollouts each\navg@2 +0\.0000 \+- 0\.0000\npass@1 /);
  });
});

/** Runs the built command; `after` is called with what it printed so far. */
function spawned(args: string[], after?: (out: string, kill: (signal: NodeJS.Signals) => void) => void) {
  const child = spawn(process.execPath, [main, ...args]);
  const result = { out: "", err: "" };
  child.stdout.on("data", (chunk) => {
    result.out += chunk;
    after?.(result.out, (signal) => child.kill(signal));
  });
  child.stderr.on("data", (chunk) => {
    result.err += chunk;
  });
  child.stdin.end();
  return new Promise<{ code: number | null; out: string; err: string }>((resolve) => {
    child.on("close", (code) => resolve({ code, ...result }));
  });
}

describe("the command as it is installed", () => {
  test("prints its version, and refuses without a stack", async () => {
    expect(await spawned(["--version"])).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    });
    const refused = await spawned(["inspect", join(folder, "missing")]);
    expect(refused).toEqual({
      code: 1,
      out: "",
      err: expect.stringMatching(/^sdpo: ERR_SDPO_FILE: .*missing: no such/),
    });
    expect(refused.err).not.toMatch(/\n {4}at /);
    expect(await spawned(["evla"])).toMatchObject({
      code: 2,
      err: expect.stringMatching(/Did you mean eval/),
    });
  });

  test("ends a completion at Ctrl-C", async () => {
    let isFirst = true;
    const { code, out, err } = await spawned(
      ["generate", "-m", model, "-n", "900", "--seed", "1", "Hello"],
      (_, kill) => {
        if (isFirst) kill("SIGINT");
        isFirst = false;
      },
    );
    expect([code, err]).toEqual([130, ""]);
    expect(out.endsWith("\n")).toBe(true);
  });
});

test("a resolved configuration is what readTrainConfig gives", async () => {
  const options = { model: "m", data: "d", environment: "mcq" };
  expect(await readTrainConfig(options)).toEqual(resolveConfig(options));
});
