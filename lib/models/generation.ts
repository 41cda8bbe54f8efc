/**
 * Continuous batching over a paged KV cache. A prompt is computed once for all its rollouts, which see its
 * pages and write pages of their own; a rollout that ends makes room for the next. Sampling is keyed by (seed,
 * step, task, rollout, position), and every op gives a row the same bits whatever its neighbours are, so that a
 * rollout does not depend on what shares its batch.
 */
import { SdpoError } from "../errors.js";
import { cancellable, type NativeCache } from "../native/load.js";
import { run } from "../native/run.js";
import { Tensor } from "../native/tensor.js";
import type { TokenStream } from "../text/tokenizer.js";
import type { Model } from "./model.js";
import type { SamplingSettings } from "./sampling.js";

export type FinishReason = "stop" | "length" | "abort";

/** Rollouts wanted of one prompt. `task` and `rollouts` key their random numbers. */
export interface GenerationRequest {
  prompt: Int32Array;
  task: number;
  rollouts: readonly number[];
}

export interface EngineOptions extends SamplingSettings {
  /** Which weights: "weight" or "teacher". */
  slot: string;
  /** Keys the random numbers along with the seed: a training step. */
  step: number;
  /** Rollouts computed at the same time. */
  batchSize: number;
  signal: AbortSignal | undefined;
}

/** A rollout while it is generated, and when it is finished. */
export interface Generated {
  /** Index of the request. */
  request: number;
  rollout: number;
  /** Sampled ids, the end token included. */
  ids: number[];
  /** log softmax(z / temperature) of each id before truncation. */
  logprobs: number[];
  /** What the ids say, without end tokens and what follows a stop text. */
  text: string;
  finishReason: FinishReason | undefined;
}

interface PromptState {
  request: number;
  ids: Int32Array;
  pages: number[];
  lastHidden: Tensor;
  waiting: number[];
  active: number;
}

interface Active extends Generated {
  prompt: PromptState;
  pages: number[];
  stream: TokenStream | undefined;
}

const PAGE_TOKENS = 32;
const PREFILL_ROWS = 256;
const pagesFor = (tokens: number) => Math.ceil(tokens / PAGE_TOKENS);

export class GenerationEngine {
  readonly #model: Model;
  readonly #requests: readonly GenerationRequest[];
  readonly #options: EngineOptions;
  readonly #stops: ReadonlySet<number>;
  readonly #cache: NativeCache;
  readonly #free: number[];
  #nextRequest = 0;
  #current: PromptState | undefined;
  #active: Active[] = [];
  /** Prompt tokens computed, and prompt tokens that separate rollouts would have computed. */
  readonly prefill = { computed: 0, withoutSharing: 0 };

  constructor(model: Model, requests: readonly GenerationRequest[], options: EngineOptions) {
    this.#model = model;
    this.#requests = requests;
    this.#options = options;
    this.#stops = new Set(options.ignoreEos ? [] : model.eosTokenIds);
    if (options.stop.length > 0) model.tokenizer; // stop texts need one: throws where there is none
    const { maxPositions } = model.config;
    for (const { prompt } of requests) {
      if (prompt.length + options.maxTokens <= maxPositions) continue;
      throw new SdpoError(
        "ERR_SDPO_ARGUMENT",
        `a prompt of ${prompt.length} tokens and maxTokens ${options.maxTokens} exceed the model's ${maxPositions} positions; shorten one of them`,
      );
    }
    const rollouts = requests.reduce((sum, { rollouts }) => sum + rollouts.length, 0);
    const prompts = requests.map(({ prompt }) => pagesFor(prompt.length)).sort((a, b) => b - a);
    const promptPages = prompts.slice(0, options.batchSize + 1).reduce((a, b) => a + b, 0);
    const pages = promptPages + Math.min(rollouts, options.batchSize) * pagesFor(options.maxTokens);
    this.#cache = model.native.makeCache(Math.max(1, pages), PAGE_TOKENS);
    this.#free = Array.from({ length: pages }, (_, i) => pages - 1 - i);
  }

  /** Runs to the end, yielding after each step the rollouts that got a token; finished ones for the last time. */
  async *run(): AsyncGenerator<Generated[]> {
    try {
      for (;;) {
        const admitted = await this.#admit();
        if (admitted.length > 0) yield this.#retire(admitted);
        if (this.#active.length === 0) {
          if (admitted.length === 0) return;
          continue;
        }
        const decoded = [...this.#active];
        await this.#decode(decoded);
        yield this.#retire(decoded);
      }
    } finally {
      this.#current?.lastHidden.dispose();
      this.#model.native.release(this.#cache);
    }
  }

  /** Fills free places with waiting rollouts and draws their first token. */
  async #admit(): Promise<Active[]> {
    const admitted: Active[] = [];
    while (this.#active.length < this.#options.batchSize) {
      if (!this.#current && this.#nextRequest < this.#requests.length) {
        this.#current = await this.#prefillPrompt(this.#nextRequest++);
      }
      const prompt = this.#current;
      if (!prompt) break;
      const room = this.#options.batchSize - this.#active.length;
      const batch = prompt.waiting.splice(0, room).map((rollout) => this.#start(prompt, rollout));
      prompt.active += batch.length;
      this.#active.push(...batch);
      admitted.push(...batch);
      if (batch.length > 0) await this.#sampleFirst(prompt, batch);
      if (prompt.waiting.length === 0) {
        prompt.lastHidden.dispose();
        this.#current = undefined;
        if (batch.length === 0) this.#free.push(...prompt.pages);
      }
    }
    return admitted;
  }

  #start(prompt: PromptState, rollout: number): Active {
    const stream = this.#model.hasTokenizer ? this.#model.tokenizer.stream() : undefined;
    const { request } = prompt;
    return {
      request,
      rollout,
      prompt,
      stream,
      ids: [],
      logprobs: [],
      text: "",
      pages: [],
      finishReason: undefined,
    };
  }

  async #prefillPrompt(request: number): Promise<PromptState> {
    const { prompt: ids, rollouts } = this.#requests[request]!;
    const pages = Array.from({ length: pagesFor(ids.length) }, () => this.#free.pop()!);
    let lastHidden: Tensor | undefined;
    for (let begin = 0; begin < ids.length; begin += PREFILL_ROWS) {
      const end = Math.min(ids.length, begin + PREFILL_ROWS);
      const rows = Array.from({ length: end - begin }, (_, i) => ({
        id: ids[begin + i]!,
        position: begin + i,
        slot: pages[Math.floor((begin + i) / PAGE_TOKENS)]! * PAGE_TOKENS + ((begin + i) % PAGE_TOKENS),
        sequence: 0,
      }));
      lastHidden?.dispose();
      lastHidden = await this.#forward(
        rows,
        [filledPages(pages, end)],
        end === ids.length ? [rows.length - 1] : [0],
      );
    }
    this.prefill.computed += ids.length;
    this.prefill.withoutSharing += ids.length * rollouts.length;
    return { request, ids, pages, lastHidden: lastHidden!, waiting: [...rollouts], active: 0 };
  }

  async #sampleFirst(prompt: PromptState, batch: Active[]): Promise<void> {
    using index = Tensor.from(this.#model.device, new Int32Array(batch.length), [batch.length]);
    const { y } = await run(this.#model.device, "gather_rows", { x: prompt.lastHidden, index });
    await this.#sample(y, batch);
  }

  /** Computes the last token of each rollout and draws the next one. */
  async #decode(batch: Active[]): Promise<void> {
    const rows = batch.map((active, sequence) => {
      const at = active.ids.length - 1;
      if (at % PAGE_TOKENS === 0) active.pages.push(this.#free.pop()!);
      return {
        id: active.ids[at]!,
        position: active.prompt.ids.length + at,
        slot: active.pages.at(-1)! * PAGE_TOKENS + (at % PAGE_TOKENS),
        sequence,
      };
    });
    const pages = batch.map(({ prompt, pages, ids }) => [
      ...filledPages(prompt.pages, prompt.ids.length),
      ...filledPages(pages, ids.length),
    ]);
    await this.#sample(
      await this.#forward(
        rows,
        pages,
        rows.map((_, i) => i),
      ),
      batch,
    );
  }

  /** Hidden states of the wanted rows; `pages`: for each sequence (page, tokens in it). */
  async #forward(
    rows: { id: number; position: number; slot: number; sequence: number }[],
    pages: (readonly [number, number])[][],
    wanted: number[],
  ): Promise<Tensor> {
    const starts = [0];
    for (const list of pages) starts.push(starts.at(-1)! + list.length);
    const i32 = (values: number[], shape?: number[]) =>
      Tensor.from(this.#model.device, Int32Array.from(values), shape ?? [values.length]);
    const tensors = {
      ids: i32(rows.map((row) => row.id)),
      positions: i32(rows.map((row) => row.position)),
      slots: i32(rows.map((row) => row.slot)),
      rows: i32(
        rows.flatMap((row) => [row.sequence, row.position + 1]),
        [rows.length, 2],
      ),
      pageStarts: i32(starts),
      pages: i32(pages.flat(2) as number[], [starts.at(-1)!, 2]),
      wanted: i32(wanted),
    };
    const batch = {
      ids: tensors.ids.native,
      positions: tensors.positions.native,
      slots: tensors.slots.native,
      rows: tensors.rows.native,
      pageStarts: tensors.pageStarts.native,
      pages: tensors.pages.native,
      wanted: tensors.wanted.native,
    };
    const { signal, slot } = this.#options;
    try {
      const hidden = await cancellable(signal, (cancel) =>
        this.#model.native.forwardCached(batch, slot, this.#cache, cancel),
      );
      return new Tensor(this.#model.device, hidden);
    } finally {
      for (const tensor of Object.values(tensors)) tensor.dispose();
    }
  }

  /** Draws a token for each rollout from its hidden state; disposes of hidden. */
  async #sample(hidden: Tensor, batch: Active[]): Promise<void> {
    const { device } = this.#model;
    const { temperature, topP, minP, topK, seed, step, signal, slot } = this.#options;
    const n = batch.length;
    const counters = batch.flatMap(({ request, rollout, ids }) => [
      ...[seed % 2 ** 32, Math.floor(seed / 2 ** 32) ^ step],
      ...[ids.length, rollout, this.#requests[request]!.task, step],
    ]);
    using parameters = Tensor.from(
      device,
      Float32Array.from(batch.flatMap(() => [temperature, topP, minP])),
      [n, 3],
    );
    using topKs = Tensor.from(device, new Int32Array(n).fill(topK), [n]);
    using keys = Tensor.from(
      device,
      Int32Array.from(counters, (x) => x | 0),
      [n, 6],
    );
    using head = this.#model.head(slot);
    using a = hidden;
    const product = { transposeB: true, rowInvariant: true };
    using logits = (await run(device, "matmul", { a, b: head }, product, { signal })).c;
    const inputs = { logits, parameters, topK: topKs, counters: keys };
    const outputs = await run(device, "sample", inputs, {}, { signal });
    using ids = outputs.ids;
    using logprobs = outputs.logprobs;
    const [drawn, logs] = [await ids.read(), await logprobs.readFloats()];
    batch.forEach((active, i) => {
      this.#append(active, drawn[i]!, logs[i]!);
    });
  }

  #append(active: Active, id: number, logprob: number): void {
    active.ids.push(id);
    active.logprobs.push(logprob);
    if (this.#stops.has(id)) active.finishReason = "stop";
    else if (active.stream && id < this.#model.tokenizer.vocabularySize)
      active.text += active.stream.push(id);
    const stopAt = firstStop(active.text, this.#options.stop);
    if (stopAt >= 0) {
      active.text = active.text.slice(0, stopAt);
      active.finishReason = "stop";
    } else if (!active.finishReason && active.ids.length >= this.#options.maxTokens) {
      active.finishReason = "length";
    }
    if (active.finishReason && stopAt < 0 && active.stream) active.text += active.stream.flush();
  }

  /** Frees what finished rollouts held; gives the batch back. */
  #retire(batch: Active[]): Active[] {
    for (const active of batch) {
      if (!active.finishReason) continue;
      this.#free.push(...active.pages);
      const { prompt } = active;
      if (--prompt.active === 0 && prompt.waiting.length === 0) this.#free.push(...prompt.pages);
    }
    this.#active = this.#active.filter((active) => !active.finishReason);
    return batch;
  }
}

/** (page, tokens in it) for the first `tokens` tokens. */
function filledPages(pages: readonly number[], tokens: number): (readonly [number, number])[] {
  return pages
    .slice(0, pagesFor(tokens))
    .map((page, i) => [page, Math.min(PAGE_TOKENS, tokens - i * PAGE_TOKENS)] as const);
}

/** Where the first stop text begins, or -1. */
function firstStop(text: string, stops: readonly string[]): number {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return found.length > 0 ? Math.min(...found) : -1;
}
