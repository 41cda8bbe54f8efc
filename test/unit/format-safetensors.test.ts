import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { matrixShape, readTensorBytes } from "../../lib/models/formats/files.js";
import { readSafetensors, readSafetensorsFolder } from "../../lib/models/formats/safetensors.js";
import {
  type TensorToWrite,
  writeSafetensors,
  writeSafetensorsFolder,
} from "../../lib/models/formats/safetensors-write.js";

const golden = join(import.meta.dirname, "../golden/models");
const temporary = await mkdtemp(join(tmpdir(), "sdpo-safetensors-"));
afterAll(() => rm(temporary, { recursive: true }));

const bytesOf = (values: number[]) => new Uint8Array(Float32Array.from(values).buffer);

describe("reading what the safetensors library wrote", () => {
  test("shapes, types and values", async () => {
    const { tensors, metadata } = await readSafetensors(join(golden, "llama-bf16/golden.safetensors"));
    const bounds = tensors.get("cu_seqlens")!;
    expect(bounds).toMatchObject({ dtype: "I32", shape: [4], bytes: 16 });
    expect([...new Int32Array(new Uint8Array(await readTensorBytes(bounds)).buffer)]).toEqual([0, 5, 22, 62]);
    expect(tensors.get("logits")).toMatchObject({ dtype: "F32", shape: [62, 259], bytes: 62 * 259 * 4 });
    expect(metadata).toBeTypeOf("object");
  });

  test("shards by their index hold what their headers say", async () => {
    const tensors = await readSafetensorsFolder(join(golden, "qwen3-untied-headdim"));
    const files = new Set([...tensors.values()].map(({ file }) => file.split("/").at(-1)));
    expect([...files].sort()).toEqual([
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
    ]);
    expect(tensors.get("model.layers.2.self_attn.q_proj.weight")!.shape).toEqual([64, 40]);
    expect(tensors.size).toBe(3 + 3 * 11);
  });
});

test("names that differ only before an escaped quote are two names", async () => {
  const file = join(temporary, "quotes.safetensors");
  const names = ['p"q', 'r"q', "s\\\\", 't\\"'];
  await writeSafetensors(
    file,
    names.map((name) => ({ name, dtype: "U8", shape: [1], data: Uint8Array.of(1) })),
  );
  expect([...(await readSafetensors(file)).tensors.keys()]).toEqual(names);
});

describe("writing", () => {
  test("comes back the same, aligned, with a header padded to 8 bytes and format pt", async () => {
    const file = join(temporary, "a.safetensors");
    const tensors: TensorToWrite[] = [
      { name: "b.half", dtype: "BF16", shape: [3], data: Uint8Array.of(1, 2, 3, 4, 5, 6) },
      {
        name: 'a."quoted" ü',
        dtype: "F32",
        shape: [2, 2],
        data: async () => bytesOf([1, -2, 3.5, Number.NaN]),
      },
      { name: "empty", dtype: "F32", shape: [0, 7], data: new Uint8Array(0) },
      { name: "scalar", dtype: "I64", shape: [], data: new Uint8Array(8).fill(9) },
    ];
    await writeSafetensors(file, tensors, { origin: "test" });
    const written = await readFile(file);
    expect(Number(written.readBigUInt64LE()) % 8).toBe(0);
    const { tensors: read, metadata } = await readSafetensors(file);
    expect(metadata).toEqual({ format: "pt", origin: "test" });
    expect([...read.keys()]).toEqual(["scalar", 'a."quoted" ü', "empty", "b.half"]);
    for (const { name, dtype, shape, data } of tensors) {
      const source = read.get(name)!;
      expect(source).toMatchObject({ dtype, shape });
      const wanted = typeof data === "function" ? await data() : data;
      expect([...(await readTensorBytes(source))]).toEqual([...wanted]);
    }
    expect(existsSync(`${file}.tmp`)).toBe(false);
  });

  test("a failure leaves the file that was there", async () => {
    const file = join(temporary, "kept.safetensors");
    await writeSafetensors(file, [{ name: "x", dtype: "F32", shape: [1], data: bytesOf([7]) }]);
    const before = await readFile(file);
    const failing: TensorToWrite = {
      name: "x",
      dtype: "F32",
      shape: [1],
      data: () => Promise.reject(new Error("device lost")),
    };
    await expect(writeSafetensors(file, [failing])).rejects.toThrow("device lost");
    await expect(writeSafetensors(join(temporary, "no/such/folder.safetensors"), [])).rejects.toMatchObject({
      code: "ERR_SDPO_FILE",
    });
    expect(await readFile(file)).toEqual(before);
    expect(existsSync(`${file}.tmp`)).toBe(false);
  });

  test.each([
    ["two of a name", [{ name: "x" }, { name: "x" }]],
    ["the reserved name", [{ name: "__metadata__" }]],
    ["an unknown type", [{ dtype: "F12" }]],
    ["a negative shape", [{ shape: [-1] }]],
    ["a fraction in a shape", [{ shape: [1.5] }]],
    ["too little data", [{ shape: [2] }]],
    ["a size beyond 2^53", [{ shape: [2 ** 40, 2 ** 40] }]],
  ])("%s is refused", async (_, changes) => {
    const tensors = changes.map((change) => ({
      name: "x",
      dtype: "F32",
      shape: [1],
      data: bytesOf([1]),
      ...change,
    }));
    await expect(writeSafetensors(join(temporary, "refused.safetensors"), tensors)).rejects.toMatchObject({
      code: "ERR_SDPO_ARGUMENT",
      message: expect.stringMatching(/refused\.safetensors: tensor "/),
    });
  });

  test("a folder is split above the shard size, and a later save removes what the earlier one left", async () => {
    const folder = await mkdtemp(join(temporary, "sharded-"));
    const tensors = ["c", "a", "d", "b"].map((name, i) => ({
      name,
      dtype: "F32",
      shape: [4],
      data: bytesOf([i, i, i, i]),
    }));
    await writeFile(join(folder, "tokenizer.json"), "{}");
    await writeSafetensorsFolder(folder, tensors, { maxShardBytes: 32 });
    const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    expect((await readdir(folder)).sort()).toEqual([
      ...shards,
      "model.safetensors.index.json",
      "tokenizer.json",
    ]);
    const index = JSON.parse(await readFile(join(folder, "model.safetensors.index.json"), "utf8"));
    expect(index).toEqual({
      metadata: { total_size: 64 },
      weight_map: { a: shards[0], b: shards[0], c: shards[1], d: shards[1] },
    });
    const read = await readSafetensorsFolder(folder);
    expect([...(await readTensorBytes(read.get("d")!))]).toEqual([...bytesOf([2, 2, 2, 2])]);
    await writeSafetensorsFolder(folder, tensors);
    expect((await readdir(folder)).sort()).toEqual(["model.safetensors", "tokenizer.json"]);
    expect((await readSafetensorsFolder(folder)).size).toBe(4);
  });
});

test("a tensor as rows for conversion", () => {
  const source = { file: "", fileSize: 0, dtype: "F32", offset: 0, bytes: 0 };
  expect(matrixShape({ ...source, shape: [6, 4] })).toEqual({ rows: 6, columns: 4 });
  expect(matrixShape({ ...source, shape: [6] })).toEqual({ rows: 1, columns: 6 });
  expect(matrixShape({ ...source, shape: [6], pairedHeadDim: 2 })).toEqual({ rows: 6, columns: 1 });
  expect(matrixShape({ ...source, shape: [] })).toEqual({ rows: 1, columns: 1 });
});
