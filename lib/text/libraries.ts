/** What is used of the text libraries, typed here: their own declarations do not resolve under "nodenext". */
import * as jinja from "@huggingface/jinja";
import * as tokenizers from "@huggingface/tokenizers";

/** A value while a template runs; `type` is the library's class name, `value` the plain JavaScript value. */
export interface JinjaValue {
  readonly type: string;
  readonly value: unknown;
}

export interface JinjaNode {
  readonly type: string;
}

/** One scope of variables. */
export interface JinjaEnvironment {
  readonly variables: Map<string, JinjaValue>;
  /** Declares a variable from a plain value; throws where it is declared already. */
  set(name: string, value: unknown): JinjaValue;
  lookupVariable(name: string): JinjaValue;
}

export interface JinjaInterpreter {
  run(program: JinjaNode): JinjaValue;
  evaluate(node: JinjaNode | undefined, environment: JinjaEnvironment): JinjaValue;
}

interface Libraries {
  readonly Environment: new () => JinjaEnvironment;
  readonly Interpreter: new (environment: JinjaEnvironment) => JinjaInterpreter;
  readonly tokenize: (source: string, options: { trim_blocks: boolean; lstrip_blocks: boolean }) => unknown[];
  readonly parse: (tokens: unknown[]) => JinjaNode;
  /** `pattern` is the JavaScript form of an Oniguruma pattern. */
  readonly SplitPreTokenizer: new (
    config: object,
  ) => { readonly pattern: RegExp };
}

export const { Environment, Interpreter, tokenize, parse, SplitPreTokenizer } = {
  ...jinja,
  ...tokenizers,
} as unknown as Libraries;
