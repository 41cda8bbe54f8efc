import { nearestName, SdpoError, show } from "../errors.js";
import type { Completion } from "./types.js";

/** What an option may be: a kind of value, or the texts it may be. */
export type OptionRule = "boolean" | { integer: [low: number, high: number] } | { oneOf: readonly string[] };

function describe(rule: OptionRule): string {
  if (rule === "boolean") return "true or false";
  if ("oneOf" in rule) return rule.oneOf.map((text) => JSON.stringify(text)).join(" or ");
  return `an integer from ${rule.integer[0]} to ${rule.integer[1]}`;
}

function fits(value: unknown, rule: OptionRule): boolean {
  if (rule === "boolean") return typeof value === "boolean";
  if ("oneOf" in rule) return rule.oneOf.includes(value as string);
  return (
    Number.isSafeInteger(value) &&
    (value as number) >= rule.integer[0] &&
    (value as number) <= rule.integer[1]
  );
}

/**
 * Checks an environment's options by `rules`; a key that is undefined counts as left out.
 * Throws `ERR_SDPO_CONFIG` for an unknown key, with the nearest one, and for a value that does not fit.
 */
export function checkOptions(environment: string, options: unknown, rules: Record<string, OptionRule>): void {
  const refuse = (message: string) =>
    new SdpoError("ERR_SDPO_CONFIG", `environment ${environment}: ${message}`);
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw refuse(`options must be an object, got ${show(options)}`);
  }
  for (const [key, value] of Object.entries(options)) {
    if (!Object.hasOwn(rules, key)) {
      const near = nearestName(key, Object.keys(rules));
      const remedy = near
        ? `did you mean ${near}?`
        : `its options are ${Object.keys(rules).join(", ") || "none"}`;
      throw refuse(`unknown option ${show(key)}; ${remedy}`);
    }
    if (value !== undefined && !fits(value, rules[key]!)) {
      throw refuse(`option ${key} must be ${describe(rules[key]!)}, got ${show(value)}`);
    }
  }
}

/**
 * The completion's text. Throws `ERR_SDPO_ABORTED` after an abort, `ERR_SDPO_ENVIRONMENT` where there is no
 * text.
 */
export function completionText(environment: string, completion: Completion, signal?: AbortSignal): string {
  if (signal?.aborted) {
    throw new SdpoError("ERR_SDPO_ABORTED", `environment ${environment}: aborted`, { cause: signal.reason });
  }
  if (typeof completion?.text !== "string") {
    const got = show(completion?.text);
    throw new SdpoError(
      "ERR_SDPO_ENVIRONMENT",
      `environment ${environment}: completion.text must be a text, got ${got}`,
    );
  }
  return completion.text;
}
