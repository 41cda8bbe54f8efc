import { SdpoError, show } from "../errors.js";
import { addon, guarded, type NativeDevice } from "./load.js";
import type { OpName } from "./ops.generated.js";

/** A device's memory in bytes: in live tensors now, the most of that so far, and held from the system. */
export interface DeviceMemory {
  current: number;
  peak: number;
  reserved: number;
}

/** A device with a work thread of its own. Closed by `dispose()` or `using`. */
export class Device {
  readonly name: string;
  #native: NativeDevice | undefined;

  /** @internal */
  constructor(native: NativeDevice) {
    this.#native = native;
    this.name = native.name();
  }

  /** @internal */
  get native(): NativeDevice {
    if (!this.#native)
      throw new SdpoError("ERR_SDPO_DISPOSED", `the device '${this.name}' has been disposed of`);
    return this.#native;
  }

  /** One line: kind, instruction set or GPU, threads, GEMM; where "auto" took the CPU, why. */
  get description(): string {
    return this.native.description();
  }

  /** Has this device a kernel for the op? The CPU has one for every op. */
  supports(op: OpName): boolean {
    return this.native.supports(op);
  }

  memory(): DeviceMemory {
    return this.native.memory();
  }

  /** Starts `memory().peak` anew from what is in use. */
  resetPeakMemory(): void {
    this.native.resetPeak();
  }

  /** Gives memory that is held but not in use back to the system. */
  trim(): void {
    this.native.trim();
  }

  /** Lets go of the device; tensors that are alive keep what they need. */
  dispose(): void {
    this.#native?.dispose();
    this.#native = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Opens a device: "cpu", "cuda", "cuda:<index>", "simt", or "auto": cuda where it runs every op, else
 * cpu, whose description then says why.
 * @throws ERR_SDPO_DEVICE with the reason where the device cannot run; there is no silent fallback.
 */
export async function openDevice(name = "auto"): Promise<Device> {
  if (typeof name !== "string") {
    throw new SdpoError(
      "ERR_SDPO_DEVICE",
      `device: expected auto, cpu, cuda, cuda:<index> or simt, got ${show(name)}`,
    );
  }
  return new Device(guarded(() => new (addon().DeviceHandle)(name)));
}
