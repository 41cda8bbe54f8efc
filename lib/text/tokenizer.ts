/** The public face of text: ids from text and conversations, text from ids. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { SdpoError, show } from "../errors.js";
import { tokenBytes } from "./bpe.js";
import { decoderTokens, generationStops, namedTokens, templateSources, withSpecialTokens } from "./config.js";
import { Encoder } from "./encoder.js";
import { filesFromGguf, type TokenizerFiles } from "./gguf.js";
import { asArray, asObject, malformed, readJson, readText } from "./json.js";
import { type AddedToken, parseTokenizerJson, type TokenizerSpec } from "./spec.js";
import { type ChatMessage, type ChatPart, ChatTemplate } from "./template.js";

export type { TokenizerFiles } from "./gguf.js";
export type { ChatMessage } from "./template.js";

export interface ChatOptions {
  /** End with the header of the assistant's next message. False by default. */
  addGenerationPrompt?: boolean;
  /** Functions that may be called, as JSON schemas. */
  tools?: readonly unknown[];
  /** Any other variable of the template (enable_thinking, date_string, ...), under its own name. */
  [templateVariable: string]: unknown;
}

/** Ids to text piece by piece: `push` gives what is complete, `flush` the rest. Never half a character. */
export interface TokenStream {
  push(id: number): string;
  flush(): string;
}

const MAX_FILE_BYTES = 2 ** 28;
const BLANK = 32;

/** A byte-level BPE tokenizer, or one of whole words, with its chat template. Immutable. */
export class Tokenizer {
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | undefined;
  readonly padTokenId: number | undefined;
  /** @internal What it was made from: the folder of its files, or their contents. */
  readonly origin: string | TokenizerFiles;
  readonly #spec: TokenizerSpec;
  readonly #encoder: Encoder;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #added: ReadonlyMap<number, AddedToken>;
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #templates: ReadonlyMap<string, ChatTemplate>;
  readonly #identity: string;

  private constructor(files: TokenizerFiles, folder: string, origin: string | TokenizerFiles = files) {
    this.origin = origin;
    const at = (name: string) => join(folder, name);
    const configFile = at("tokenizer_config.json");
    const config = asObject(configFile, "the file", files.tokenizerConfig ?? {});
    const named = namedTokens(config, configFile);
    const further = decoderTokens(config, configFile);
    const spec = parseTokenizerJson(files.tokenizerJson, at("tokenizer.json"), further);
    const stops = generationStops(files.generationConfig, at("generation_config.json"), spec.tokens.length);
    this.#spec = withSpecialTokens(spec, config, configFile, stops);
    this.#encoder = new Encoder(this.#spec);
    this.#ids = new Map(this.#spec.tokens.flatMap((token, id) => (token === undefined ? [] : [[token, id]])));
    this.#added = new Map(this.#spec.addedTokens.map((token) => [token.id, token]));
    this.bosTokenId = this.#ids.get(named.bos_token ?? "");
    this.padTokenId = this.#ids.get(named.pad_token ?? "");
    const eos = this.#ids.get(named.eos_token ?? "");
    this.eosTokenIds = [...new Set(eos === undefined ? stops : [...stops, eos])];
    this.#checkUnknown(at("tokenizer.json"));
    const sources = templateSources(files.chatTemplate, at("chat_template.jinja"), config, configFile);
    const specials = this.#spec.addedTokens.filter((token) => token.special).map((token) => token.content);
    this.#templates = new Map(
      sources.map(({ name, source, where }) => [name, new ChatTemplate(source, specials, named, where)]),
    );
    this.#identity = JSON.stringify([named, sources.map(({ name, source }) => [name, source])]);
  }

  /**
   * Reads a model folder, or the tokenizer.json in one: tokenizer.json and, where there are, tokenizer_config.json,
   * chat_template.jinja (which wins over the configuration's chat_template) and generation_config.json.
   * Throws ERR_SDPO_FILE where a file is missing or malformed, ERR_SDPO_TEXT for a kind of tokenizer that is not supported.
   */
  static async load(path: string): Promise<Tokenizer> {
    if (typeof path !== "string")
      throw new SdpoError("ERR_SDPO_FILE", `path is ${show(path)}; it must be a string`);
    if (path.endsWith(".gguf")) {
      throw new SdpoError(
        "ERR_SDPO_FILE",
        `${path}: is a GGUF file; open it with Model.load, or pass its metadata on`,
      );
    }
    const isFolder = await stat(path).then(
      (stats) => stats.isDirectory(),
      () => false,
    );
    const folder = isFolder ? path : dirname(path);
    const at = (name: string) => join(folder, name);
    const file = isFolder ? at("tokenizer.json") : path;
    const tokenizerJson = await readJson(file, MAX_FILE_BYTES);
    const tokenizerConfig = await readJson(at("tokenizer_config.json"), MAX_FILE_BYTES, true);
    const chatTemplate = await readText(at("chat_template.jinja"), MAX_FILE_BYTES, true);
    const generationConfig = await readJson(at("generation_config.json"), MAX_FILE_BYTES, true);
    const files = { tokenizerJson, tokenizerConfig, chatTemplate, generationConfig };
    return new Tokenizer(files, folder, basename(file) === "tokenizer.json" ? folder : files);
  }

  /** From the files' parsed contents, not to be changed later. `folder` only names them in errors. Throws as {@link Tokenizer.load}. */
  static fromFiles(files: TokenizerFiles, folder = ""): Tokenizer {
    asObject(folder === "" ? "Tokenizer.fromFiles" : folder, "files", files);
    return new Tokenizer(files, folder);
  }

  /** From a GGUF file's metadata (`tokenizer.ggml.*`, `tokenizer.chat_template`). `file` names it in errors. */
  static fromGguf(metadata: Record<string, unknown>, file = "GGUF metadata"): Tokenizer {
    return new Tokenizer(filesFromGguf(asObject(file, "the metadata", metadata), file), file);
  }

  /** One more than the highest id. A model's embedding may have more rows; their ids have no text. */
  get vocabularySize(): number {
    return this.#spec.tokens.length;
  }

  /** SHA-256 (hexadecimal) over all that determines ids: vocabulary, merges, splitting, special tokens, templates. */
  get hash(): string {
    const { merges, ...rest } = this.#spec;
    const hash = createHash("sha256").update(JSON.stringify(rest)).update(this.#identity);
    return hash
      .update(Uint8Array.from(Buffer.from(merges.buffer, merges.byteOffset, merges.byteLength)))
      .digest("hex");
  }

  tokenToId(token: string): number | undefined {
    return this.#ids.get(token);
  }

  /** The token as tokenizer.json writes it (bytes in GPT-2's alphabet); undefined where no token has this id. */
  idToToken(id: number): string | undefined {
    return this.#spec.tokens[id];
  }

  /**
   * Ids of `text`. `special`: special tokens in the text are taken as such (never for text that users, tasks or models
   * wrote); added tokens that are not special always are. `addSpecialTokens`: with the post-processor's bos and eos.
   * Both are false by default. Lone surrogates are taken as U+FFFD, bytes without a token vanish.
   */
  encode(text: string, options: { special?: boolean; addSpecialTokens?: boolean } = {}): Int32Array {
    if (typeof text !== "string")
      throw new SdpoError("ERR_SDPO_TEXT", `text is ${show(text)}; it must be a string`);
    const ids = this.#encoder.encode(text, options?.special === true);
    if (options?.addSpecialTokens !== true) return Int32Array.from(ids);
    return Int32Array.from([...this.#spec.prefix, ...ids, ...this.#spec.suffix]);
  }

  /** Text of `ids`, whole words with a blank between them, without cleaning up spaces; each maximal bad byte sequence is one U+FFFD, an id without a token is empty. */
  decode(ids: ArrayLike<number>, options: { skipSpecial?: boolean } = {}): string {
    if (typeof ids !== "object" || ids === null || !Number.isInteger(ids.length)) {
      throw new SdpoError("ERR_SDPO_TEXT", `ids is ${show(ids)}; it must be an array of token ids`);
    }
    const bytes = Array.from(ids, this.#reader(options));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(bytes));
  }

  /** For ids that come one by one; the texts together are what {@link Tokenizer.decode} gives. */
  stream(options: { skipSpecial?: boolean } = {}): TokenStream {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const read = this.#reader(options);
    return {
      push: (id) => decoder.decode(read(id), { stream: true }),
      flush: () => decoder.decode(),
    };
  }

  /**
   * A conversation as the chat template writes it, and its ids, in which only the template's own special tokens are
   * special. Throws ERR_SDPO_TEXT where there is no template, where it refuses the messages (with its message), or where
   * it takes too many steps.
   */
  chat(messages: readonly ChatMessage[], options: ChatOptions = {}): { text: string; ids: Int32Array } {
    checkMessages(messages);
    const { addGenerationPrompt = false, tools = null, ...variables } = options ?? {};
    if (tools !== null) asArray("Tokenizer.chat", "tools", tools);
    const parts = this.#template(tools !== null).render({
      ...variables,
      messages,
      tools,
      documents: variables.documents ?? null,
      add_generation_prompt: addGenerationPrompt === true,
    });
    const text = parts.map((part) => ("text" in part ? part.text : part.special)).join("");
    return { text, ids: Int32Array.from(parts.flatMap((part) => this.#encodePart(part))) };
  }

  /** Refuses a tokenizer of words in which any unknown word begins or ends a text. */
  #checkUnknown(file: string): void {
    const { words, unknownId, tokens } = this.#spec;
    if (!words || ![this.bosTokenId, ...this.eosTokenIds].includes(unknownId)) return;
    const need = "text could begin or end a turn with it; give unknown words a token of their own";
    malformed(file, "model.unk_token", tokens[unknownId!], need);
  }

  #encodePart(part: ChatPart): number[] {
    return "text" in part ? this.#encoder.encode(part.text, false) : [this.#ids.get(part.special)!];
  }

  #template(withTools: boolean): ChatTemplate {
    const template =
      (withTools ? this.#templates.get("tool_use") : undefined) ?? this.#templates.get("default");
    if (template !== undefined) return template;
    const found = [...this.#templates.keys()].join(", ");
    const reason =
      found === ""
        ? "the model has no chat template"
        : `the model's chat templates are ${found}, none is "default"`;
    throw new SdpoError(
      "ERR_SDPO_TEXT",
      `${reason}; encode text instead, or add a chat_template.jinja to its folder`,
    );
  }

  /** The bytes of ids that come one after another. */
  #reader(options: { skipSpecial?: boolean }): (id: number) => Uint8Array {
    const skipSpecial = options?.skipSpecial === true;
    let between = false;
    return (id) => {
      const bytes = this.#bytesOf(id, skipSpecial);
      if (!this.#spec.words || bytes.length === 0) return bytes;
      if (between) return Uint8Array.of(BLANK, ...bytes);
      between = true;
      return bytes;
    };
  }

  #bytesOf(id: number, skipSpecial: boolean): Uint8Array {
    if (!Number.isInteger(id) || id < 0 || id >= this.vocabularySize) {
      throw new SdpoError(
        "ERR_SDPO_TEXT",
        `token id ${show(id)} is not a whole number from 0 to ${this.vocabularySize - 1}, the tokenizer's last`,
      );
    }
    const added = this.#added.get(id);
    if (skipSpecial && added?.special) return new Uint8Array();
    this.#bytes[id] ??= tokenBytes(this.#spec.tokens[id] ?? "", this.#spec.words || added !== undefined);
    return this.#bytes[id];
  }
}

function checkMessages(messages: unknown): void {
  const refuse = (field: string, value: unknown, need: string): never => {
    throw new SdpoError("ERR_SDPO_TEXT", `${field} is ${show(value)}; ${need}`);
  };
  if (!Array.isArray(messages)) refuse("messages", messages, "it must be an array of { role, content }");
  (messages as unknown[]).forEach((message, i) => {
    if (typeof message !== "object" || message === null)
      refuse(`messages[${i}]`, message, "it must be { role, content }");
    const { role, content } = message as Partial<ChatMessage>;
    if (typeof role !== "string") refuse(`messages[${i}].role`, role, "it must be a string");
    if (content != null && typeof content !== "string" && !Array.isArray(content)) {
      refuse(`messages[${i}].content`, content, "it must be a string, null or an array of parts");
    }
  });
}
