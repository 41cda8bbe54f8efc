/**
 * Chat templates, rendered so that only the template's own text can become special tokens.
 *
 * Before rendering, every special token in the template's literals (and in bos_token and the like) is replaced by a
 * private character that occurs in none of the inputs; after rendering these characters, and nothing else, are special
 * tokens. So neither a special token's text in a message nor one put together from a message and the template's text
 * beside it ("<" + name + ">") becomes special. A template that puts its special tokens together from pieces cannot be
 * told apart from that, and is refused.
 */
import { SdpoError, show } from "../errors.js";
import { parseJinja, renderJinja } from "./jinja.js";
import type { JinjaNode } from "./libraries.js";
import { escapeRegExp } from "./spec.js";

/** A message of a conversation. Templates may read further fields; whatever a message holds is passed on. */
export interface ChatMessage {
  readonly role: string;
  readonly content?: string | null | readonly unknown[];
  readonly name?: string;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly unknown[];
  readonly tool_call_id?: string;
}

/** Text as the template and its inputs wrote it, or the content of a special token that the template wrote. */
export type ChatPart = { readonly text: string } | { readonly special: string };

const FIRST_PRIVATE = 0xf0000;
const LAST_PRIVATE = 0x10fffd;
const MAX_NESTING = 64;
const PROBE = ["user", "assistant", "user"].map((role) => ({ role, content: "x" }));

export class ChatTemplate {
  readonly #source: string;
  readonly #where: string;
  readonly #specials: readonly string[];
  readonly #special: RegExp | undefined;
  readonly #variables: Record<string, string>;
  /** With marks from FIRST_PRIVATE. Parsed at first use, so that a model whose template cannot be read still loads. */
  #program: JinjaNode | undefined;
  #probed = false;

  /** `variables` are the template's own (bos_token, ...); they may hold special tokens. */
  constructor(source: string, specials: readonly string[], variables: Record<string, string>, where: string) {
    this.#source = source;
    this.#where = where;
    this.#specials = [...specials].sort((a, b) => b.length - a.length);
    const pattern = this.#specials.map(escapeRegExp).join("|");
    this.#special = specials.length > 0 ? new RegExp(pattern, "g") : undefined;
    this.#variables = variables;
  }

  /**
   * Renders `inputs` (messages, tools and other variables): JSON values, of which none can write a special token.
   * Throws ERR_SDPO_TEXT where the template's syntax is wrong, it refuses the inputs, or it exceeds a limit.
   */
  render(inputs: Record<string, unknown>): ChatPart[] {
    this.#probe();
    return this.#render(inputs);
  }

  #render(inputs: Record<string, unknown>): ChatPart[] {
    const clean = cleanInput(inputs, "the template's inputs", 0) as Record<string, unknown>;
    const base = this.#freeBase(JSON.stringify(clean) + this.#source);
    const mark = (text: string) => this.#mark(text, base);
    const usual = base === FIRST_PRIVATE;
    const program = (usual ? this.#program : undefined) ?? parseJinja(this.#source, this.#where, mark);
    if (usual) this.#program = program;
    const own = Object.fromEntries(Object.entries(this.#variables).map(([name, text]) => [name, mark(text)]));
    const text = renderJinja(program, { ...own, ...clean }, this.#where);
    const marks = new RegExp(`(${privateRange(base, this.#specials.length)})`, "u");
    return text
      .split(marks)
      .map((piece, i) =>
        i % 2 === 1 ? { special: this.#specials[piece.codePointAt(0)! - base]! } : { text: piece },
      )
      .filter((part) => part.text !== "");
  }

  #mark(text: string, base: number): string {
    if (this.#special === undefined) return text;
    return text.replace(this.#special, (found) => String.fromCodePoint(base + this.#specials.indexOf(found)));
  }

  /** The first of a range of private characters, one per special token, of which `text` holds none. */
  #freeBase(text: string): number {
    const count = Math.max(1, this.#specials.length);
    for (let base = FIRST_PRIVATE; base + count <= LAST_PRIVATE; base += count) {
      if (!new RegExp(privateRange(base, count), "u").test(text)) return base;
    }
    throw new SdpoError(
      "ERR_SDPO_TEXT",
      `${this.#where}: the messages hold private characters (U+F0000 to U+10FFFD) all over; remove them`,
    );
  }

  /** Refuses a template that puts special tokens together from pieces: they would silently become plain text. */
  #probe(): void {
    if (this.#probed || this.#special === undefined) return;
    this.#probed = true;
    let parts: ChatPart[];
    try {
      parts = this.#render({ messages: PROBE, tools: null, documents: null, add_generation_prompt: true });
    } catch {
      return;
    }
    for (const part of parts) {
      const found = "text" in part ? part.text.match(this.#special)?.[0] : undefined;
      if (found === undefined) continue;
      this.#probed = false;
      throw new SdpoError(
        "ERR_SDPO_TEXT",
        `${this.#where}: puts the special token ${found} together from pieces, so it cannot be told from text in a ` +
          "message; write it in one piece",
      );
    }
  }
}

function privateRange(base: number, count: number): string {
  return `[\\u{${base.toString(16)}}-\\u{${(base + Math.max(1, count) - 1).toString(16)}}]`;
}

function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}

/** A copy with well-formed strings. Refuses what JSON does not have, and what is nested deeper than a message can be. */
function cleanInput(value: unknown, path: string, depth: number): unknown {
  const refuse = (need: string): never => {
    throw new SdpoError("ERR_SDPO_TEXT", `${path} is ${show(value)}; ${need}`);
  };
  if (depth > MAX_NESTING) refuse(`at most ${MAX_NESTING} levels of nesting are taken`);
  if (typeof value === "string") return wellFormed(value);
  if (value === null || value === undefined || typeof value === "boolean") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : refuse("it must be finite");
  if (Array.isArray(value)) return value.map((item, i) => cleanInput(item, `${path}[${i}]`, depth + 1));
  if (typeof value !== "object" || ![Object.prototype, null].includes(Object.getPrototypeOf(value))) {
    return refuse("only JSON values can be rendered");
  }
  const entries = Object.entries(value);
  return Object.fromEntries(
    entries.map(([key, item]) => [
      wellFormed(key),
      cleanInput(item, depth === 0 ? key : `${path}.${key}`, depth + 1),
    ]),
  );
}
