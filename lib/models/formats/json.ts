import { SdpoError, show } from "../../errors.js";
import { fileError } from "./files.js";

/** Parses UTF-8 JSON; refuses an object that gives the same key twice, where JSON.parse takes the last. */
export function parseJson(bytes: Uint8Array, file: string): unknown {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw fileError(file, `is not valid JSON (${reason}); get the file again`, error);
  }
  const key = duplicateKey(text);
  if (key !== undefined)
    throw fileError(file, `the key ${show(key)} is given twice in one object; keep one of them`);
  return value;
}

/** The first key that an object of this valid JSON text repeats. */
function duplicateKey(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = [];
  let string = "";
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"') {
      let end = i + 1;
      while (text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
      string = text.slice(i, end + 1);
      i = end;
    } else if (c === "{") open.push(new Set());
    else if (c === "[") open.push(undefined);
    else if (c === "}" || c === "]") open.pop();
    else if (c === ":") {
      const key = JSON.parse(string) as string;
      const keys = open.at(-1)!;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  return undefined;
}

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Is it an integer from 0 that a number holds exactly? */
export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/**
 * Reads the fields of one object of a model's configuration; null counts as absent. Each refusal is
 * ERR_SDPO_MODEL and names the file, the field, its value and what is accepted. `labels` gives the name a field
 * has in the file where that is not its Hugging Face name.
 */
export class Fields {
  readonly file: string;
  private readonly object: JsonObject;
  private readonly label: (name: string) => string;

  constructor(value: unknown, file: string, label: (name: string) => string = (name) => name) {
    if (!isObject(value)) throw modelError(file, `is ${show(value)}, expected a JSON object`);
    this.object = value;
    this.file = file;
    this.label = label;
  }

  value(name: string): unknown {
    return Object.hasOwn(this.object, name) ? (this.object[name] ?? undefined) : undefined;
  }

  has(name: string): boolean {
    return this.value(name) !== undefined;
  }

  fail(name: string, expected: string): never {
    const value = this.value(name);
    const found = value === undefined ? "is missing" : `is ${show(value)}`;
    throw modelError(this.file, `${this.label(name)} ${found}; expected ${expected}`);
  }

  integer(name: string, min: number, max: number, fallback?: number): number {
    const value = this.value(name) ?? fallback;
    if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max)
      return value as number;
    return this.fail(name, `an integer from ${min} to ${max}`);
  }

  number(name: string, min: number, max: number, fallback?: number): number {
    const value = this.value(name) ?? fallback;
    if (typeof value === "number" && value >= min && value <= max) return value;
    return this.fail(name, `a number from ${min} to ${max}`);
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.value(name) ?? fallback;
    return typeof value === "boolean" ? value : this.fail(name, "true or false");
  }

  choice<T extends string>(name: string, choices: readonly T[], fallback?: T): T {
    const value = (this.value(name) ?? fallback) as T;
    return choices.includes(value) ? value : this.fail(name, `one of ${choices.join(", ")}`);
  }

  /** The fields of a nested object. */
  nested(name: string): Fields {
    const value = this.value(name);
    if (!isObject(value)) this.fail(name, "an object");
    return new Fields(value, this.file, (inner) => `${this.label(name)}.${inner}`);
  }
}

/** An ERR_SDPO_MODEL error that names the file. */
export function modelError(file: string, problem: string): SdpoError {
  return new SdpoError("ERR_SDPO_MODEL", `${file}: ${problem}`);
}
