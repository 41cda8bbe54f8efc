import { nearestName, SdpoError, show } from "../errors.js";
import { Device } from "../native/device.js";
import { Tensor } from "../native/tensor.js";

type FlatValues = Float32Array | Float64Array | Int32Array | Uint8Array | readonly (number | boolean)[];

/** Numbers of shape [B,T] or [B]: flat and row-major, nested, or a Tensor. */
export type HostValues = FlatValues | readonly FlatValues[] | Tensor;

/** Logits or hidden states: a Float32Array, or a Tensor of f32 or bf16 that carries its shape. */
export type FloatValues = Float32Array | Tensor;

/** An argument that is not what it should be. */
export function refuse(name: string, expected: string, given: unknown): SdpoError {
  const text = given instanceof Tensor ? `a Tensor ${given.dtype} [${given.shape}]` : show(given);
  return new SdpoError("ERR_SDPO_ARGUMENT", `${name}: expected ${expected}, got ${text}`);
}

export function checkDevice(device: unknown): asserts device is Device {
  if (!(device instanceof Device)) throw refuse("device", "a Device (openDevice)", device);
}

/** Refuses what is no object, or has keys that are not among `known`. */
export function checkKeys(name: string, given: unknown, known: readonly string[]): void {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw refuse(name, `an object with some of ${known.join(", ")}`, given);
  }
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue;
    const near = nearestName(key, known);
    throw new SdpoError(
      "ERR_SDPO_ARGUMENT",
      `${name}: no argument is named '${key}'${near ? `; did you mean '${near}'?` : `; there are: ${known.join(", ")}`}`,
    );
  }
}

export function checkChoice<T extends string>(name: string, value: unknown, choices: readonly T[]): T {
  if (choices.includes(value as T)) return value as T;
  throw refuse(name, choices.map((choice) => `"${choice}"`).join(" | "), value);
}

export function checkBoolean(name: string, value: unknown): boolean {
  if (typeof value === "boolean") return value;
  throw refuse(name, "true or false", value);
}

/** A finite number in [least, most], or in (least, most] where `above`. */
export function checkNumber(
  name: string,
  value: unknown,
  { least = -Infinity, most = Infinity, above = false, integer = false } = {},
): number {
  const good =
    typeof value === "number" &&
    Number.isFinite(value) &&
    (above ? value > least : value >= least) &&
    value <= most &&
    (!integer || Number.isInteger(value));
  if (good) return value;
  const kind = integer ? "an integer" : "a number";
  const low = above ? `above ${least}` : Number.isFinite(least) ? `from ${least}` : "";
  const high = Number.isFinite(most) ? `to ${most}` : "";
  throw refuse(name, [kind, low, high].filter(Boolean).join(" "), value);
}

const isNested = (value: unknown): value is readonly FlatValues[] =>
  Array.isArray(value) && value.length > 0 && typeof value[0] === "object";

/** The shape a [B,T] argument shows by itself, if it does. */
export function shapeOf(value: unknown): readonly number[] | undefined {
  if (value instanceof Tensor) return value.shape;
  return isNested(value) ? [value.length, value[0]!.length] : undefined;
}

/** The numbers of an argument of the given shape, row-major, read from the device where it is a Tensor. */
export async function hostNumbers(
  name: string,
  value: unknown,
  shape: readonly number[],
): Promise<ArrayLike<number>> {
  const expected = `${shape.reduce((product, n) => product * n, 1)} numbers of shape [${shape}]`;
  if (value instanceof Tensor) {
    if (String(value.shape) !== String(shape)) throw refuse(name, `a Tensor [${shape}]`, value);
    return value.read();
  }
  let flat: ArrayLike<unknown>;
  if (isNested(value)) {
    const ragged = value.find((row) => row?.length !== shape[1]);
    if (shape.length !== 2 || value.length !== shape[0] || ragged !== undefined)
      throw refuse(name, expected, ragged ?? value);
    flat = value.flatMap((row) => Array.from(row as ArrayLike<number>));
  } else if (Array.isArray(value) || (ArrayBuffer.isView(value) && "length" in value)) {
    flat = value as unknown as ArrayLike<unknown>;
  } else {
    throw refuse(name, expected, value);
  }
  const count = shape.reduce((product, n) => product * n, 1);
  if (flat.length !== count) throw refuse(name, expected, value);
  const numbers = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const item = flat[i];
    if (typeof item !== "number" && typeof item !== "boolean")
      throw refuse(`${name}[${i}]`, "a number", item);
    numbers[i] = Number(item);
  }
  return numbers;
}

/** As {@link hostNumbers}, each 0 or 1. */
export async function hostMask(
  name: string,
  value: unknown,
  shape: readonly number[],
): Promise<ArrayLike<number>> {
  const numbers = await hostNumbers(name, value, shape);
  for (let i = 0; i < numbers.length; i++)
    if (numbers[i] !== 0 && numbers[i] !== 1) throw refuse(`${name}[${i}]`, "0 or 1", numbers[i]);
  return numbers;
}

/** As {@link hostNumbers}, each a token of a vocabulary of v. */
export async function hostTokens(name: string, value: unknown, shape: readonly number[], v: number) {
  const numbers = await hostNumbers(name, value, shape);
  for (let i = 0; i < numbers.length; i++) {
    const id = numbers[i]!;
    if (!Number.isInteger(id) || id < 0 || id >= v)
      throw refuse(`${name}[${i}]`, `a token id from 0 to ${v - 1}`, id);
  }
  return Int32Array.from(numbers);
}

/**
 * The factor of each token's loss: the mask times the rollout and token weights given.
 * What stands at masked tokens does not matter.
 */
export async function tokenWeightsOf(
  given: { rolloutWeights?: HostValues; tokenWeights?: HostValues },
  mask: ArrayLike<number>,
  shape: readonly [number, number],
): Promise<Float64Array> {
  const { rolloutWeights, tokenWeights } = given;
  const rollout = rolloutWeights && (await hostNumbers("rolloutWeights", rolloutWeights, shape));
  const token = tokenWeights && (await hostNumbers("tokenWeights", tokenWeights, shape));
  return Float64Array.from(mask, (one, i) => {
    if (one === 0) return 0;
    const weight = (rollout ? rollout[i]! : 1) * (token ? token[i]! : 1);
    if (Number.isFinite(weight)) return weight;
    const name = rollout && !Number.isFinite(rollout[i]!) ? "rolloutWeights" : "tokenWeights";
    throw refuse(`${name}[${i}]`, "a finite number", weight);
  });
}

/** Collects the tensors of a call that its caller does not get, to let go of them at its end. */
export class Temporaries {
  readonly #tensors: Tensor[] = [];

  constructor(readonly device: Device) {}

  keep(tensor: Tensor): Tensor {
    this.#tensors.push(tensor);
    return tensor;
  }

  floats(values: ArrayLike<number>): Tensor {
    return this.keep(Tensor.from(this.device, Float32Array.from(values), [values.length]));
  }

  /** A [rows, columns] view or copy of a float argument whose full shape is `shape`. */
  matrix(name: string, value: unknown, shape: readonly number[]): Tensor {
    const columns = shape.at(-1)!;
    const count = shape.reduce((product, n) => product * n, 1);
    const rows = columns === 0 ? 0 : count / columns;
    if (value instanceof Tensor) {
      const fits = String(value.shape) === String(shape) || String(value.shape) === String([rows, columns]);
      if (!fits || (value.dtype !== "f32" && value.dtype !== "bf16"))
        throw refuse(name, `a Tensor f32|bf16 [${shape}]`, value);
      if (value.device !== this.device) {
        throw refuse(name, `a Tensor on the device '${this.device.name}'`, value);
      }
      return this.keep(value.reshape([rows, columns]));
    }
    if (!(value instanceof Float32Array) || value.length !== count) {
      throw refuse(name, `a Tensor or a Float32Array of ${count} elements of shape [${shape}]`, value);
    }
    return this.keep(Tensor.from(this.device, value, [rows, columns]));
  }

  dispose(): void {
    for (const tensor of this.#tensors) tensor.dispose();
  }
}

/** The same elements in another shape; the handle given is let go of. */
export function reshaped(tensor: Tensor, shape: readonly number[]): Tensor {
  const view = tensor.reshape(shape);
  tensor.dispose();
  return view;
}

/**
 * [B,T,V] from `shape`, from logits that are a Tensor, or from a [B,T] argument that is nested or a Tensor.
 * @param elements of logits [B,T,V], where they are a typed array
 */
export function batchShape(
  name: string,
  given: unknown,
  logits: unknown,
  perToken: readonly unknown[],
): [number, number, number] {
  if (given !== undefined) {
    const good =
      Array.isArray(given) && given.length === 3 && given.every((n) => Number.isInteger(n) && n >= 0);
    if (!good) throw refuse("shape", "[B,T,V], three sizes", given);
    return given as [number, number, number];
  }
  if (logits instanceof Tensor) {
    if (logits.shape.length === 3) return [...logits.shape] as [number, number, number];
    throw refuse(name, "a Tensor [B,T,V], or `shape: [B,T,V]` beside it", logits);
  }
  const shape = perToken.map(shapeOf).find((found) => found?.length === 2);
  const elements = logits instanceof Float32Array ? logits.length : Number.NaN;
  const v = shape ? elements / (shape[0]! * shape[1]!) : Number.NaN;
  if (shape && Number.isInteger(v)) return [shape[0]!, shape[1]!, v];
  if (!(logits instanceof Float32Array)) throw refuse(name, "a Float32Array or a Tensor [B,T,V]", logits);
  throw refuse(
    "shape",
    `[B,T,V] with product ${elements} (a typed array does not show its shape; a Tensor, or nested tokenIds, would)`,
    given ?? shape,
  );
}
