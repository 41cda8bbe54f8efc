import { SdpoError, show } from "../errors.js";
import { Device } from "../native/device.js";
import { Tokenizer } from "../text/tokenizer.js";
import { type ModelConfig, parseModelConfig, toHfConfig } from "./formats/config.js";
import type { PackedSequences } from "./packing.js";

function argumentError(name: string, expected: string, value: unknown): SdpoError {
  return new SdpoError("ERR_SDPO_ARGUMENT", `${name}: expected ${expected}, got ${show(value)}`);
}

/** The options with which models are loaded and created. Throws ERR_SDPO_ARGUMENT. */
export function checkOptions(options: { device: Device; dtype?: unknown; tokenizer?: unknown }): void {
  if (!(options?.device instanceof Device))
    throw argumentError("device", "what openDevice gives", options?.device);
  const { dtype, tokenizer } = options;
  if (dtype !== undefined && dtype !== "f32" && dtype !== "bf16")
    throw argumentError("dtype", '"f32" or "bf16"', dtype);
  if (tokenizer !== undefined && !(tokenizer instanceof Tokenizer))
    throw argumentError("tokenizer", "a Tokenizer", tokenizer);
}

/** Throws ERR_SDPO_MODEL for what is no complete configuration, or one that this engine does not compute. */
export function checkConfig(config: ModelConfig): void {
  try {
    parseModelConfig(toHfConfig(config), "config");
  } catch (cause) {
    if (cause instanceof SdpoError) throw cause;
    const expected = "expected a complete configuration, such as another model's `config`";
    throw new SdpoError("ERR_SDPO_MODEL", `config: ${expected}, got ${show(config)}`, { cause });
  }
}

/** The ids as an Int32Array of at least one. Throws ERR_SDPO_ARGUMENT naming the place and the value. */
export function checkTokenIds(ids: ArrayLike<number>, vocabSize: number, what: string): Int32Array {
  if (typeof ids !== "object" || ids === null || !(ids.length > 0)) {
    throw new SdpoError("ERR_SDPO_ARGUMENT", `${what}: expected at least one token id, got ${show(ids)}`);
  }
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new SdpoError(
        "ERR_SDPO_ARGUMENT",
        `${what}[${i}]: token id ${show(id)} is not in [0, ${vocabSize})`,
      );
    }
  }
  return Int32Array.from(ids);
}

/** Throws ERR_SDPO_ARGUMENT where a packed batch, or the rows asked of it, are of other types. */
export function checkPacked(packed: PackedSequences, rows: Int32Array): void {
  for (const name of ["ids", "positions", "segments"] as const) {
    const value = packed?.[name];
    if (!(value instanceof Int32Array))
      throw argumentError(`packed.${name}`, "an Int32Array, as packSequences gives", value);
  }
  if (!(rows instanceof Int32Array)) throw argumentError("rows", "an Int32Array", rows);
}
