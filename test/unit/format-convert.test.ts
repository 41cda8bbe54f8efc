import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { parseModelConfig, ropeTables } from "../../lib/models/formats/config.js";
import { matrixShape, readTensorBytes, type TensorSource } from "../../lib/models/formats/files.js";
import { readGguf } from "../../lib/models/formats/gguf.js";
import { readModel } from "../../lib/models/formats/model-files.js";
import { readSafetensors, readSafetensorsFolder } from "../../lib/models/formats/safetensors.js";
import { openDevice } from "../../lib/native/device.js";
import { addon } from "../../lib/native/load.js";
import { llamaConfig } from "./format-samples.js";

const golden = join(import.meta.dirname, "../golden");
const smollm2 = process.env.SDPO_TEST_GGUF;
const temporary = await mkdtemp(join(tmpdir(), "sdpo-convert-"));
afterAll(() => rm(temporary, { recursive: true }));
const device = await openDevice("cpu");
afterAll(() => device.dispose());

/** The bits of a tensor read as f32 or bf16 into a model whose only parameter it is. */
async function readBits(source: TensorSource, dtype: "f32" | "bf16"): Promise<Uint32Array | Uint16Array> {
  const config = parseModelConfig(llamaConfig, "config.json");
  const { full: ropeFull, sliding: ropeSliding } = ropeTables(config);
  const parameters = [{ name: "x", shape: source.shape }];
  const model = new (addon().ModelHandle)(device.native, { ...config, ropeFull, ropeSliding }, parameters);
  try {
    model.addSlot("weight", dtype);
    const { dtype: type, fileSize, offset, bytes, pairedHeadDim = 0 } = source;
    const where = { type, fileSize, offset, bytes, pairedHeadDim, ...matrixShape(source) };
    await model.load("weight", "x", source.file, where);
    const buffer = await model.view("weight", "x").read(device.native);
    return dtype === "f32" ? new Uint32Array(buffer) : new Uint16Array(buffer);
  } finally {
    model.dispose();
  }
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
const isNaN32 = (word: number) => (word & 0x7fffffff) > 0x7f800000;
const words = (bytes: Uint8Array) => new Uint32Array(new Uint8Array(bytes).buffer);

/** The bfloat16 nearest to a float32, ties to even, found among its two neighbours. */
function bf16(word: number): number {
  const low = word >>> 16;
  const rest = word & 0xffff;
  const up = rest > 0x8000 || (rest === 0x8000 && low % 2 === 1);
  return up ? low + 1 : low;
}

/** A file of these bytes after one byte of padding, so that nothing in it is aligned. */
async function fileOf(bytes: Uint8Array, dtype: string, shape: number[], pairedHeadDim?: number) {
  const file = join(temporary, `${dtype}.bin`);
  await writeFile(file, Buffer.concat([Buffer.alloc(1), bytes]));
  const source: TensorSource = {
    ...{ file, fileSize: bytes.length + 1, dtype, shape, offset: 1, bytes: bytes.length, pairedHeadDim },
  };
  return source;
}

describe("blocks of random bytes, bit for bit as the gguf package reads them", async () => {
  const { tensors } = await readGguf(join(golden, "gguf/blocks.gguf"));
  const expected = (await readSafetensors(join(golden, "gguf/blocks.safetensors"))).tensors;
  test.each([...tensors.keys()])("%s", async (name) => {
    const source = tensors.get(name)!;
    const wanted = words(await readTensorBytes(expected.get(name)!));
    const [wide, narrow] = [await readBits(source, "f32"), await readBits(source, "bf16")];
    expect(wide.length).toBe(5 * 512);
    for (const [i, word] of wanted.entries()) {
      const sameNaN = isNaN32(word) && isNaN32(wide[i]!) && isNaN32(narrow[i]! << 16);
      if (!sameNaN) expect([i, wide[i], narrow[i]]).toEqual([i, word, bf16(word)]);
    }
  });
});

test("all 65536 halves and bfloat16s", async () => {
  const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const bytes = new Uint8Array(patterns.buffer);
  const halves = await readBits(await fileOf(bytes, "F16", [65536]), "f32");
  const brains = await readBits(await fileOf(bytes, "BF16", [256, 256]), "f32");
  const kept = await readBits(await fileOf(bytes, "BF16", [65536]), "bf16");
  for (let i = 0; i < 65536; i++) {
    const [exponent, fraction] = [(i >> 10) & 31, i & 1023];
    const magnitude = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
    float[0] = exponent === 31 ? (fraction ? Number.NaN : Number.POSITIVE_INFINITY) : magnitude;
    if (isNaN32(bits[0]!)) expect(isNaN32(halves[i]!)).toBe(true);
    else expect([i, halves[i]]).toEqual([i, (bits[0]! | ((i >> 15) << 31)) >>> 0]);
    expect([brains[i], kept[i]]).toEqual([(i << 16) >>> 0, i]);
  }
});

test("float32 to bfloat16: ties to even, overflow to infinity, subnormals, NaN stays NaN", async () => {
  const edges = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].flatMap((low) =>
    [0, 1, 0x7f, 0x80, 0x3f80, 0x3f81, 0x7f7e, 0x7f7f, 0x7f80].flatMap((high) =>
      [0, 0x8000].map((sign) => (((sign | high) << 16) | low) >>> 0),
    ),
  );
  const input = Uint32Array.from(edges);
  const out = await readBits(await fileOf(new Uint8Array(input.buffer), "F32", [edges.length]), "bf16");
  for (const [i, word] of edges.entries())
    if (isNaN32(word)) expect(isNaN32(out[i]! << 16)).toBe(true);
    else expect([word.toString(16), out[i]]).toEqual([word.toString(16), bf16(word)]);
  expect(await readBits(await fileOf(new Uint8Array(input.buffer), "F32", [edges.length]), "f32")).toEqual(
    input,
  );
});

test("llama's rows from pairs to halves: the model that the file was made from", async () => {
  const { parameters } = await readModel(join(golden, "gguf/llama-tied-gqa-rope3.gguf"));
  const originals = await readSafetensorsFolder(join(golden, "models/llama-tied-gqa-rope3"));
  for (const [name, source] of parameters)
    expect(await readBits(source, "f32"), name).toEqual(words(await readTensorBytes(originals.get(name)!)));
  const bias = await fileOf(new Uint8Array(Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7).buffer), "F32", [8], 4);
  const floats = new Float32Array((await readBits(bias, "f32")).buffer);
  expect([...floats]).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
});

test("what does not fit the file is refused", async () => {
  const good = await fileOf(new Uint8Array(32), "F32", [2, 4]);
  const bad: Partial<TensorSource>[] = [
    ...[{ offset: -1 }, { offset: 2 }, { offset: 2 ** 52 }, { bytes: 28 }, { file: temporary }],
    ...[
      { dtype: "F64" },
      { dtype: "Q8_0" },
      { shape: [3, 4] },
      { pairedHeadDim: 3 },
      { pairedHeadDim: 4 },
      { file: `${good.file}x` },
    ],
  ];
  for (const change of bad)
    await expect(readBits({ ...good, ...change }, "f32"), JSON.stringify(change)).rejects.toMatchObject({
      code: "ERR_SDPO_FILE",
    });
});

test.skipIf(!smollm2)("SmolLM2-135M-Instruct.Q4_1.gguf as transformers loads it", async () => {
  const sums = JSON.parse(readFileSync(join(golden, "gguf/smollm2.json"), "utf8")).sha256;
  const { parameters } = await readModel(smollm2!);
  expect([...parameters.keys()].sort()).toEqual(Object.keys(sums).sort());
  for (const [name, source] of parameters) {
    const data = await readBits(source, "f32");
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    expect(createHash("sha256").update(bytes).digest("hex"), name).toBe(sums[name]);
  }
});
