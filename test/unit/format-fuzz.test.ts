import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { SdpoError } from "../../lib/errors.js";
import { parseModelConfig } from "../../lib/models/formats/config.js";
import { parseJson } from "../../lib/models/formats/json.js";
import { readModel } from "../../lib/models/formats/model-files.js";
import { readSafetensors } from "../../lib/models/formats/safetensors.js";
import { gguf, llamaFields, llamaTensors, safetensors, twoTensors } from "./format-samples.js";

const golden = join(import.meta.dirname, "../golden/models");
const temporary = await mkdtemp(join(tmpdir(), "sdpo-fuzz-"));
afterAll(() => rm(temporary, { recursive: true }));

/** Mulberry32: integers below n from a fixed seed. */
function random(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

const INTERESTING = [0, 1, 0x7f, 0x80, 0xff, 0x22, 0x2c, 0x2d, 0x39, 0x5b, 0x7b, 0x7d];

/** Sets bytes, cuts, or repeats a stretch; mostly in the first `header` bytes. */
function mutate(original: Buffer, header: number, next: (n: number) => number): Buffer {
  const bytes = Buffer.from(original);
  for (let edits = 1 + next(3); edits > 0; edits--) {
    const at = next(next(8) === 0 ? bytes.length : Math.min(header, bytes.length));
    bytes[at] = next(2) === 0 ? INTERESTING[next(INTERESTING.length)]! : next(256);
  }
  const action = next(10);
  if (action === 0) return bytes.subarray(0, next(bytes.length));
  const from = next(header);
  if (action === 1)
    return Buffer.concat([bytes.subarray(0, from), bytes.subarray(Math.max(0, from - next(16)))]);
  return bytes;
}

async function fuzz(original: Buffer, header: number, rounds: number, read: (bytes: Buffer) => unknown) {
  const next = random(20602);
  let refused = 0;
  for (let round = 0; round < rounds; round++) {
    const bytes = mutate(original, header, next);
    try {
      await read(bytes);
    } catch (error) {
      if (!(error instanceof SdpoError)) throw new Error(`round ${round}: ${error}`, { cause: error });
      expect(error.message.length).toBeLessThan(1000);
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(rounds / 4);
}

test("3000 spoilt safetensors files", async () => {
  const file = join(temporary, "x.safetensors");
  const original = safetensors({ __metadata__: { format: "pt" }, ...twoTensors() }, 24);
  await fuzz(original, original.length - 24, 3000, async (bytes) => {
    await writeFile(file, bytes);
    await readSafetensors(file);
  });
});

test("3000 spoilt GGUF files", async () => {
  const file = join(temporary, "x.gguf");
  const original = gguf({ fields: Object.values(llamaFields()), tensors: llamaTensors() });
  const header = original.indexOf("blk.0.ffn_down.weight") + 64;
  await fuzz(original, header, 3000, async (bytes) => {
    await writeFile(file, bytes);
    await readModel(file);
  });
});

test("3000 spoilt configurations", async () => {
  const original = await readFile(join(golden, "olmo3-sliding-yarn/config.json"));
  await fuzz(original, original.length, 3000, (bytes) => parseModelConfig(parseJson(bytes, "c"), "c"));
});
