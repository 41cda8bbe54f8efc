// What Model.save writes: read back the same bits, and loaded by transformers (SDPO_TEST_PYTHON).
import { execFileSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model } from "../../lib/models/model.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { goldenPath, maxDifference } from "../golden-tensors.js";

const names = [
  "llama-tied-gqa-rope3",
  "llama-bf16",
  "qwen2-tied-bias",
  "qwen3-untied-headdim",
  "olmo3-sliding-yarn",
];
const python = process.env.SDPO_TEST_PYTHON;
const ids = [5, 9, 44, 17, 3, 60, 61, 62];

const PEER = `
import json, sys, torch
from transformers import AutoModelForCausalLM
ids = torch.tensor([json.loads(sys.argv[1])])
for folder in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad(): print(json.dumps(model(ids).logits[0].flatten().tolist()))
`;

let device: Device;
let folder: string;
beforeAll(async () => {
  device = await openDevice("cpu");
  folder = await mkdtemp(join(tmpdir(), "sdpo-save-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe.each(names)("%s", (name) => {
  test("is read back as it was", async () => {
    using model = await Model.load(goldenPath("models", name), { device });
    await model.save(join(folder, name));
    using again = await Model.load(join(folder, name), { device });
    expect(again.config).toEqual({ ...model.config, eosTokenIds: again.config.eosTokenIds });
    expect(again.dtype).toBe(model.dtype);
    expect(again.eosTokenIds).toEqual(model.eosTokenIds);
    const bytes = async (of: Model) => Buffer.from(await of.flat("weight").readBytes());
    expect((await bytes(again)).equals(await bytes(model))).toBe(true);
  });
});

test.skipIf(!python)("transformers loads all of them", { timeout: 180_000 }, async () => {
  const folders = names.map((name) => join(folder, name));
  const output = execFileSync(python!, ["-c", PEER, JSON.stringify(ids), ...folders], { encoding: "utf8" });
  const theirs = output.trim().split("\n").slice(-names.length);
  for (const [i, path] of folders.entries()) {
    using model = await Model.load(path, { device });
    const [ours] = await model.logits([ids]);
    expect(maxDifference(ours!, JSON.parse(theirs[i]!) as number[]), names[i]).toBeLessThan(2e-4);
  }
});

test.skipIf(!process.env.SDPO_TEST_GGUF)(
  "a GGUF file becomes a folder with its tokenizer",
  { timeout: 120_000 },
  async () => {
    using model = await Model.load(process.env.SDPO_TEST_GGUF!, { device });
    const target = join(folder, "smollm2");
    await model.save(target);
    using again = await Model.load(target, { device });
    const conversation = [{ role: "user", content: "Name a metal.<|im_end|>" }] as const;
    const options = { addGenerationPrompt: true };
    expect(again.tokenizer.chat(conversation, options)).toEqual(model.tokenizer.chat(conversation, options));
    const { ids: prompt } = model.tokenizer.chat(conversation, options);
    const [a] = await model.logits([prompt]);
    const [b] = await again.logits([prompt]);
    expect(maxDifference(a!, b!)).toBe(0);
  },
);
