/** Reading and checking JSON that comes from a model folder: every refusal names the file, the field and the value. */
import { readFile, stat } from "node:fs/promises";
import { SdpoError, show } from "../errors.js";

export type Json = Record<string, unknown>;

/** Refuses a malformed value. `need` says what would be right. */
export function malformed(file: string, field: string, value: unknown, need: string): never {
  throw new SdpoError("ERR_SDPO_FILE", `${file}: ${field} is ${show(value)}; ${need}`);
}

/** Refuses a well-formed value that asks for something this package does not do. */
export function unsupported(file: string, field: string, value: unknown, need: string): never {
  throw new SdpoError("ERR_SDPO_TEXT", `${file}: ${field} ${show(value)} is not supported; ${need}`);
}

export function asObject(file: string, field: string, value: unknown): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) {
    malformed(file, field, value, "it must be a JSON object");
  }
  return value as Json;
}

export function asArray(file: string, field: string, value: unknown): unknown[] {
  if (!Array.isArray(value)) malformed(file, field, value, "it must be an array");
  return value;
}

export function asString(file: string, field: string, value: unknown): string {
  if (typeof value !== "string" || value === "")
    malformed(file, field, value, "it must be a non-empty string");
  return value;
}

/** A whole number in [0, limit). */
export function asIndex(file: string, field: string, value: unknown, limit: number): number {
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) >= limit) {
    malformed(file, field, value, `it must be a whole number from 0 to ${limit - 1}`);
  }
  return value as number;
}

/** A text file's content, or undefined where `optional` and there is none. Refuses files over `maxBytes` and bad UTF-8. */
export async function readText(
  path: string,
  maxBytes: number,
  optional = false,
): Promise<string | undefined> {
  let bytes: Uint8Array;
  try {
    const { size } = await stat(path);
    if (size > maxBytes) malformed(path, "the file's size", size, `at most ${maxBytes} bytes are read`);
    bytes = await readFile(path);
  } catch (cause) {
    if (cause instanceof SdpoError) throw cause;
    const code = (cause as NodeJS.ErrnoException).code;
    if (optional && code === "ENOENT") return undefined;
    throw new SdpoError("ERR_SDPO_FILE", `${path}: cannot be read (${code}); check the path`, { cause });
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new SdpoError("ERR_SDPO_FILE", `${path}: is not UTF-8 text; fetch the file again`, { cause });
  }
}

/** A JSON file's value; see {@link readText}. */
export async function readJson(path: string, maxBytes: number, optional = false): Promise<unknown> {
  const text = await readText(path, maxBytes, optional);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = (cause as Error).message;
    throw new SdpoError("ERR_SDPO_FILE", `${path}: is not JSON (${reason}); fetch the file again`, { cause });
  }
}
