/** What tokenizer_config.json and generation_config.json say: special tokens, stop tokens, chat templates. */
import { SdpoError, show } from "../errors.js";
import { asIndex, asObject, asString, type Json } from "./json.js";
import type { TokenizerSpec } from "./spec.js";

const SPECIAL_NAMES = [
  "bos_token",
  "eos_token",
  "unk_token",
  "pad_token",
  "sep_token",
  "cls_token",
  "mask_token",
] as const;

/** The special tokens that the configuration names; each may be a string or an object with `content`. */
export function namedTokens(config: Json, file: string): Record<string, string> {
  const named = SPECIAL_NAMES.flatMap((name) => {
    const value = config[name];
    if (value == null) return [];
    const content = typeof value === "object" ? asObject(file, name, value).content : value;
    return [[name, asString(file, name, content)]];
  });
  return Object.fromEntries(named);
}

/** The configuration's added_tokens_decoder, in the form of tokenizer.json's added_tokens. */
export function decoderTokens(config: Json, file: string): unknown[] {
  const decoder = asObject(file, "added_tokens_decoder", config.added_tokens_decoder ?? {});
  return Object.entries(decoder).map(([id, token]) => ({
    ...asObject(file, `added_tokens_decoder[${id}]`, token),
    id: Number(id),
  }));
}

/** Makes the tokens that the configuration names special, and added ones that end a completion, whatever tokenizer.json says. */
export function withSpecialTokens(
  spec: TokenizerSpec,
  config: Json,
  file: string,
  stops: readonly number[],
): TokenizerSpec {
  const further = [config.additional_special_tokens, config.extra_special_tokens]
    .flatMap((list) => (typeof list === "object" && list !== null ? Object.values(list) : []))
    .map((token) => asString(file, "additional_special_tokens", (token as Json | null)?.content ?? token));
  const added = new Map(
    spec.addedTokens.map((token) => [
      token.content,
      { ...token, special: token.special || stops.includes(token.id) },
    ]),
  );
  for (const content of new Set([...Object.values(namedTokens(config, file)), ...further])) {
    const id = added.get(content)?.id ?? spec.tokens.indexOf(content);
    if (id < 0) {
      const message = `${file}: names the special token ${show(content)}, which tokenizer.json lacks; add it there`;
      throw new SdpoError("ERR_SDPO_FILE", message);
    }
    const usual = { normalized: false, inVocabulary: true };
    added.set(content, { ...usual, ...added.get(content), id, content, special: true });
  }
  return { ...spec, addedTokens: [...added.values()].sort((a, b) => a.id - b.id) };
}

/** generation_config.json's eos_token_id: none, one or several. */
export function generationStops(value: unknown, file: string, vocabularySize: number): number[] {
  const ids = asObject(file, "the file", value ?? {}).eos_token_id ?? [];
  return (Array.isArray(ids) ? ids : [ids]).map((id) => asIndex(file, "eos_token_id", id, vocabularySize));
}

/** A chat template's name and text; `where` is what errors call it. */
export interface TemplateSource {
  readonly name: string;
  readonly source: string;
  readonly where: string;
}

/** chat_template.jinja, or else the configuration's chat_template: one text, or a list of named ones. */
export function templateSources(template: unknown, templateFile: string, config: Json, configFile: string) {
  const source = (where: string, value: unknown, name = "default"): TemplateSource => ({
    name,
    source: asString(where, "the template", value),
    where,
  });
  if (template !== undefined) return [source(templateFile, template)];
  const value = config.chat_template;
  if (value == null) return [];
  if (!Array.isArray(value)) return [source(`${configFile}: chat_template`, value)];
  return value.map((entry, i) => {
    const field = `chat_template[${i}]`;
    const item = asObject(configFile, field, entry);
    return source(`${configFile}: ${field}`, item.template, asString(configFile, `${field}.name`, item.name));
  });
}
