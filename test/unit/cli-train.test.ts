import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { trainKeys } from "../../lib/config.js";
import { cli } from "../cli-io.js";
import { writeTinyModel } from "../tiny-model.js";

const main = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

let folder = "";
let model = "";
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "sdpo-cli-train-"));
  model = await writeTinyModel();
  const rows = Array.from({ length: 6 }, (_, i) => ({ prompt: `Colour ${i}?`, answer: "red" }));
  writeFileSync(join(folder, "data.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
  const values = {
    ...{ model, data: join(folder, "data.jsonl"), environment: "exact", algorithm: "grpo", warmupSteps: 0 },
    ...{ tasksPerBatch: 2, rolloutsPerTask: 2, maxPromptTokens: 200, maxCompletionTokens: 6 },
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(values));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  rmSync(model, { recursive: true });
});

const args = (output: string, ...more: string[]) => {
  return ["train", "-c", join(folder, "config.json"), "-o", join(folder, output), ...more];
};
const steps = (output: string) =>
  readFileSync(join(folder, output, "metrics.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).step);
const checkpoints = (output: string) => readdirSync(join(folder, output, "checkpoints")).sort();

describe("train", () => {
  test("runs, reports each step on a line of its own, and goes on", async () => {
    const first = await cli(args("run", "--steps", "2"));
    expect(first).toMatchObject({ code: 0, err: "" });
    expect(first.out).toMatch(
      /^step 1\/2 {2}loss [-\d.]+ {2}reward 0\.000 {2}\d+ tokens\/s {2}\d\d:\d\d left$/m,
    );
    expect(first.out).toMatch(/\nstep 2 of 2; run folder: .*run\n$/);
    expect(steps("run")).toEqual([1, 2]);
    const refused = await cli(args("run"));
    expect(refused).toMatchObject({ code: 1, out: "", err: expect.stringMatching(/run is not empty/) });
    const second = await cli(["train", "--resume", "-o", join(folder, "run"), "--steps", "3"]);
    expect(second).toMatchObject({ code: 0, err: "" });
    expect(second.out).toMatch(/resumed from .*step-2[\s\S]*\nstep 3\/3 /);
    expect(steps("run")).toEqual([1, 2, 3]);
    const config = JSON.parse(readFileSync(join(folder, "run", "config.json"), "utf8"));
    expect(config).toMatchObject({ steps: 3, algorithm: "grpo", environment: "exact" });
    expect(config).not.toHaveProperty("alpha");
  });

  test("wants a run folder", async () => {
    const config = ["train", "-c", join(folder, "config.json")];
    expect(await cli(config)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/output is missing; name the run/),
    });
  });

  test("shows what would run", async () => {
    const { code, out } = await cli(["train", "-c", join(folder, "config.json"), "--dry-run"]);
    expect(code).toBe(0);
    expect(out).toMatch(/^model +llama, 79,520 parameters in f32$/m);
    expect(out).toMatch(/^data +6 tasks$/m);
    expect(out).toMatch(/^each step +4 rollouts, 1 updates\n +at most 24 tokens generated$/m);
    expect(out).toMatch(/^memory +about [\d.]+ MB at most, [\d.]+ GB available here$/m);
    const { memory, config, step } = JSON.parse((await cli([...args("none", "--dry-run"), "--json"])).out);
    expect([memory.total > 79520 * 16, config.output, step.rollouts]).toEqual([
      true,
      join(folder, "none"),
      4,
    ]);
    expect(readdirSync(folder)).not.toContain("none");
  });

  test("lists every key", async () => {
    const { code, out } = await cli(["train", "--keys"]);
    expect(code).toBe(0);
    for (const { name, description } of trainKeys) expect(out).toContain(`${name}\n    ${description}\n`);
    expect(out).toContain("    a number from 0 to 1; default 0.5\n");
  });
});

/** Starts the built command and signals it as soon as it has printed `text`, and again after `again`. */
function interrupted(
  output: string,
  text: RegExp,
  { again, set = [], kill = "SIGINT" }: { again?: RegExp; set?: string[]; kill?: NodeJS.Signals } = {},
) {
  const child: ChildProcess = spawn(process.execPath, [main, ...args(output, "--steps", "100000", ...set)]);
  let out = "";
  const waiting = again ? [text, again] : [text];
  child.stdout!.on("data", (chunk) => {
    out += chunk;
    if (waiting.length === 0 || !waiting[0]!.test(out)) return;
    waiting.shift();
    child.kill(kill);
  });
  let err = "";
  child.stderr!.on("data", (chunk) => {
    err += chunk;
  });
  return new Promise<{ code: number | null; signal: string | null; out: string; err: string }>((resolve) => {
    child.on("close", (code, signal) => resolve({ code, signal, out, err }));
  });
}

describe("sft", () => {
  test("learns the answers and writes a model that gives them", async () => {
    const data = ["-d", join(folder, "data.jsonl"), "-e", "exact", "-m", model];
    const settings = ["--set", "epochs=40", "--set", "learningRate=0.01"];
    const { code, out, err } = await cli(["sft", ...data, "-o", join(folder, "warm"), ...settings]);
    expect([code, err]).toEqual([0, ""]);
    expect(out).toMatch(/^data: 6 rows\nstep 1\/40 {2}loss \d+\.\d{4} {2}\d+ tokens\/s/);
    expect(out).toMatch(/\nmodel: .*warm\n$/);
    const warm = ["-m", join(folder, "warm"), "-n", "8"];
    expect((await cli(["generate", ...warm, "-t", "0", "Colour 2?"])).out).toBe("red\n");
    const report = await cli(["eval", ...data.slice(0, 4), ...warm, "-t", "0", "--json"]);
    expect(JSON.parse(report.out)).toMatchObject({ "avg@k": 1, "pass@k": 1 });
  });

  test("wants a folder that is empty", async () => {
    const data = ["-d", join(folder, "data.jsonl"), "-e", "exact", "-m", model];
    expect((await cli(["sft", ...data])).err).toMatch(/ERR_SDPO_CONFIG: output is missing/);
    expect((await cli(["sft", ...data, "-o", folder])).err).toMatch(
      /ERR_SDPO_CONFIG: output: .* is not empty/,
    );
  });
});

describe("Ctrl-C", () => {
  test("finishes the step, writes a checkpoint and ends with 0", async () => {
    const { code, out, err } = await interrupted("stopped", /^step 3\//m);
    expect([code, err]).toEqual([0, ""]);
    const last = Number(/\nstep (\d+) of 100000, stopped; --resume goes on from there/.exec(out)![1]);
    expect(last).toBeGreaterThanOrEqual(3);
    expect(checkpoints("stopped")).toContain(`step-${last}`);
    expect(steps("stopped").at(-1)).toBe(last);
    const more = await cli(["train", "--resume", "-o", join(folder, "stopped"), "--steps", String(last + 1)]);
    expect(more.out).toMatch(new RegExp(`\\nstep ${last + 1} of ${last + 1};`));
  });

  test("SIGTERM does the same", async () => {
    const { code, out, err } = await interrupted("terminated", /^step 2\//m, { kill: "SIGTERM" });
    expect([code, err]).toEqual([0, ""]);
    const last = Number(/\nstep (\d+) of 100000, stopped; --resume goes on from there/.exec(out)![1]);
    expect(checkpoints("terminated")).toContain(`step-${last}`);
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s a second time exits at once", async (kill) => {
    const long = ["--set", "maxCompletionTokens=800", "--set", "rolloutsPerTask=64"];
    const options = { again: /Finishing the step/, set: long, kill };
    const { signal, err } = await interrupted(`killed by ${kill}`, /^data: /m, options);
    expect([signal, err]).toEqual(["SIGINT", ""]);
  });
});
