import { SdpoError, show } from "../errors.js";
import { Device } from "./device.js";
import { asSdpoError, type DType, guarded, type NativeTensor } from "./load.js";

/** The arrays that hold host data: f32 and bf16 read as Float32Array, i32 as Int32Array, u8 as Uint8Array. */
export type HostArray = Float32Array | Int32Array | Uint8Array | Uint16Array;

const tensorLeaks = new FinalizationRegistry<NativeTensor>((native) => native.dispose());

/** Widens bfloat16 bits to float32. */
function widen(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
  return new Float32Array(wide.buffer);
}

function checkTarget(device: unknown, shape: unknown): void {
  if (!(device instanceof Device)) {
    throw new SdpoError("ERR_SDPO_ARGUMENT", `device: expected what openDevice gives, got ${show(device)}`);
  }
  checkShape(shape);
}

function checkShape(shape: unknown): void {
  if (!Array.isArray(shape))
    throw new SdpoError("ERR_SDPO_ARGUMENT", `shape: expected a list of sizes, got ${show(shape)}`);
}

function dtypeOf(data: unknown, wished: DType | undefined): DType {
  if (data instanceof Float32Array) return wished ?? "f32";
  if (data instanceof Int32Array) return wished ?? "i32";
  if (data instanceof Uint8Array) return wished ?? "u8";
  if (data instanceof Uint16Array && wished === "bf16") return "bf16";
  throw new SdpoError(
    "ERR_SDPO_ARGUMENT",
    `data: expected a Float32Array, Int32Array or Uint8Array (Uint16Array for bf16 bits), got ${show(data)}`,
  );
}

/** A tensor in a device's memory: contiguous, row-major. Freed by `dispose()`, by `using`, or when collected. */
export class Tensor {
  readonly device: Device;
  readonly shape: readonly number[];
  readonly dtype: DType;
  #native: NativeTensor | undefined;

  /** @internal */
  constructor(device: Device, native: NativeTensor) {
    this.device = device;
    this.#native = native;
    this.shape = native.shape();
    this.dtype = native.dtype();
    tensorLeaks.register(this, native, this);
  }

  /**
   * Copies host data to a device.
   * @param data row-major elements; the array may be changed or transferred afterwards
   * @param shape sizes, slowest first; their product is data's length
   * @param options.dtype "bf16" rounds a Float32Array to nearest even
   */
  static from(
    device: Device,
    data: HostArray,
    shape: readonly number[],
    options: { dtype?: DType } = {},
  ): Tensor {
    checkTarget(device, shape);
    const dtype = dtypeOf(data, options.dtype);
    return new Tensor(
      device,
      guarded(() => device.native.fromHost(data, dtype, [...shape])),
    );
  }

  /** A tensor of zeros. */
  static zeros(device: Device, shape: readonly number[], options: { dtype?: DType } = {}): Tensor {
    checkTarget(device, shape);
    return new Tensor(
      device,
      guarded(() => device.native.zeros(options.dtype ?? "f32", [...shape])),
    );
  }

  /** The number of elements. */
  get size(): number {
    return this.shape.reduce((product, n) => product * n, 1);
  }

  /** @internal */
  get native(): NativeTensor {
    if (!this.#native)
      throw new SdpoError("ERR_SDPO_DISPOSED", `the tensor [${this.shape}] has been disposed of`);
    return this.#native;
  }

  /** Copies the elements to the host as they are stored. */
  async readBytes(): Promise<ArrayBuffer> {
    try {
      return await this.native.read(this.device.native);
    } catch (error) {
      throw asSdpoError(error);
    }
  }

  /** Copies the elements to the host; bf16 is widened to float32. */
  async read(): Promise<Float32Array | Int32Array | Uint8Array> {
    const buffer = await this.readBytes();
    if (this.dtype === "i32") return new Int32Array(buffer);
    if (this.dtype === "u8") return new Uint8Array(buffer);
    return this.dtype === "bf16" ? widen(new Uint16Array(buffer)) : new Float32Array(buffer);
  }

  /** `read()` for a tensor that is known to hold floats. */
  async readFloats(): Promise<Float32Array> {
    return (await this.read()) as Float32Array;
  }

  /** Rows [begin, end) of the first dimension, sharing this tensor's memory. */
  rows(begin: number, end: number): Tensor {
    return new Tensor(
      this.device,
      guarded(() => this.native.rows(begin, end)),
    );
  }

  /** The same elements in another shape, sharing this tensor's memory. */
  reshape(shape: readonly number[]): Tensor {
    checkShape(shape);
    return new Tensor(
      this.device,
      guarded(() => this.native.reshape([...shape])),
    );
  }

  /** Lets go of the memory; work in flight keeps what it needs. */
  dispose(): void {
    this.#native?.dispose();
    this.#native = undefined;
    tensorLeaks.unregister(this);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
