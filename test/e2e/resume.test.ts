import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSafetensors } from "../../lib/models/formats/safetensors.js";
import { writeTinyModel } from "../tiny-model.js";

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
let model: string;
let folder: string;
beforeAll(async () => {
  model = await writeTinyModel();
  folder = await mkdtemp(join(tmpdir(), "sdpo-resume-"));
});
afterAll(() => rm(folder, { recursive: true }));

const config = (output: string) => ({
  ...{ model, output, data: ["a fox", "a crow", "a wolf", "an owl", "a hare"] },
  ...{ steps: 4, tasksPerBatch: 3, miniBatchTasks: 2, rolloutsPerTask: 4, checkpointEvery: 1 },
  ...{ maxCompletionTokens: 6, maxPromptTokens: 100, maxRepromptTokens: 300, learningRate: 1e-3 },
  ...{ schedule: "cosine", warmupSteps: 1, seed: 11, keepCheckpoints: 4 },
});

/** Runs a training in a process of its own; with `killAfter` it is killed somewhere in the next step. */
function train(settings: object, killAfter?: number): Promise<{ steps: number[]; killed: boolean }> {
  const args = [here("run-ts.mjs"), here("resume-child.ts"), JSON.stringify(settings)];
  if (killAfter !== undefined) args.push(String(killAfter + 1));
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  const steps: number[] = [];
  let errors = "";
  child.stdout.on("data", (chunk) => {
    steps.push(...String(chunk).trim().split("\n").map(Number));
    if (steps.at(-1) === killAfter) child.kill("SIGKILL");
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  return new Promise((resolve, reject) => {
    child.on("close", (code, signal) => {
      if (code === 0 || signal === "SIGKILL") resolve({ steps, killed: signal === "SIGKILL" });
      else reject(new Error(`the run ended with ${code}: ${errors}`));
    });
  });
}

/** Every tensor of every file of a checkpoint, as bytes. */
async function tensorsOf(output: string, step: number): Promise<Map<string, string>> {
  const checkpoint = join(output, "checkpoints", `step-${step}`);
  const all = new Map<string, string>();
  for (const file of (await readdir(checkpoint)).filter((name) => name.endsWith(".safetensors"))) {
    const bytes = await readFile(join(checkpoint, file));
    for (const [name, { offset, bytes: length }] of (await readSafetensors(join(checkpoint, file))).tensors)
      all.set(`${file} ${name}`, bytes.subarray(offset, offset + length).toString("base64"));
  }
  return all;
}

async function metricsOf(output: string): Promise<object[]> {
  const lines = (await readFile(join(output, "metrics.jsonl"), "utf8")).trim().split("\n");
  const timed = /^(seconds|tokens_per_second|memory)\./;
  return lines.map((line) =>
    Object.fromEntries(Object.entries(JSON.parse(line) as object).filter(([name]) => !timed.test(name))),
  );
}

describe("a run that is killed", () => {
  test.each([
    ["SDPO with an EMA teacher", {}],
    ["the blend in bf16 with a trust region", { algorithm: "blend", teacher: "trust-region", dtype: "bf16" }],
  ])("goes on bit for bit: %s", async (name, changes) => {
    const straight = join(folder, `straight ${name}`);
    const killed = join(folder, `killed ${name}`);
    const [whole, part] = await Promise.all([
      train({ ...config(straight), ...changes }),
      train({ ...config(killed), ...changes }, 2),
    ]);
    expect(whole).toEqual({ steps: [1, 2, 3, 4], killed: false });
    expect(part.killed).toBe(true);
    expect((await metricsOf(killed)).length).toBeLessThan(4);
    const rest = await train({ ...config(killed), ...changes, resume: true });
    expect(rest.steps.at(-1)).toBe(4);
    expect(rest.steps).not.toContain(1);

    const [expected, actual] = [await tensorsOf(straight, 4), await tensorsOf(killed, 4)];
    expect([...actual.keys()]).toEqual([...expected.keys()]);
    expect([...expected.keys()].filter((key) => actual.get(key) !== expected.get(key))).toEqual([]);
    expect(await metricsOf(killed)).toEqual(await metricsOf(straight));
    const before = await tensorsOf(straight, 2);
    const moved = [...before.keys()].filter((key) => before.get(key) !== expected.get(key));
    expect(moved.length).toBeGreaterThan(30);
    for (let step = 1; step <= 4; step++) {
      const rollouts = (output: string) => readFile(join(output, `rollouts/step-${step}.jsonl`), "utf8");
      expect(await rollouts(killed)).toBe(await rollouts(straight));
    }
  });
});
