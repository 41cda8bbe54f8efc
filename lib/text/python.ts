/** What Python does with texts and values where Jinja templates show it, for the corrections in jinja.ts. */
import type { JinjaValue } from "./libraries.js";
import { escapeRegExp } from "./spec.js";

/** The most items of a list made at one go. */
const MAX_ITEMS = 2 ** 20;
const PYTHON_SPACE =
  "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000";

/** Python's str.strip(characters), on either or both sides; null stands for white space. */
export function strip(text: string, characters: unknown, left: boolean, right: boolean): string {
  const set = new Set(String(characters ?? PYTHON_SPACE));
  const points = Array.from(text);
  let start = 0;
  let end = points.length;
  while (left && start < end && set.has(points[start]!)) start++;
  while (right && end > start && set.has(points[end - 1]!)) end--;
  return points.slice(start, end).join("");
}

/** Python's str.split(separator, limit); null separates at white space. */
export function splitText(text: string, separator: unknown, limit: unknown): string[] {
  if (separator === "") throw new Error("split with an empty separator");
  const most = Number(limit) < 0 ? Number.POSITIVE_INFINITY : Number(limit);
  const blanks = separator === null;
  const rest = blanks ? strip(text, null, true, most === Number.POSITIVE_INFINITY) : text;
  if (blanks && rest === "") return [];
  const pattern = blanks
    ? new RegExp(`[${PYTHON_SPACE}]+`, "g")
    : new RegExp(escapeRegExp(String(separator)), "g");
  const parts: string[] = [];
  let start = 0;
  for (const match of rest.matchAll(pattern)) {
    if (parts.length >= most) break;
    if (parts.length >= MAX_ITEMS) throw new Error(`split into more than ${MAX_ITEMS} parts`);
    parts.push(rest.slice(start, match.index));
    start = match.index + match[0].length;
  }
  return [...parts, rest.slice(start)];
}

export function capitalize(text: string): string {
  const [first = "", ...rest] = text;
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** Python's str(value), as far as templates may print it: lists and mappings are refused. */
export function pythonText({ type, value }: JinjaValue): string {
  switch (type) {
    case "StringValue":
      return value as string;
    case "UndefinedValue":
      return "";
    case "NullValue":
      return "None";
    case "BooleanValue":
      return value ? "True" : "False";
    case "IntegerValue":
      return String(value);
    case "FloatValue":
      return Number.isInteger(value) ? `${value}.0` : String(value);
    default:
      throw new Error(`it writes a ${type} into the text; tojson would do that`);
  }
}

/** Refuses a sum of a text and something else, as Python does. */
export function addsText(left: JinjaValue, right: JinjaValue): void {
  if ((left.type === "StringValue") !== (right.type === "StringValue")) {
    throw new Error(`it adds a ${left.type} and a ${right.type}`);
  }
}

/** Python's left == right. */
export function equals(left: JinjaValue, right: JinjaValue): boolean {
  const [a, b] = [left.value, right.value];
  if (isNumber(left) && isNumber(right)) return Number(a) === Number(b);
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((item, i) => equals(item, b[i]));
  }
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && [...a].every(([key, item]) => b.has(key) && equals(item, b.get(key)));
  }
  return left.type === right.type && a === b;
}

function isNumber({ type }: JinjaValue): boolean {
  return type === "IntegerValue" || type === "FloatValue" || type === "BooleanValue";
}

/** Python's range(...bounds) as a list. */
export function range(bounds: number[]): number[] {
  const [start, stop, step] =
    bounds.length > 1 ? [bounds[0]!, bounds[1]!, bounds[2] ?? 1] : [0, bounds[0]!, 1];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (!(count <= MAX_ITEMS)) throw new Error(`range(${bounds.join(", ")}) has more than ${MAX_ITEMS} items`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

/** The directives of Python's strftime that templates use, in English and local time. */
export function formatDate(date: Date, format: string): string {
  const english = (options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat("en-US", options).format(date);
  const two = (value: number) => String(value).padStart(2, "0");
  const directives: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    b: () => english({ month: "short" }),
    B: () => english({ month: "long" }),
    a: () => english({ weekday: "short" }),
    A: () => english({ weekday: "long" }),
    H: () => two(date.getHours()),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    "%": () => "%",
  };
  return format.replace(/%(.)/g, (whole, letter: string) => directives[letter]?.() ?? whole);
}
