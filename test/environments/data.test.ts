import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { readRows } from "../../lib/environments/data.js";
import { environments } from "../../lib/environments/index.js";
import type { DataSource } from "../../lib/environments/types.js";
import { SdpoError } from "../../lib/errors.js";

const folder = mkdtempSync(join(tmpdir(), "sdpo-data-"));
mkdirSync(join(folder, "dir"));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;
function file(content: string | Uint8Array): string {
  const path = join(folder, `rows-${++files}.json`);
  writeFileSync(path, content);
  return path;
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list = [];
  for await (const item of items) list.push(item);
  return list;
}

async function failure(run: () => Promise<unknown>): Promise<SdpoError> {
  try {
    await run();
  } catch (error) {
    expect(error).toBeInstanceOf(SdpoError);
    return error as SdpoError;
  }
  throw new Error("was not refused");
}

const good = { prompt: "Which?\n\nA: 1\nB: 2", answer: "A" };
const line = (row: unknown) => `${JSON.stringify(row)}\n`;

describe("readRows", () => {
  test("reads JSON Lines, skips blank lines, takes CRLF, a byte order mark and a last line without newline", async () => {
    const rows = await all(readRows(file(`\ufeff{"a":1}\r\n\n   \n{"a":"é\\n"}\n{"a":3}`)));
    expect(rows.map((row) => row.fields.a)).toEqual([1, "é\n", 3]);
    expect(rows.map((row) => row.place.replace(/^.* line /, ""))).toEqual(["1", "4", "5"]);
  });

  test("reads a JSON array", async () => {
    const rows = await all(readRows(file(`\ufeff\n [\n {"a": 1},\n {"a": 2}\n]\n`)));
    expect(rows.map((row) => row.fields.a)).toEqual([1, 2]);
    expect(rows[1]!.place).toMatch(/rows-\d+\.json row 2$/);
  });

  test("reads rows in memory", async () => {
    const rows = await all(readRows([{ a: 1 }, { a: 2 }]));
    expect(rows.map((row) => row.fields.a)).toEqual([1, 2]);
  });

  test("reads lines longer than a chunk, and rows across chunks", async () => {
    const texts = [200_000, 3, 65_536, 70_000, 1].map((n, i) => String(i).repeat(n));
    const rows = await all(readRows(file(texts.map((a) => line({ a })).join(""))));
    expect(rows.map((row) => row.fields.a)).toEqual(texts);
  });

  test("stops reading when its reader stops", async () => {
    const path = file(line(good) + "not JSON\n".repeat(1000));
    for await (const row of readRows(path)) {
      expect(row.fields).toEqual(good);
      break;
    }
  });
});

/** Sources that `mcq` refuses, and what the message must name: place, field, value, remedy. */
const refused: [name: string, source: () => unknown, ...words: string[]][] = [
  ["no such file", () => join(folder, "none.json"), "none.json", "no such file", "one JSON object per line"],
  ["a file in no folder", () => join(folder, "none", "x.json"), "no such file"],
  ["a path through a file", () => join(file(line(good)), "x"), "cannot be read", "ENOTDIR"],
  ["a path with a NUL", () => "a\0b", "cannot be read"],
  ["an empty path", () => "", "no such file"],
  ["a directory", () => join(folder, "dir"), "dir: is a directory", "name a file"],
  ["a device", () => "/dev/null", "/dev/null", "not a regular file"],
  ["an empty file", () => file(""), "holds no rows"],
  ["blank lines only", () => file("\n \n"), "holds no rows"],
  ["an empty array", () => file("[]"), "holds no rows"],
  ["no rows in memory", () => [], "holds no rows"],
  ["no source", () => undefined, "data: expected a file's path or a list of rows", "undefined"],
  ["a source of the wrong type", () => 7, "got 7"],
  [
    "not JSON on line 2",
    () => file(`${line(good)}{"prompt": \n`),
    "line 2: not JSON",
    String.raw`{\"prompt\":`,
  ],
  ["a row over several lines", () => file(JSON.stringify(good, null, 1)), "line 1: not JSON", "per line"],
  [
    "not UTF-8 on line 2",
    () => file(Buffer.concat([Buffer.from(line(good)), Buffer.of(0x22, 0xff)])),
    "line 2: not UTF-8",
  ],
  ["a cut array", () => file(`[${JSON.stringify(good)},`), "not JSON"],
  ["a Parquet file", () => file("PAR1\u0000\u0001"), "line 1: not JSON", "PAR1"],
  ["a number for a row", () => file(`${line(good)}7\n`), "line 2: expected a JSON object, got 7"],
  ["null for a row", () => file("null\n"), "line 1: expected a JSON object, got null"],
  ["a list for a row", () => file(`${line(good)}[1,2]\n`), "line 2: expected a JSON object, got [1,2]"],
  [
    "a text for a row of an array",
    () => file(`[${JSON.stringify(good)}, "x"]`),
    "row 2: expected a JSON object",
    '"x"',
  ],
  [
    "a missing prompt",
    () => file(line({ answer: "A" })),
    "line 1: prompt: the field is missing",
    "the row has answer",
  ],
  [
    "a misspelt prompt",
    () => [{ promt: "x", answer: "A" }],
    "row 1: prompt",
    'did you mean the field "promt"',
  ],
  [
    "an inherited prompt",
    () => file('{"__proto__":{"prompt":"x"},"answer":"A"}'),
    "prompt: the field is missing",
  ],
  [
    "fields of the row's prototype",
    () => [Object.create(good)],
    "answer: expected A, B, C or D, got undefined",
  ],
  ["a prompt that is a number", () => [good, { ...good, prompt: 3 }], "row 2: prompt", "got 3"],
  [
    "a blank prompt",
    () => file(line(good) + line({ ...good, prompt: " \n" })),
    "line 2: prompt",
    "not blank",
  ],
  [
    "half a surrogate pair",
    () => file(`{"prompt":"\\ud800","answer":"A"}`),
    "prompt: expected well-formed Unicode",
  ],
  ["a system text that is a list", () => [{ ...good, system: ["x"] }], "system: expected a text", '["x"]'],
  ["a missing answer", () => [{ prompt: "x" }], "row 1: answer: expected A, B, C or D, got undefined"],
  [
    "an answer beyond D",
    () => file(line(good) + line({ ...good, answer: "E" })),
    'line 2: answer: expected A, B, C or D, got "E"',
    "take it out",
  ],
  ["a small letter", () => [{ ...good, answer: "a" }], 'got "a"'],
  ["two letters", () => [{ ...good, answer: "AB" }], 'got "AB"'],
  ["a letter and a newline", () => [{ ...good, answer: "A\n" }], String.raw`got "A\n"`],
  ["an answer's number", () => [{ ...good, answer: 0 }], "got 0"],
  [
    "rows of another kind",
    () => [{ ...good, kind: "tooluse" }],
    'kind: expected mcq or gpqa, got "tooluse"',
    "environment",
  ],
  ["no messages", () => [{ ...good, prompt: [] }], "prompt: expected a message of the user, got []"],
  [
    "messages without the user's",
    () => [{ ...good, prompt: [{ role: "system", content: "x" }] }],
    "message of the user",
  ],
  [
    "an unknown role",
    () => [{ ...good, prompt: [{ role: "human", content: "x" }] }],
    "prompt.0.role: expected system, user",
    '"human"',
  ],
  ["a message that is a text", () => [{ ...good, prompt: ["x"] }], "prompt.0.role", "undefined"],
  [
    "a message's content that is null",
    () => [{ ...good, prompt: [{ role: "user", content: null }] }],
    "prompt.0.content",
    "got null",
  ],
  [
    "a Parquet row without truth",
    () => [{ ...good, reward_model: { style: "mcq" } }],
    "reward_model.ground_truth",
    "undefined",
  ],
  [
    "a Parquet row of another style",
    () => [{ ...good, reward_model: { style: "code", ground_truth: "A" } }],
    "reward_model.style",
    '"code"',
  ],
  ["a reward model that is a text", () => [{ ...good, reward_model: "x" }], "reward_model.ground_truth"],
];

describe("bad data", () => {
  test.each(refused)("refuses %s", async (_, source, ...words) => {
    const error = await failure(() => all(environments.mcq().load(source() as DataSource)));
    expect(error.code).toBe("ERR_SDPO_DATA");
    for (const word of words) expect(error.message).toContain(word);
  });

  test("refuses a line over the limit before the memory grows with it", async () => {
    const path = file(`${line(good)}{"prompt":"${"x".repeat(5_000_000)}`);
    const error = await failure(() => all(readRows(path, { maxLineBytes: 100_000 })));
    expect(error.code).toBe("ERR_SDPO_DATA");
    expect(error.message).toMatch(
      /line 2: longer than the limit of 100000 bytes; .*one JSON object per line/,
    );
  });

  test("the limit is for a line, not for the file", async () => {
    const rows = await all(readRows(file(line(good).repeat(500)), { maxLineBytes: 200 }));
    expect(rows).toHaveLength(500);
  });

  test("refuses an array over the limit", async () => {
    const path = file(JSON.stringify([{ a: "x".repeat(200_000) }]));
    const error = await failure(() => all(readRows(path, { maxLineBytes: 100_000 })));
    expect(error.message).toMatch(
      /JSON array of 200010 bytes, the limit is 100000; write one JSON object per line/,
    );
  });

  test("the rows before a bad one are read", async () => {
    const seen: unknown[] = [];
    const error = await failure(async () => {
      for await (const row of readRows(file(`${line(good)}oops`))) seen.push(row.fields);
    });
    expect(error.message).toContain("line 2");
    expect(seen).toEqual([good]);
  });
});
