/** Token budgets: texts cut to a number of tokens. */
import { SdpoError, show } from "../errors.js";
import type { Tokenizer } from "./tokenizer.js";

/**
 * The longest beginning of `text`, at most to a token's end and never inside a character, that together with `marker`
 * encodes to at most `maxTokens` tokens. A text that fits is returned as it is, without the marker; where not even the
 * marker fits, nothing is left. Throws ERR_SDPO_TEXT for a `maxTokens` that is not a whole number from 0.
 */
export function truncateToTokens(tokenizer: Tokenizer, text: string, maxTokens: number, marker = ""): string {
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 0) {
    throw new SdpoError("ERR_SDPO_TEXT", `maxTokens is ${show(maxTokens)}; it must be a whole number from 0`);
  }
  const ids = tokenizer.encode(text);
  if (ids.length <= maxTokens) return text;
  for (let kept = maxTokens; kept >= 0; kept--) {
    const stream = tokenizer.stream();
    const start = Array.from(ids.subarray(0, kept), (id) => stream.push(id)).join("");
    const shortened = start + marker;
    if (tokenizer.encode(shortened).length <= maxTokens) return shortened;
  }
  return "";
}
