import { SdpoError, show } from "../errors.js";
import type { ChatMessage } from "../text/tokenizer.js";
import { checkTokenIds } from "./check.js";
import { GenerationEngine } from "./generation.js";
import type { Model } from "./model.js";
import { checkSampling, refuseUnknownOptions, type SamplingOptions } from "./sampling.js";

/** What a model is asked: a conversation, or token ids as they are. */
export type Prompt = readonly ChatMessage[] | Int32Array | readonly number[];

export interface GenerateOptions extends SamplingOptions {
  signal?: AbortSignal | undefined;
}

/** A sampled token. `text` is what it completes: pieces concatenate to the completion; a stop text is left out. */
export interface GeneratedToken {
  id: number;
  text: string;
  logprob: number;
}

/** The prompt's ids: a conversation through the chat template with the assistant's header. */
export function promptIds(model: Model, prompt: Prompt): Int32Array {
  if (!ArrayBuffer.isView(prompt) && !Array.isArray(prompt)) {
    throw new SdpoError("ERR_SDPO_ARGUMENT", `prompt: expected messages or token ids, got ${show(prompt)}`);
  }
  const messages = prompt.length > 0 && typeof prompt[0] === "object";
  if (!messages) return checkTokenIds(prompt as ArrayLike<number>, model.config.vocabSize, "prompt");
  const { ids } = model.tokenizer.chat(prompt as readonly ChatMessage[], { addGenerationPrompt: true });
  return checkTokenIds(ids, model.config.vocabSize, "prompt");
}

/** See {@link Model.generate}. */
export async function* generateTokens(
  model: Model,
  prompt: Prompt,
  options: GenerateOptions,
): AsyncGenerator<GeneratedToken> {
  const settings = checkSampling(options);
  refuseUnknownOptions(options);
  const request = { prompt: promptIds(model, prompt), task: 0, rollouts: [0] };
  const engine = new GenerationEngine(model, [request], {
    ...settings,
    slot: "weight",
    step: 0,
    batchSize: 1,
    signal: options.signal,
  });
  // Text that may be the beginning of a stop text is held back until that is decided.
  const held = Math.max(0, ...settings.stop.map((stop) => stop.length - 1));
  let emitted = 0;
  for await (const [rollout] of engine.run()) {
    const { ids, logprobs, text, finishReason } = rollout!;
    const end = finishReason ? text.length : Math.max(emitted, text.length - held);
    yield { id: ids.at(-1)!, logprob: logprobs.at(-1)!, text: text.slice(emitted, end) };
    emitted = Math.max(emitted, end);
  }
}
