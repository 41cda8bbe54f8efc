import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { readSafetensors, readSafetensorsFolder } from "../../lib/models/formats/safetensors.js";
import { entry, refusal, safetensors, twoTensors } from "./format-samples.js";

const temporary = await mkdtemp(join(tmpdir(), "sdpo-refused-"));
afterAll(() => rm(temporary, { recursive: true }));

async function expectRefused(read: (file: string) => unknown, name: string, bytes: Buffer, says: RegExp) {
  const file = join(temporary, name);
  await writeFile(file, bytes);
  const error = await refusal(() => read(file));
  expect(error.message).toContain(name);
  expect(error.message).toMatch(says);
  expect(error.message.length).toBeLessThan(600);
  expect(error.code).toBe("ERR_SDPO_FILE");
}

const big = 2 ** 53 - 1;
const good = twoTensors();
const raw = (header: string) => safetensors(header, 24);
const json = JSON.stringify(good);

describe("safetensors", () => {
  const cases: [string, Buffer, RegExp][] = [
    ["an empty file", Buffer.alloc(0), /is 0 bytes, too short/],
    ["a file of 7 bytes", Buffer.alloc(7), /is 7 bytes, too short/],
    ["a header longer than the file", safetensors(good, 24, 10_000), /header length is 10000/],
    ["a header above the limit", safetensors(good, 24, 2n ** 63n), /header length is 9223372036854775808/],
    ["an empty header", safetensors(Buffer.alloc(0), 0), /not valid JSON/],
    ["a header cut short", safetensors(good, 0, 20), /not valid JSON/],
    ["bytes that are not UTF-8", raw(json).fill(0xff, 9, 12), /not valid JSON/],
    ["a header that is an array", safetensors([1], 0), /header is \[1\]/],
    ["a header that is null", safetensors("null", 0), /header is null/],
    ["a name given twice", raw(json.replace('"b"', '"a"')), /key "a" is given twice/],
    ["a name given twice, escaped", raw(json.replace('"b"', '"\\u0061"')), /key "a" is given twice/],
    ["metadata that is not of strings", safetensors({ __metadata__: { x: 1 } }, 0), /__metadata__/],
    ["an entry that is a string", safetensors({ a: "x" }, 0), /tensor "a": its entry is "x"/],
    [
      "an unknown type",
      safetensors({ a: entry([4], 0, 16, "F33") }, 16),
      /dtype is "F33"; expected one of BOOL/,
    ],
    ["a type that is a number", safetensors({ a: entry([4], 0, 16, 5) }, 16), /dtype is 5/],
    [
      "a type named as a method",
      safetensors({ a: entry([4], 0, 16, "toString") }, 16),
      /dtype is "toString"/,
    ],
    ["no type", safetensors({ a: { shape: [4], data_offsets: [0, 16] } }, 16), /dtype is undefined/],
    ["a negative dimension", safetensors({ a: entry([-4], 0, 16) }, 16), /shape is \[-4\]/],
    ["a fraction as dimension", safetensors({ a: entry([1.5], 0, 6) }, 6), /shape is \[1.5\]/],
    ["a string as dimension", safetensors({ a: entry(["4"], 0, 16) }, 16), /shape is \["4"\]/],
    ["a shape that is a number", safetensors({ a: entry(4, 0, 16) }, 16), /shape is 4/],
    ["a dimension beyond 2^53", safetensors({ a: entry([2 ** 60], 0, 16) }, 16), /shape is/],
    ["a size that overflows", safetensors({ a: entry([big, big, 4], 0, 16) }, 16), /below 2\^53 bytes/],
    [
      "three offsets",
      safetensors({ a: { ...entry([4], 0, 16), data_offsets: [0, 8, 16] } }, 16),
      /data_offsets/,
    ],
    ["a negative offset", safetensors({ a: entry([4], -16, 0) }, 16), /data_offsets is \[-16,0\]/],
    ["offsets in reverse", safetensors({ a: entry([4], 16, 0) }, 16), /16 bytes between them/],
    [
      "an offset that is a fraction",
      safetensors({ a: entry([4], 0.5, 16.5) }, 16),
      /data_offsets is \[0.5,16.5\]/,
    ],
    ["an offset that is a string", safetensors({ a: entry([4], "0", 16) }, 16), /data_offsets is \["0",16\]/],
    ["fewer bytes than the shape", safetensors({ a: entry([4], 0, 12) }, 12), /16 bytes between them/],
    ["tensors that overlap", safetensors({ a: entry([4], 0, 16), b: entry([4], 8, 24) }, 24), /"b" overlaps/],
    ["tensors at one place", safetensors({ a: entry([4], 0, 16), b: entry([4], 0, 16) }, 16), /overlaps/],
    ["a gap before the first", safetensors({ a: entry([4], 8, 24) }, 24), /"a" leaves a gap/],
    [
      "a gap between tensors",
      safetensors({ a: entry([4], 0, 16), b: entry([2], 20, 28) }, 28),
      /"b" leaves a gap/,
    ],
    ["data cut short", safetensors(good, 23), /tensor "b" ends at byte/],
    ["bytes after the data", safetensors(good, 25), /holds 1 bytes that belong to no tensor/],
    ["offsets far outside", safetensors({ a: entry([big - 3], 0, big - 3, "U8") }, 16), /"a" ends at byte/],
  ];
  test.each(cases)("%s", (_, bytes, says) => expectRefused(readSafetensors, "bad.safetensors", bytes, says));

  test("the file they were spoilt from is read", async () => {
    await writeFile(join(temporary, "good.safetensors"), safetensors(good, 24));
    expect((await readSafetensors(join(temporary, "good.safetensors"))).tensors.size).toBe(2);
  });

  test("every cut of a valid file", async () => {
    const bytes = safetensors(good, 24);
    for (let length = 0; length < bytes.length; length++)
      await expectRefused(readSafetensors, "cut.safetensors", bytes.subarray(0, length), /./);
  });

  test("a named pipe, at once", async () => {
    const pipe = join(temporary, "pipe.safetensors");
    if (spawnSync("mkfifo", [pipe]).status !== 0) return;
    expect((await refusal(() => readSafetensors(pipe))).message).toMatch(/is not a regular file/);
  });

  test("a folder, a missing file, a path with a null byte", async () => {
    for (const path of [temporary, join(temporary, "none"), "a\0b"])
      expect((await refusal(() => readSafetensors(path))).code).toBe("ERR_SDPO_FILE");
  });
});

describe("shard index", () => {
  const map = (weight_map: unknown) => ({ weight_map });
  const cases: [string, unknown, RegExp][] = [
    ["no weight_map", {}, /weight_map is undefined/],
    ["an empty weight_map", map({}), /weight_map is \{\}/],
    ["a weight_map that is an array", map(["a"]), /weight_map is \["a"\]/],
    ["an index that is a string", "x", /weight_map is undefined/],
    ["a shard that is a number", map({ a: 7 }), /weight_map\["a"\] is 7/],
    ["a shard outside the folder", map({ a: "../one.safetensors" }), /weight_map\["a"\] is "..\/one/],
    ["a shard by absolute path", map({ a: "/etc/one.safetensors" }), /weight_map\["a"\] is "\/etc/],
    ["a shard with a backslash", map({ a: "..\\one.safetensors" }), /weight_map\["a"\]/],
    ["a shard that is no safetensors file", map({ a: "one.bin" }), /weight_map\["a"\] is "one.bin"/],
    [
      "a shard that is missing",
      map({ a: "one.safetensors", b: "two.safetensors" }),
      /1 of its 2 shards are missing.*two/,
    ],
    [
      "a tensor that its shard lacks",
      map({ a: "one.safetensors", b: "one.safetensors", c: "one.safetensors" }),
      /weight_map\["c"\] is "one/,
    ],
    [
      "a tensor that the index lacks",
      map({ a: "one.safetensors" }),
      /holds tensor "b", which the index does not name/,
    ],
  ];
  test.each(cases)("%s", async (_, index, says) => {
    const folder = await mkdtemp(join(temporary, "shards-"));
    await writeFile(join(folder, "one.safetensors"), safetensors(good, 24));
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
    const error = await refusal(() => readSafetensorsFolder(folder));
    expect(error.message).toMatch(says);
    expect(error.message).toContain(basename(folder));
    expect(error.code).toBe("ERR_SDPO_FILE");
  });

  test("a tensor in two shards, and a folder without weights", async () => {
    const folder = await mkdtemp(join(temporary, "shards-"));
    expect((await refusal(() => readSafetensorsFolder(folder))).message).toMatch(
      /neither model.safetensors nor/,
    );
    await writeFile(join(folder, "one.safetensors"), safetensors(good, 24));
    await writeFile(join(folder, "two.safetensors"), safetensors(good, 24));
    const index = map({ a: "one.safetensors", b: "two.safetensors" });
    await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify(index));
    const { message } = await refusal(() => readSafetensorsFolder(folder));
    expect(message).toMatch(/holds tensor "b", which the index has in "two.safetensors"/);
  });
});
