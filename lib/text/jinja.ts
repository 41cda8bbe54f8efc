/**
 * Jinja as transformers runs it on chat templates: @huggingface/jinja with Python's string methods put right, and limits.
 *
 * Corrected: `trim` and `strip` take Python's white space, `strip`, `lstrip` and `rstrip` heed their argument, a `set`
 * inside a loop ends with the round, `length` and indices of strings count code points, `==` compares as Python does,
 * true, false and none are written as Python writes them, a text plus something else is refused, `capitalize` lowers
 * the rest, `strftime_now` speaks English. What the library lacks (`raw`, `rsplit`, `format`, ...) it refuses.
 * Limited (a template comes with a model, and is not trusted): its size, depth, and the steps, characters and items that
 * a rendering may take together. Not limited: what one built-in (`replace`, `join`, `indent`) makes before its result is
 * looked at, which ends at the engine's own longest string (some 2^29 characters).
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
import { addsText, capitalize, equals, formatDate, pythonText, range, splitText, strip } from "./python.js";

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
  readonly left?: Node;
  readonly right?: Node;
  readonly operator?: { readonly value: string };
  /** An expression whose value becomes part of the text. */
  readonly printed?: boolean;
  /** Of a node of type "Known": its value. */
  readonly known?: JinjaValue;
}

/** Put before a loop's body: forgets what the last round set, as Jinja does. */
class ForgetRound {
  readonly type = "ForgetRound";
  constructor(readonly keep: ReadonlySet<string>) {}
}

/** Expressions whose type does not end in "Expression" and whose value is not a text. */
const PRINTED: ReadonlySet<string> = new Set([
  "Identifier",
  "Ternary",
  "IntegerLiteral",
  "FloatLiteral",
  "ArrayLiteral",
  "TupleLiteral",
  "ObjectLiteral",
]);
const MAX_SOURCE = 2 ** 17;
const MAX_BLANKS = 2000;
const MAX_DEPTH = 300;
/** Each step costs this and its result's length, an item of a list counting more than a character. */
const STEP_COST = 200;
const ITEM_COST = 64;
const MAX_COST = 2 ** 26;
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

/** Marks the literals below `node` and what is printed, and begins every loop's body with a {@link ForgetRound}. */
function prepare(node: unknown, mark: (text: string) => string): void {
  if (typeof node !== "object" || node === null) return;
  if (node instanceof Map) for (const entry of node) prepare(entry, mark);
  for (const child of Object.values(node)) prepare(child, mark);
  const { type, value, loopvar, body, alternate, defaultBlock } = node as Record<string, unknown>;
  for (const block of [body, alternate, defaultBlock]) {
    if (!Array.isArray(block)) continue;
    for (const child of block)
      if (child.type.endsWith("Expression") || PRINTED.has(child.type)) child.printed = true;
  }
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

function toValue(value: unknown): JinjaValue {
  return new Environment().set("value", value);
}

const NOTHING = toValue(null);

class LimitedInterpreter extends Interpreter {
  #depth = 0;
  #cost = 0;

  override evaluate(node: JinjaNode | undefined, environment: JinjaEnvironment): JinjaValue {
    if (++this.#depth > MAX_DEPTH) throw new Error(`it nests deeper than ${MAX_DEPTH}`);
    try {
      const value = this.#correct(node as Node | undefined, environment) ?? super.evaluate(node, environment);
      this.#charge(node?.type === "Identifier" || node?.type === "Known" ? undefined : value);
      const written = (node as Node | undefined)?.printed && value.type !== "StringValue";
      return written ? toValue(pythonText(value)) : value;
    } finally {
      this.#depth--;
    }
  }

  #charge(value: JinjaValue | undefined): void {
    const content: unknown = value?.value;
    const size =
      typeof content === "string" ? content.length : Array.isArray(content) ? content.length * ITEM_COST : 0;
    this.#cost += STEP_COST + size;
    if (this.#cost > MAX_COST) throw new Error("it takes too many steps, or makes too long a text or list");
  }

  /** The value of what the library gets wrong, or undefined for all that it gets right. */
  #correct(node: Node | undefined, environment: JinjaEnvironment): JinjaValue | undefined {
    switch (node?.type) {
      case "Known":
        return node.known;
      case "ForgetRound": {
        const { keep } = node as unknown as ForgetRound;
        for (const name of [...environment.variables.keys()]) {
          if (!keep.has(name)) environment.variables.delete(name);
        }
        return NOTHING;
      }
      case "FilterExpression":
        return this.#filter(node, environment);
      case "BinaryExpression":
        return this.#binary(node, environment);
      case "MemberExpression":
        return this.#member(node, environment);
      case "CallExpression":
        return this.#method(node, environment);
      default:
        return undefined;
    }
  }

  #method(node: Node, environment: JinjaEnvironment): JinjaValue | undefined {
    const callee = node.callee!;
    const method = callee.type === "MemberExpression" && !callee.computed ? callee.property!.value! : "";
    if (!["strip", "lstrip", "rstrip", "split", "capitalize"].includes(method)) return undefined;
    const { type, value } = this.evaluate(callee.object, environment);
    if (type !== "StringValue") throw new Error(`${method} of something that is not a text`);
    const [first, limit] = node.args!.map((argument) => this.evaluate(argument, environment).value);
    if (method === "capitalize") return toValue(capitalize(value as string));
    if (method === "split") return toValue(splitText(value as string, first ?? null, limit ?? -1));
    return toValue(strip(value as string, first ?? null, method !== "rstrip", method !== "lstrip"));
  }

  #filter(node: Node, environment: JinjaEnvironment): JinjaValue | undefined {
    const filter = node.filter!;
    const name = filter.type === "CallExpression" ? filter.callee!.value : filter.value;
    if (name !== "trim" && name !== "length" && name !== "capitalize") return undefined;
    const operand = this.evaluate(node.operand, environment);
    if (name === "capitalize") return toValue(capitalize(pythonText(operand)));
    if (name === "trim") {
      const characters =
        filter.args?.[0] === undefined ? null : this.evaluate(filter.args[0], environment).value;
      return toValue(strip(pythonText(operand), characters, true, true));
    }
    const { type, value } = operand;
    if (type === "UndefinedValue") return toValue(0);
    if (type === "StringValue") return toValue(Array.from(value as string).length);
    return super.evaluate(known(node, { operand }), environment);
  }

  #binary(node: Node, environment: JinjaEnvironment): JinjaValue | undefined {
    const operator = node.operator!.value;
    if (operator === "and" || operator === "or") return undefined;
    const left = this.evaluate(node.left, environment);
    const right = this.evaluate(node.right, environment);
    if (operator === "==" || operator === "!=") return toValue(equals(left, right) === (operator === "=="));
    if (operator === "~") return toValue(pythonText(left) + pythonText(right));
    if (operator === "+") addsText(left, right);
    return super.evaluate(known(node, { left, right }), environment);
  }

  #member(node: Node, environment: JinjaEnvironment): JinjaValue | undefined {
    if (!node.computed || node.property!.type === "SliceExpression") return undefined;
    const object = this.evaluate(node.object, environment);
    const property = this.evaluate(node.property, environment);
    if (object.type === "StringValue" && property.type === "IntegerValue") {
      return toValue(Array.from(object.value as string).at(property.value as number));
    }
    return super.evaluate(known(node, { object, property }), environment);
  }
}

/** `node` with operands that are evaluated already. */
function known(node: Node, operands: Record<string, JinjaValue>): JinjaNode {
  const nodes = Object.entries(operands).map(([name, value]) => [name, { type: "Known", known: value }]);
  return { ...node, ...Object.fromEntries(nodes) };
}
