import { readFile, stat } from "node:fs/promises";
import type { KeyInfo } from "../config.js";
import { nearestName, SdpoError, show } from "../errors.js";
import { parseJson } from "../models/formats/json.js";

type Values = Record<string, unknown>;

const FILE_LIMIT = 16 << 20;

function configError(message: string, cause?: unknown): SdpoError {
  return new SdpoError("ERR_SDPO_CONFIG", message, cause === undefined ? undefined : { cause });
}

/** Line and column (from 1) of a position in a text. */
function placeOf(text: string, position: number): string {
  const before = text.slice(0, position).split("\n");
  return `line ${before.length}, column ${before.at(-1)!.length + 1}`;
}

function jsonError(text: string): string | undefined {
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Where JSON.parse gave up; it does not say so of an unexpected token, which the shortest prefix that has one ends with. */
function errorPosition(text: string, message: string): number {
  const given = / at position (\d+)/.exec(message)?.[1];
  if (given !== undefined) return Number(given);
  if (!message.startsWith("Unexpected token")) return text.length;
  let [good, bad] = [0, text.length];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (jsonError(text.slice(0, middle))?.startsWith("Unexpected token")) bad = middle;
    else good = middle;
  }
  return bad - 1;
}

/** Parses JSON. Throws ERR_SDPO_CONFIG naming file, line and column, ERR_SDPO_FILE for a key given twice. */
export function parseConfigJson(text: string, file: string): Values {
  const message = jsonError(text);
  if (message !== undefined) {
    const place = placeOf(text, errorPosition(text, message));
    const reason = message.replace(/(, (\.\.\.)?".*| in JSON at position.*| after JSON at position.*)/s, "");
    throw configError(`${file}: ${place}: not valid JSON (${reason}); correct the file`);
  }
  const value = parseJson(Buffer.from(text), file);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw configError(`${file}: expected one JSON object of keys and values, got ${show(value)}`);
  }
  return value as Values;
}

/** The values of a configuration file. Throws ERR_SDPO_CONFIG. */
export async function readConfigFile(file: string): Promise<Values> {
  let text: string;
  try {
    const info = await stat(file);
    if (!info.isFile()) throw configError(`${file}: is not a file; give a JSON file of keys and values`);
    if (info.size > FILE_LIMIT) {
      throw configError(`${file}: is ${info.size} bytes, a configuration has at most ${FILE_LIMIT}`);
    }
    text = new TextDecoder("utf-8", { fatal: true }).decode(await readFile(file));
  } catch (cause) {
    if (cause instanceof SdpoError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason = code === "ENOENT" ? "no such file" : message;
    throw configError(`${file}: the configuration cannot be read: ${reason}`, cause);
  }
  return parseConfigJson(text, file);
}

/** A value from a command line: JSON where the key takes that, else the text itself. */
export function parseValue(raw: string, accepts: (value: unknown) => boolean): unknown {
  let value: unknown;
  try {
    value = JSON.parse(raw);
  } catch {
    return raw;
  }
  return !accepts(value) && accepts(raw) ? raw : value;
}

function keyOf(name: string, keys: readonly KeyInfo[]): KeyInfo {
  const key = keys.find((candidate) => candidate.name === name);
  if (key) return key;
  const near = nearestName(
    name,
    keys.map((candidate) => candidate.name),
  );
  throw configError(
    `--set: ${show(name)} is no key of the configuration; ${near ? `did you mean ${near}?` : "--keys lists all keys"}`,
  );
}

function splitPair(option: string, pair: string, example: string): [name: string, raw: string] {
  const equals = pair.indexOf("=");
  if (equals >= 1) return [pair.slice(0, equals).trim(), pair.slice(equals + 1)];
  throw configError(`${option}: expected name=value, got ${show(pair)}; for example ${option} ${example}`);
}

/** Values of `--set key=value`, each key once. Throws ERR_SDPO_CONFIG. */
export function parseSettings(settings: readonly string[], keys: readonly KeyInfo[]): Values {
  const values: Values = {};
  for (const setting of settings) {
    const [name, raw] = splitPair("--set", setting, "temperature=0.8");
    if (Object.hasOwn(values, name)) throw configError(`--set: ${name} is set twice; keep one of them`);
    values[name] = parseValue(raw, keyOf(name, keys).accepts);
  }
  return values;
}

/** An environment's options with those of `--option name=value` over them, each name once. Throws ERR_SDPO_CONFIG. */
export function parseOptions(pairs: readonly string[], base: unknown = {}): Values {
  // Without a prototype, so that __proto__ is a name like any other, and refused as one.
  const given: Values = Object.create(null);
  for (const pair of pairs) {
    const [name, raw] = splitPair("--option", pair, "formatFeedback=true");
    if (Object.hasOwn(given, name)) throw configError(`--option: ${name} is given twice; keep one of them`);
    given[name] = parseValue(raw, () => true);
  }
  if (typeof base !== "object" || base === null || Array.isArray(base)) {
    throw configError(`environmentOptions: expected an object, got ${show(base)}`);
  }
  return { ...base, ...given };
}

/** Every key with what it takes, its default and what it is. */
export function describeKeys(keys: readonly KeyInfo[]): string {
  const blocks = keys.map(({ name, description, expected, required, fallback }) => {
    const standard = required ? "required" : `default ${JSON.stringify(fallback)}`;
    return `${name}\n    ${description}\n    ${expected}; ${standard}`;
  });
  return `${blocks.join("\n")}\n`;
}
