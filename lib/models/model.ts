import { join } from "node:path";
import { SdpoError, show } from "../errors.js";
import type { Device } from "../native/device.js";
import {
  addon,
  asSdpoError,
  cancellable,
  type DType,
  guarded,
  type NativeModel,
  type NativeTape,
} from "../native/load.js";
import { run } from "../native/run.js";
import { Tensor } from "../native/tensor.js";
import { Tokenizer } from "../text/tokenizer.js";
import { checkConfig, checkOptions, checkPacked, checkTokenIds } from "./check.js";
import { type ModelConfig, ropeTables } from "./formats/config.js";
import { matrixShape, type TensorSource } from "./formats/files.js";
import { readGgufMetadata } from "./formats/gguf.js";
import { readModel } from "./formats/model-files.js";
import { expectedParameters } from "./formats/parameters.js";
import { exists } from "./formats/safetensors.js";
import { type GeneratedToken, type GenerateOptions, generateTokens, type Prompt } from "./generate.js";
import { type PackedSequences, packSequences } from "./packing.js";
import { saveModel } from "./save.js";

/** What a forward pass keeps for its backward pass; it can be used once. */
export interface Tape {
  readonly native: NativeTape;
}

export interface ForwardOptions {
  /** Which weights: "weight" (the default) or "teacher". */
  slot?: string;
  /** Keep what a backward pass needs. */
  keep?: boolean;
  /** Keep layer inputs only and compute the rest again in the backward pass: the same bits, less memory. */
  recompute?: boolean;
  signal?: AbortSignal | undefined;
}

/** A decoder with its weights on a device, its tokenizer, and generation. */
export class Model {
  readonly device: Device;
  readonly config: ModelConfig;
  /** Where the model was loaded from. */
  readonly path: string;
  /** Where a loaded model's tokenizer files lie: a folder, or the GGUF file; "" for one that was created. */
  readonly tokenizerPath: string;
  /** The dtype of the weights on the device. */
  readonly dtype: DType;
  readonly #tokenizer: Tokenizer | undefined;
  #native: NativeModel | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    device: Device,
    config: ModelConfig,
    source: { path: string; tokenizerPath: string },
    dtype: DType,
    tokenizer: Tokenizer | undefined,
  ) {
    this.device = device;
    this.config = config;
    this.path = source.path;
    this.tokenizerPath = source.tokenizerPath;
    this.dtype = dtype;
    this.#tokenizer = tokenizer;
    const { full, sliding } = ropeTables(config);
    const parameters = [...expectedParameters(config)].map(([name, shape]) => ({ name, shape }));
    this.#native = guarded(
      () =>
        new (addon().ModelHandle)(
          device.native,
          { ...config, ropeFull: full, ropeSliding: sliding },
          parameters,
        ),
    );
    guarded(() => this.native.addSlot("weight", dtype));
  }

  /**
   * Loads a Hugging Face folder, a `.safetensors` file beside its config.json, or a `.gguf` file (whose
   * quantised weights are widened).
   * @param options.dtype of the weights in memory; as stored by default (bf16, else f32)
   * @throws ERR_SDPO_FILE, ERR_SDPO_MODEL naming file, field, value and remedy
   */
  static async load(path: string, options: { device: Device; dtype?: "f32" | "bf16" }): Promise<Model> {
    if (typeof path !== "string" || path === "") {
      throw new SdpoError("ERR_SDPO_ARGUMENT", `path: expected a model's folder or file, got ${show(path)}`);
    }
    checkOptions(options);
    const { config, parameters, tokenizerPath } = await readModel(path);
    const stored = [...parameters.values()].every((source) => source.dtype === "BF16") ? "bf16" : "f32";
    const tokenizer = await loadTokenizer(tokenizerPath);
    const source = { path, tokenizerPath };
    const model = new Model(options.device, config, source, options.dtype ?? stored, tokenizer);
    try {
      for (const [name, source] of parameters) await model.#read(name, source);
    } catch (error) {
      model.dispose();
      throw error;
    }
    return model;
  }

  /** A model of this configuration with all weights 0, to be filled through {@link Model.parameter}; `save` writes its tokenizer. */
  static create(
    config: ModelConfig,
    options: { device: Device; dtype?: "f32" | "bf16"; tokenizer?: Tokenizer },
  ): Model {
    checkConfig(config);
    checkOptions(options);
    return new Model(
      options.device,
      config,
      { path: "", tokenizerPath: "" },
      options.dtype ?? "f32",
      options.tokenizer,
    );
  }

  /** @internal */
  get native(): NativeModel {
    if (!this.#native) throw new SdpoError("ERR_SDPO_DISPOSED", "the model has been disposed of");
    return this.#native;
  }

  get hasTokenizer(): boolean {
    return this.#tokenizer !== undefined;
  }

  /** The model's tokenizer. Throws ERR_SDPO_TEXT where its folder has none. */
  get tokenizer(): Tokenizer {
    if (this.#tokenizer) return this.#tokenizer;
    throw new SdpoError(
      "ERR_SDPO_TEXT",
      `${this.path || "this model"} has no tokenizer: token ids can be used, text cannot; load it from a folder with tokenizer.json`,
    );
  }

  /** The ids that end a completion: the model configuration's and the tokenizer's. */
  get eosTokenIds(): number[] {
    return [...new Set([...this.config.eosTokenIds, ...(this.#tokenizer?.eosTokenIds ?? [])])];
  }

  /** Names and shapes of all parameters. */
  get parameters(): { name: string; shape: number[] }[] {
    return this.native.parameters().map(({ name, shape }) => ({ name, shape }));
  }

  async #read(name: string, source: TensorSource): Promise<void> {
    const { dtype: type, fileSize, offset, bytes, pairedHeadDim = 0 } = source;
    const place = { type, fileSize, offset, bytes, pairedHeadDim, ...matrixShape(source) };
    try {
      await this.native.load("weight", name, source.file, place);
    } catch (error) {
      throw asSdpoError(error);
    }
  }

  /** A parameter of a slot ("weight", "teacher", "gradient", ...): a view of the model's memory. */
  parameter(slot: string, name: string): Tensor {
    return new Tensor(
      this.device,
      guarded(() => this.native.view(slot, name)),
    );
  }

  /** All parameters of a slot as one vector: "matrices" (weight decay applies to them) come before "vectors". */
  flat(slot: string, part: "all" | "matrices" | "vectors" = "all"): Tensor {
    return new Tensor(
      this.device,
      guarded(() => this.native.flat(slot, part)),
    );
  }

  /** The output matrix [V, D] of a slot; the embedding where they are tied. */
  head(slot = "weight"): Tensor {
    return new Tensor(
      this.device,
      guarded(() => this.native.head(slot)),
    );
  }

  addSlot(slot: string, dtype: DType = "f32"): void {
    guarded(() => this.native.addSlot(slot, dtype));
  }

  removeSlot(slot: string): void {
    guarded(() => this.native.removeSlot(slot));
  }

  hasSlot(slot: string): boolean {
    return this.native.hasSlot(slot);
  }

  /**
   * Final hidden states, normed, of the given rows of a packed batch.
   * @param rows packed rows, in any order, repeated where wanted
   * @returns hidden f32 [rows, D], and the tape where `keep` is set
   */
  async forward(
    packed: PackedSequences,
    rows: Int32Array,
    options: ForwardOptions = {},
  ): Promise<{ hidden: Tensor; tape?: Tape }> {
    checkPacked(packed, rows);
    const tensors = {
      ids: Tensor.from(this.device, packed.ids, [packed.ids.length]),
      positions: Tensor.from(this.device, packed.positions, [packed.positions.length]),
      segments: Tensor.from(this.device, packed.segments, [packed.segments.length / 4, 4]),
      rows: Tensor.from(this.device, rows, [rows.length]),
    };
    const batch = {
      ids: tensors.ids.native,
      positions: tensors.positions.native,
      segments: tensors.segments.native,
      rows: tensors.rows.native,
    };
    const settings = { keep: options.keep ?? false, recompute: options.recompute ?? false };
    try {
      const { hidden, tape } = await cancellable(options.signal, (cancel) =>
        this.native.forward(batch, options.slot ?? "weight", settings, cancel),
      );
      return { hidden: new Tensor(this.device, hidden), ...(tape && { tape: { native: tape } }) };
    } finally {
      for (const tensor of Object.values(tensors)) tensor.dispose();
    }
  }

  /** Adds the gradients of all parameters but the head's to slot "gradient", from d loss / d hidden [rows, D]. */
  async backwardHidden(
    tape: Tape,
    dHidden: Tensor,
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<void> {
    await cancellable(options.signal, (cancel) => this.native.backward(tape.native, dHidden.native, cancel));
  }

  /** Frees what a forward pass kept, where no backward pass follows. */
  releaseTape(tape: Tape): void {
    this.native.release(tape.native);
  }

  /** Next-token logits of every position: for each sequence a Float32Array [T, V]. */
  async logits(
    sequences: readonly ArrayLike<number>[],
    options: ForwardOptions = {},
  ): Promise<Float32Array[]> {
    const packed = packSequences(this.#checkIds(sequences));
    const all = Int32Array.from({ length: packed.ids.length }, (_, i) => i);
    const { hidden } = await this.forward(packed, all, { ...options, keep: false });
    using rowsOfAll = hidden;
    using head = this.head(options?.slot);
    const out: Float32Array[] = [];
    for (const rows of packed.rows) {
      using index = Tensor.from(this.device, rows, [rows.length]);
      using y = (await run(this.device, "gather_rows", { x: rowsOfAll, index })).y;
      using c = (await run(this.device, "matmul", { a: y, b: head }, { transposeB: true })).c;
      out.push(await c.readFloats());
    }
    return out;
  }

  /**
   * Mean next-token cross entropy over all predictions of all sequences, and its gradient for every
   * parameter by Hugging Face name (that of tied embeddings holds both uses).
   */
  async backward(
    sequences: readonly ArrayLike<number>[],
    options: { recompute?: boolean; share?: boolean } = {},
  ): Promise<{ loss: number; gradients: Map<string, Float32Array> }> {
    const ids = this.#checkIds(sequences);
    const turn = this.#turn.then(() => this.#crossEntropyGradient(ids, options));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #crossEntropyGradient(ids: Int32Array[], options: { recompute?: boolean; share?: boolean }) {
    const packed = packSequences(ids, options?.share ?? true);
    const rows = Int32Array.from(packed.rows.flatMap((r) => [...r.subarray(0, -1)]));
    const targets = Int32Array.from(ids.flatMap((sequence) => [...sequence.subarray(1)]));
    const n = targets.length;
    if (n === 0) {
      const problem = "backward: no sequence has two tokens, so there is nothing to predict";
      throw new SdpoError("ERR_SDPO_ARGUMENT", problem);
    }
    await this.zeroGradient();
    const { recompute = false } = options ?? {};
    const { hidden, tape } = await this.forward(packed, rows, { keep: true, recompute });
    const inputs = {
      hidden,
      head: this.head(),
      tokenIds: Tensor.from(this.device, targets, [n]),
      weights: Tensor.from(this.device, new Float32Array(n).fill(1), [n]),
      coefficients: Tensor.from(this.device, new Float32Array(n).fill(1 / n), [n]),
      dHead: this.head("gradient"),
    };
    const held: Tensor[] = Object.values(inputs);
    try {
      const outputs = await run(this.device, "linear_cross_entropy", inputs);
      held.push(...Object.values(outputs));
      await this.backwardHidden(tape!, outputs.dHidden!);
      const loss = (await outputs.tokenLoss.readFloats()).reduce((sum, x) => sum + x / n, 0);
      const gradients = new Map<string, Float32Array>();
      for (const { name } of this.parameters) {
        using gradient = this.parameter("gradient", name);
        gradients.set(name, await gradient.readFloats());
      }
      return { loss, gradients };
    } finally {
      this.releaseTape(tape!);
      for (const tensor of held) tensor.dispose();
    }
  }

  /** Makes slot "gradient" where there is none, and sets it to 0. */
  async zeroGradient(): Promise<void> {
    if (this.hasSlot("gradient")) await this.native.zeroSlot("gradient");
    else this.addSlot("gradient");
  }

  /**
   * Generates from a conversation or from token ids.
   * @yields each token as it is sampled: its id, the text that it completes, its logprob before truncation
   * @throws ERR_SDPO_ABORTED once the signal fires
   */
  async *generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GeneratedToken> {
    yield* generateTokens(this, prompt, options);
  }

  /**
   * Writes a Hugging Face folder (config.json, model.safetensors or shards, tokenizer files) that
   * transformers loads. Existing files of these names are replaced. Throws ERR_SDPO_FILE.
   */
  async save(folder: string, options: { slot?: string } = {}): Promise<void> {
    await saveModel(this, folder, options?.slot ?? "weight");
  }

  #checkIds(sequences: readonly ArrayLike<number>[]): Int32Array[] {
    if (!Array.isArray(sequences) || sequences.length === 0) {
      throw new SdpoError(
        "ERR_SDPO_ARGUMENT",
        `sequences: expected a list of token id lists, got ${show(sequences)}`,
      );
    }
    return sequences.map((sequence, i) => checkTokenIds(sequence, this.config.vocabSize, `sequences[${i}]`));
  }

  /** Frees the weights and every other slot. */
  dispose(): void {
    this.#native?.dispose();
    this.#native = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The tokenizer of a folder or GGUF file; undefined where there is none. */
export async function loadTokenizer(path: string): Promise<Tokenizer | undefined> {
  if (path.endsWith(".gguf")) {
    const metadata = await readGgufMetadata(path);
    return metadata["tokenizer.ggml.model"] === undefined ? undefined : Tokenizer.fromGguf(metadata, path);
  }
  return (await exists(join(path, "tokenizer.json"))) ? Tokenizer.load(path) : undefined;
}
