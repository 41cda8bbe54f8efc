/**
 * Jinja as transformers runs it on chat templates: @huggingface/jinja with Python's string methods put right, and limits.
 *
 * Corrected: `trim` and `strip` take Python's white space, `strip`, `lstrip` and `rstrip` heed their argument, a `set`
 * inside a loop ends with the round, `length` of a string counts code points, `strftime_now` speaks English.
 * Limited (a template comes with a model, and is not trusted): its size, the steps and characters that a rendering may
 * take, depth, and the length of any text or list. Not limited: what one built-in (`replace`, `join`, `indent`) makes
 * before its result is looked at, which ends at the engine's own longest string (some 2^29 characters).
 */
import { SdpoError } from "../errors.js";
import {
  Environment,
  Interpreter,
  type JinjaEnvironment,
  type JinjaNode,
  type JinjaValue,
  parse,
  tokenize,
} from "./libraries.js";
import { escapeRegExp } from "./spec.js";

/** A node or expression with the fields that are looked at here. */
interface Node extends JinjaNode {
  readonly value?: string;
  readonly callee?: Node;
  readonly args?: Node[];
  readonly object?: Node;
  readonly property?: Node;
  readonly computed?: boolean;
  readonly operand?: Node;
  readonly filter?: Node;
}

/** Put before a loop's body: forgets what the last round set, as Jinja does. */
class ForgetRound {
  readonly type = "ForgetRound";
  constructor(readonly keep: ReadonlySet<string>) {}
}

const MAX_SOURCE = 2 ** 17;
const MAX_BLANKS = 2000;
const MAX_DEPTH = 300;
const MAX_LENGTH = 2 ** 24;
const MAX_ITEMS = 2 ** 20;
/** Each step costs this and the length of its result. */
const STEP_COST = 100;
const MAX_COST = 2 ** 28;
const PYTHON_SPACE =
  "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000";

/** Parses a template. `mark` is applied to every text that the template itself holds. */
export function parseJinja(source: string, where: string, mark: (text: string) => string): JinjaNode {
  const tooLong = source.length > MAX_SOURCE;
  if (tooLong || new RegExp(`\\s{${MAX_BLANKS}}`).test(source)) {
    const found = tooLong ? `${source.length} characters` : `a run of over ${MAX_BLANKS} blanks`;
    const limit = `at most ${MAX_SOURCE} characters and ${MAX_BLANKS} blanks in a row are read`;
    throw new SdpoError("ERR_SDPO_TEXT", `${where}: has ${found}; ${limit}`);
  }
  try {
    const program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
    prepare(program, mark);
    return program;
  } catch (cause) {
    throw new SdpoError(
      "ERR_SDPO_TEXT",
      `${where}: is not a Jinja template (${reasonOf(cause)}); correct it`,
      { cause },
    );
  }
}

/** Marks the literals below `node` and begins every loop's body with a {@link ForgetRound}. */
function prepare(node: unknown, mark: (text: string) => string): void {
  if (typeof node !== "object" || node === null) return;
  if (node instanceof Map) for (const entry of node) prepare(entry, mark);
  for (const child of Object.values(node)) prepare(child, mark);
  const { type, value, loopvar, body } = node as Record<string, unknown>;
  if (type === "StringLiteral") (node as { value: string }).value = mark(value as string);
  if (type === "For") {
    const variable = loopvar as { value: string | { value: string }[] };
    const names = Array.isArray(variable.value) ? variable.value.map((name) => name.value) : [variable.value];
    (body as unknown[]).unshift(new ForgetRound(new Set([...names, "loop", "namespace"])));
  }
}

/** Renders a program. `where` names the template in errors; one raised by the template itself carries its message. */
export function renderJinja(program: JinjaNode, variables: Record<string, unknown>, where: string): string {
  const environment = new Environment();
  for (const [name, value] of Object.entries(globals(where))) environment.set(name, value);
  for (const [name, value] of Object.entries(variables)) {
    if (environment.lookupVariable(name).type !== "UndefinedValue") {
      throw new SdpoError(
        "ERR_SDPO_TEXT",
        `${where}: the variable ${name} has a meaning of its own; rename it`,
      );
    }
    environment.set(name, value);
  }
  try {
    return (new LimitedInterpreter(environment).run(program) as { value: string }).value;
  } catch (cause) {
    if (cause instanceof SdpoError) throw cause;
    throw new SdpoError("ERR_SDPO_TEXT", `${where}: failed on these messages (${reasonOf(cause)})`, {
      cause,
    });
  }
}

function reasonOf(cause: unknown): string {
  if (cause instanceof RangeError) return "it needs too much stack or memory";
  return cause instanceof Error && cause.message !== "" ? cause.message : "break or continue outside a loop";
}

function globals(where: string): Record<string, unknown> {
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    raise_exception: (message: unknown) => {
      throw new SdpoError("ERR_SDPO_TEXT", `${where}: the template refuses these messages: ${message}`);
    },
    range: (...bounds: number[]) => range(bounds),
    strftime_now: (format: string) => formatDate(new Date(), format),
  };
}

function range(bounds: number[]): number[] {
  const [start, stop, step] =
    bounds.length > 1 ? [bounds[0]!, bounds[1]!, bounds[2] ?? 1] : [0, bounds[0]!, 1];
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (!(count <= MAX_ITEMS)) throw new Error(`range(${bounds.join(", ")}) has more than ${MAX_ITEMS} items`);
  return Array.from({ length: count }, (_, i) => start + i * step);
}

/** The directives of Python's strftime that templates use, in English and local time. */
function formatDate(date: Date, format: string): string {
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

function toValue(value: unknown): JinjaValue {
  return new Environment().set("value", value);
}

class LimitedInterpreter extends Interpreter {
  #depth = 0;
  #cost = 0;

  override evaluate(node: JinjaNode | undefined, environment: JinjaEnvironment): JinjaValue {
    if (++this.#depth > MAX_DEPTH) throw new Error(`it nests deeper than ${MAX_DEPTH}`);
    try {
      const value = this.#correct(node as Node | undefined, environment) ?? super.evaluate(node, environment);
      this.#charge(node?.type === "Identifier" ? undefined : value);
      return value;
    } finally {
      this.#depth--;
    }
  }

  #charge(value: JinjaValue | undefined): void {
    const content: unknown = value?.value;
    const length = typeof content === "string" || Array.isArray(content) ? content.length : 0;
    if (length > (typeof content === "string" ? MAX_LENGTH : MAX_ITEMS)) {
      throw new Error(`it makes a text over ${MAX_LENGTH} characters or a list over ${MAX_ITEMS} items`);
    }
    this.#cost += STEP_COST + length;
    if (this.#cost > MAX_COST) throw new Error("it takes too many steps");
  }

  /** The value of what the library gets wrong, or undefined for all that it gets right. */
  #correct(node: Node | undefined, environment: JinjaEnvironment): JinjaValue | undefined {
    if (node === undefined) return undefined;
    if (node.type === "ForgetRound") {
      const { keep } = node as unknown as ForgetRound;
      for (const name of environment.variables.keys())
        if (!keep.has(name)) environment.variables.delete(name);
      return toValue(null);
    }
    if (node.type === "FilterExpression") return this.#filter(node, environment);
    const { callee } = node;
    const method = callee?.type === "MemberExpression" && !callee.computed ? callee.property!.value! : "";
    if (node.type !== "CallExpression" || !["strip", "lstrip", "rstrip", "split"].includes(method))
      return undefined;
    const text = this.#text(callee!.object!, environment, method);
    const args = node.args!.map(
      (argument) => this.evaluate(argument, environment).value as string | number | null,
    );
    if (method === "split") return toValue(splitText(text, args[0] ?? null, args[1] ?? -1));
    const characters = args[0] ?? PYTHON_SPACE;
    return toValue(strip(text, String(characters), method !== "rstrip", method !== "lstrip"));
  }

  #filter(node: Node, environment: JinjaEnvironment): JinjaValue | undefined {
    const filter = node.filter!;
    const name = filter.type === "CallExpression" ? filter.callee!.value : filter.value;
    if (name === "trim") {
      const text = this.#text(node.operand!, environment, name);
      const characters =
        filter.args?.[0] === undefined ? PYTHON_SPACE : this.#text(filter.args[0], environment, name);
      return toValue(strip(text, characters, true, true));
    }
    if (name !== "length") return undefined;
    const value = this.evaluate(node.operand, environment);
    if (value.type === "StringValue") return toValue(Array.from(value.value as string).length);
    if (value.type === "UndefinedValue") return toValue(0);
    const size = Array.isArray(value.value)
      ? value.value.length
      : (value.value as Map<string, JinjaValue> | null)?.size;
    if (size === undefined) throw new Error("length of something that has none");
    return toValue(size);
  }

  #text(node: Node, environment: JinjaEnvironment, method: string): string {
    const value = this.evaluate(node, environment);
    if (value.type === "UndefinedValue" && method === "trim") return "";
    if (value.type !== "StringValue") throw new Error(`${method} of something that is not a text`);
    return value.value as string;
  }
}

/** Python's str.strip(characters), on either or both sides. */
function strip(text: string, characters: string, left: boolean, right: boolean): string {
  const set = new Set(characters);
  const points = Array.from(text);
  let start = 0;
  let end = points.length;
  while (left && start < end && set.has(points[start]!)) start++;
  while (right && end > start && set.has(points[end - 1]!)) end--;
  return points.slice(start, end).join("");
}

/** Python's str.split(separator, limit); null separates at white space. */
function splitText(text: string, separator: string | number | null, limit: string | number): string[] {
  if (separator === "") throw new Error("split with an empty separator");
  const most = Number(limit) < 0 ? Number.POSITIVE_INFINITY : Number(limit);
  const blanks = separator === null;
  const rest = blanks ? strip(text, PYTHON_SPACE, true, most === Number.POSITIVE_INFINITY) : text;
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
