import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { heldOut, measureBaseline } from "../../lib/demo/measure.js";
import { PRETRAINING, pretrain, savePretrained } from "../../lib/demo/pretrain.js";
import { MODEL_FOLDER } from "../../lib/demo/settings.js";
import { houseDates } from "../../lib/environments/house-dates.js";
import { encodeWords, NEWLINE_ID, WORDS } from "../../lib/environments/house-dates-words.js";
import { Model } from "../../lib/models/model.js";
import { type Device, openDevice } from "../../lib/native/device.js";

const root = join(import.meta.dirname, "../..");
let device: Device;
let model: Model;
let folder: string;
beforeAll(async () => {
  device = await openDevice("cpu");
  model = await Model.load(MODEL_FOLDER, { device });
  folder = await mkdtemp(join(tmpdir(), "sdpo-demo-"));
});
afterAll(async () => {
  model.dispose();
  device.dispose();
  await rm(folder, { recursive: true });
});

describe("the shipped model", () => {
  test("is what pretraining.json says: script, seed, settings, size and hash", async () => {
    const weights = await readFile(join(MODEL_FOLDER, "model.safetensors"));
    const made = JSON.parse(await readFile(join(MODEL_FOLDER, "pretraining.json"), "utf8"));
    expect(made).toMatchObject({
      script: "lib/demo/pretrain.ts",
      seed: 0,
      settings: PRETRAINING,
      "model.safetensors": {
        bytes: weights.length,
        sha256: createHash("sha256").update(weights).digest("hex"),
      },
    });
    expect(weights.length).toBeLessThan(4e6);
    const sizes = model.parameters.map(({ shape }) => shape.reduce((a, b) => a * b, 1));
    expect(sizes.reduce((a, b) => a + b, 0)).toBe(526080);
    const { files } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    expect(files).toContain("lib/demo/model");
  });

  test("reads and writes the environment's words: student's and teacher's prompts, answers, the end", async () => {
    const { tokenizer } = model;
    expect(tokenizer.vocabularySize).toBe(263);
    expect(model.eosTokenIds).toEqual([NEWLINE_ID]);
    const environment = houseDates({ seed: 1 });
    const task = { day: 28, month: 7, year: 1994, customer: "B" };
    const ids = (messages: ReturnType<typeof environment.prompt>) => [
      ...tokenizer.chat(
        messages.map((m) => ({ ...m })),
        { addGenerationPrompt: true },
      ).ids,
    ];
    const named = (words: string[]) => words.map((word) => WORDS.indexOf(word));
    const request = named(["28", "jul", "1994", "for", "B:"]);
    expect(ids(environment.prompt(task))).toEqual(request);
    const { feedback } = await environment.verify(task, { text: "ok" });
    const teacher = environment.teacherPrompt!(task, { attempt: "28 - 07 - 94", feedback: feedback! });
    expect(ids(teacher)).toEqual([
      ...[...request, ...named(["28", "-", "07", "-", "94", "\n"])],
      ...[...encodeWords(feedback!), NEWLINE_ID, ...request],
    ]);
    const answer = tokenizer.encode(environment.solution!(task));
    expect(answer).toHaveLength(5);
    expect((await environment.verify(task, { text: tokenizer.decode(answer) })).reward).toBe(1);
    expect((await environment.verify(task, { text: tokenizer.decode([...answer, NEWLINE_ID]) })).reward).toBe(
      1,
    );
  });

  test("knows none of the new formats, but corrects itself, as accurately as the page says", async () => {
    const page = await readFile(join(root, "docs/demo.md"), "utf8");
    for (const seed of [0, 3]) {
      const { student, sampled, teacher } = await measureBaseline(model, await heldOut(model, seed), {
        seed,
      });
      const row = new RegExp(`^\\| ${seed} \\| (\\S+) \\| (\\S+) \\|`, "m").exec(page)!;
      // Another processor rounds otherwise: a few of 256 dates may differ.
      expect(Math.abs(student - Number(row[1]))).toBeLessThan(0.02);
      expect(Math.abs(teacher - Number(row[2]))).toBeLessThan(0.02);
      expect(Math.max(student, sampled)).toBeLessThan(0.1);
      expect(teacher).toBeGreaterThan(0.95);
    }
  });

  test("the page's tables are those of the newest result", async () => {
    const printed = execFileSync(process.execPath, [join(root, "bench/demo-table.mjs"), "--print"]);
    expect(printed.toString()).toBe(await readFile(join(root, "docs/demo.md"), "utf8"));
  });
});

describe("pretraining", () => {
  test("learns, is the same twice for a seed, and writes a folder that loads", async () => {
    const settings = { steps: 100, documentsPerStep: 4, warmupSteps: 10 };
    const lines: string[] = [];
    const train = (seed: number) => pretrain(device, { seed, settings, log: (line) => lines.push(line) });
    const [first, again, other] = [await train(5), await train(5), await train(6)];
    const weights = (m: Model) => m.flat("weight").readFloats();
    expect(await weights(again)).toEqual(await weights(first));
    expect(await weights(other)).not.toEqual(await weights(first));
    expect(lines[0]).toMatch(/^step 100: loss \d\.\d{4}, \d+ s$/);
    // Of 263 words one is right: ln 263 = 5.57 is where training begins.
    expect(Number(/loss (\S+),/.exec(lines[0]!)![1])).toBeLessThan(4.5);
    await savePretrained(first, folder, 5);
    const loaded = await Model.load(folder, { device });
    expect(await weights(loaded)).toEqual(await weights(first));
    expect(loaded.tokenizer.hash).toBe(model.tokenizer.hash);
    expect(loaded.config).toEqual(model.config);
    for (const m of [first, again, other, loaded]) m.dispose();
  });
});
