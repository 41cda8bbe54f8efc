import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { SdpoError, type SdpoErrorCode } from "../errors.js";

/** A device tensor as the addon holds it; {@link Tensor} is what users see. */
export interface NativeTensor {
  shape(): number[];
  dtype(): DType;
  read(device: NativeDevice): Promise<ArrayBuffer>;
  rows(begin: number, end: number): NativeTensor;
  reshape(shape: number[]): NativeTensor;
  dispose(): void;
}

export interface NativeDevice {
  name(): string;
  description(): string;
  supports(op: string): boolean;
  memory(): { current: number; peak: number; reserved: number };
  resetPeak(): void;
  trim(): void;
  fromHost(data: ArrayBufferView, dtype: DType, shape: readonly number[]): NativeTensor;
  zeros(dtype: DType, shape: readonly number[]): NativeTensor;
  run(
    op: string,
    inputs: (NativeTensor | null)[],
    attributes: Float64Array,
    cancel?: object,
  ): Promise<(NativeTensor | null)[]>;
  dispose(): void;
}

/** Native objects that are only passed around. */
export type NativeTape = object & { readonly kind?: "tape" };
export type NativeCache = object & { readonly kind?: "cache" };

export interface NativePackedBatch {
  ids: NativeTensor;
  positions: NativeTensor;
  segments: NativeTensor;
  rows: NativeTensor;
}

export interface NativeCachedBatch {
  ids: NativeTensor;
  positions: NativeTensor;
  slots: NativeTensor;
  rows: NativeTensor;
  pageStarts: NativeTensor;
  pages: NativeTensor;
  wanted: NativeTensor;
}

/** Parameters in slots, and the decoder over them. */
export interface NativeModel {
  addSlot(slot: string, dtype: DType): void;
  removeSlot(slot: string): void;
  zeroSlot(slot: string): Promise<void>;
  hasSlot(slot: string): boolean;
  parameters(): { name: string; shape: number[]; offset: number }[];
  flat(slot: string, part: "all" | "matrices" | "vectors"): NativeTensor;
  view(slot: string, name: string): NativeTensor;
  head(slot: string): NativeTensor;
  load(slot: string, name: string, path: string, source: object): Promise<void>;
  forward(
    batch: NativePackedBatch,
    slot: string,
    options: { keep: boolean; recompute: boolean },
    cancel?: object,
  ): Promise<{ hidden: NativeTensor; tape?: NativeTape }>;
  backward(tape: NativeTape, dHidden: NativeTensor, cancel?: object): Promise<void>;
  makeCache(pages: number, pageTokens: number): NativeCache;
  forwardCached(
    batch: NativeCachedBatch,
    slot: string,
    cache: NativeCache,
    cancel?: object,
  ): Promise<NativeTensor>;
  /** Lets go of a tape or cache at once; work in flight keeps what it needs. */
  release(held: NativeTape | NativeCache): void;
  dispose(): void;
}

export interface TensorSchema {
  name: string;
  dtypes: DType[];
  shape: string[];
  optional: boolean;
}

export interface AttributeSchema {
  name: string;
  kind: "number" | "integer" | "boolean" | "choice";
  fallback: number;
  least: number;
  most: number;
  nullable: boolean;
  choices: string[];
}

export interface OpSchema {
  name: string;
  inputs: TensorSchema[];
  outputs: TensorSchema[];
  attributes: AttributeSchema[];
}

/** What was built and what this processor runs. */
export interface BuildInfo {
  version: string;
  instructionSet: string;
  instructionSets: string[];
  threads: number;
  gemm: string;
}

export interface Addon {
  DeviceHandle: new (name: string) => NativeDevice;
  ModelHandle: new (device: NativeDevice, config: object, parameters: object[]) => NativeModel;
  newCancelFlag(): object;
  cancel(flag: object): void;
  schemas(): OpSchema[];
  buildInfo(): BuildInfo;
  backends(): { name: string; available: boolean; detail: string }[];
  setInstructionSet(name: string): void;
  setThreads(count: number): void;
  setGemm(name: "fastest" | "builtin" | "onednn" | "bf16"): void;
}

/** Element types of device tensors. */
export type DType = "f32" | "bf16" | "i32" | "u8";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** The command that builds the addon again, whatever was built before. */
export const BUILD_COMMAND = `node ${join(root, "native/build.mjs")}`;
let loaded: Addon | undefined;

/** The native addon; loaded once for each thread. Throws ERR_SDPO_DEVICE where it is missing or stale. */
export function addon(): Addon {
  if (loaded) return loaded;
  const require = createRequire(import.meta.url);
  const { version } = require(`${root}/package.json`) as { version: string };
  let candidate: Addon;
  try {
    candidate = require("node-gyp-build")(root) as Addon;
  } catch (cause) {
    throw new SdpoError(
      "ERR_SDPO_DEVICE",
      `The native addon cannot be loaded from ${root}: ${(cause as Error).message.split("\n")[0]}. ` +
        `Build it with \`${BUILD_COMMAND}\`, as the install script does where npm runs it.`,
      { cause },
    );
  }
  const built = guarded(() => candidate.buildInfo()).version;
  if (built !== version) {
    throw new SdpoError(
      "ERR_SDPO_DEVICE",
      `The native addon was built for version ${built}, the package is ${version}. Build it again with \`${BUILD_COMMAND}\`.`,
    );
  }
  loaded = candidate;
  return candidate;
}

/** The addon's exceptions carry a code; this makes SdpoErrors of them. */
export function asSdpoError(error: unknown): unknown {
  const code = (error as { code?: unknown })?.code;
  if (error instanceof SdpoError || typeof code !== "string" || !code.startsWith("ERR_SDPO_")) return error;
  return new SdpoError(code as SdpoErrorCode, (error as Error).message, { cause: error });
}

/** Runs a synchronous call of the addon and turns its exceptions into SdpoErrors. */
export function guarded<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw asSdpoError(error);
  }
}

const cancelFlags = new WeakMap<AbortSignal, object>();

/** The native flag that a signal sets; one listener for each signal, however many jobs it may end. */
function cancelFlagOf(signal: AbortSignal): object {
  let flag = cancelFlags.get(signal);
  if (!flag) {
    const fresh = addon().newCancelFlag();
    signal.addEventListener("abort", () => addon().cancel(fresh), { once: true });
    cancelFlags.set(signal, fresh);
    flag = fresh;
  }
  return flag;
}

/**
 * Awaits a job of the addon that honours an AbortSignal between ops, and between the chunks of linear losses.
 * Rejects with ERR_SDPO_ABORTED, its cause the signal's reason, once the signal has fired.
 */
export async function cancellable<T>(
  signal: AbortSignal | undefined,
  start: (cancel: object | undefined) => Promise<T>,
): Promise<T> {
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new SdpoError("ERR_SDPO_ARGUMENT", "signal: expected an AbortSignal");
  }
  if (signal?.aborted) throw abortedError(signal);
  try {
    return await start(signal && cancelFlagOf(signal));
  } catch (error) {
    if (signal?.aborted && (error as { code?: string }).code === "ERR_SDPO_ABORTED")
      throw abortedError(signal);
    throw asSdpoError(error);
  }
}

/** The error that an aborted signal gives. */
export function abortedError(signal: AbortSignal): SdpoError {
  return new SdpoError("ERR_SDPO_ABORTED", "The operation was aborted by its AbortSignal.", {
    cause: signal.reason,
  });
}
