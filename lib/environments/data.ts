import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { nearestName, SdpoError, show } from "../errors.js";
import type { ChatMessage, DataSource } from "./types.js";

/** A row of a data set and the place to name in errors, such as `train.json line 3`. */
export interface Row {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly place: string;
}

/** Bytes that a line of JSON Lines, or a whole file that is one JSON array, may have. */
const MAX_LINE_BYTES = 256 * 2 ** 20;
const REMEDY = "a data set is a file with one JSON object per line, or one JSON array of objects";

function dataError(place: string, problem: string, cause?: unknown): SdpoError {
  return new SdpoError("ERR_SDPO_DATA", `${place}: ${problem}`, { cause });
}

/** The error of one field of one row: `train.json line 3: answer: <problem>, got "E"; <remedy>`. */
export function fieldError(row: Row, field: string, problem: string, remedy: string): SdpoError {
  return dataError(row.place, `${field}: ${problem}, got ${show(fieldOf(row, field))}; ${remedy}`);
}

/** The value at `path`, whose parts are separated by dots; undefined where there is none. */
export function fieldOf(row: Row, path: string): unknown {
  let value: unknown = row.fields;
  for (const key of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

/**
 * The text at `path`; refuses another type, a blank text and lone surrogates, which no tokenizer can encode.
 */
export function textField(row: Row, path: string): string {
  const value = fieldOf(row, path);
  if (value === undefined) {
    const near = nearestName(path, Object.keys(row.fields));
    const remedy = near
      ? `did you mean the field ${show(near)}?`
      : `the row has ${Object.keys(row.fields).join(", ")}`;
    throw fieldError(row, path, "the field is missing", remedy);
  }
  if (typeof value !== "string" || value.trim() === "") {
    throw fieldError(row, path, "expected a text that is not blank", "correct the row or take it out");
  }
  if (/\p{Surrogate}/u.test(value)) {
    throw fieldError(
      row,
      path,
      "expected well-formed Unicode",
      "half of a surrogate pair is missing: correct the row",
    );
  }
  return value;
}

const ROLES = ["system", "user", "assistant", "tool"];

/**
 * A row's conversation. `prompt` is a text, with the text of `system` before it where there is one, or a list
 * of messages, of which one at least is the user's.
 */
export function promptMessages(row: Row): ChatMessage[] {
  const prompt = fieldOf(row, "prompt");
  if (!Array.isArray(prompt)) {
    const user: ChatMessage = { role: "user", content: textField(row, "prompt") };
    const system = fieldOf(row, "system");
    const hasSystem = system !== undefined && system !== null && system !== "";
    return hasSystem ? [{ role: "system", content: textField(row, "system") }, user] : [user];
  }
  const messages = prompt.map((_, i): ChatMessage => {
    const role = fieldOf(row, `prompt.${i}.role`);
    if (!ROLES.includes(role as string)) {
      throw fieldError(
        row,
        `prompt.${i}.role`,
        "expected system, user, assistant or tool",
        "correct the message",
      );
    }
    return { role: role as ChatMessage["role"], content: textField(row, `prompt.${i}.content`) };
  });
  if (!messages.some((message) => message.role === "user")) {
    throw fieldError(row, "prompt", "expected a message of the user", "add one");
  }
  return messages;
}

/** A task's name from what it asks, the same in every run and file: `<name>-<16 hex digits of SHA-256>`. */
export function taskId(name: string, messages: readonly ChatMessage[]): string {
  return `${name}-${createHash("sha256").update(JSON.stringify(messages)).digest("hex").slice(0, 16)}`;
}

function toRow(value: unknown, place: string): Row {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw dataError(place, `expected a JSON object, got ${show(value)}; ${REMEDY}`);
  }
  return { fields: value as Record<string, unknown>, place };
}

function parse(bytes: Uint8Array, place: string): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw dataError(place, `not UTF-8 text; ${REMEDY}`, cause);
  }
  if (text.trim() === "") return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw dataError(place, `not JSON (${(cause as Error).message}), got ${show(text)}; ${REMEDY}`, cause);
  }
}

/** The file's first byte that is neither blank nor a byte order mark. */
async function firstByte(file: string): Promise<number | undefined> {
  const handle = await open(file);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(4096), 0, 4096, 0);
    const blank = new Set([0xef, 0xbb, 0xbf, 0x20, 0x09, 0x0a, 0x0d]);
    return buffer.subarray(0, bytesRead).find((byte) => !blank.has(byte));
  } finally {
    await handle.close();
  }
}

async function* readLines(file: string, maxBytes: number): AsyncGenerator<Buffer> {
  let parts: Buffer[] = [];
  let size = 0;
  let line = 1;
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    for (let start = 0; start < chunk.length; ) {
      const newline = chunk.indexOf(0x0a, start);
      const end = newline < 0 ? chunk.length : newline;
      parts.push(chunk.subarray(start, end));
      size += end - start;
      if (size > maxBytes) {
        throw dataError(`${file} line ${line}`, `longer than the limit of ${maxBytes} bytes; ${REMEDY}`);
      }
      if (newline >= 0) {
        yield Buffer.concat(parts);
        [parts, size, line] = [[], 0, line + 1];
      }
      start = end + 1;
    }
  }
  if (size > 0) yield Buffer.concat(parts);
}

async function* readFileRows(file: string, maxBytes: number): AsyncGenerator<Row> {
  const info = await stat(file);
  if (!info.isFile()) {
    throw dataError(
      file,
      `${info.isDirectory() ? "is a directory" : "is not a regular file"}; name a file of it: ${REMEDY}`,
    );
  }
  if ((await firstByte(file)) === "[".charCodeAt(0)) {
    if (info.size > maxBytes) {
      const sizes = `a JSON array of ${info.size} bytes, the limit is ${maxBytes}`;
      throw dataError(file, `${sizes}; write one JSON object per line instead`);
    }
    const rows = parse(await readFile(file), file) as unknown[];
    for (const [i, row] of rows.entries()) yield toRow(row, `${file} row ${i + 1}`);
    return;
  }
  let line = 0;
  for await (const bytes of readLines(file, maxBytes)) {
    const place = `${file} line ${++line}`;
    const value = parse(bytes, place);
    if (value !== undefined) yield toRow(value, place);
  }
}

/**
 * The rows of a JSON Lines file (read line by line, blank lines skipped), of a file that holds one JSON
 * array, or of a list in memory. Throws `ERR_SDPO_DATA` where the file cannot be read, holds no row, or a row
 * is no JSON object.
 */
export async function* readRows(
  source: DataSource,
  { maxLineBytes = MAX_LINE_BYTES }: { maxLineBytes?: number } = {},
): AsyncGenerator<Row> {
  const name = typeof source === "string" ? source || "data" : "rows in memory";
  let count = 0;
  try {
    if (typeof source === "string") {
      for await (const row of readFileRows(source, maxLineBytes)) {
        count++;
        yield row;
      }
    } else if (Array.isArray(source)) {
      for (const value of source) yield toRow(value, `rows in memory, row ${++count}`);
    } else {
      throw dataError("data", `expected a file's path or a list of rows, got ${show(source)}`);
    }
  } catch (error) {
    const code = error instanceof SdpoError ? undefined : (error as NodeJS.ErrnoException).code;
    if (code === undefined) throw error;
    const reason = code === "ENOENT" ? "no such file" : `cannot be read (${code})`;
    throw dataError(name, `${reason}; ${REMEDY}`, error);
  }
  if (count === 0) throw dataError(name, `holds no rows; ${REMEDY}`);
}
