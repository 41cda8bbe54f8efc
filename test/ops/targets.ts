// Where an op is tested: the CPU once for each instruction set, SIMT where it was built, CUDA where there is
// a GPU. SDPO_TEST_DEVICES=simt,cuda tests on those alone, and there a missing device is a failure.
import { type Device, openDevice } from "../../lib/native/device.js";
import { addon } from "../../lib/native/load.js";
import type { OpName } from "../../lib/native/ops.generated.js";

export interface Target {
  name: string;
  device: Device;
  /** Only on the CPU. */
  instructionSet?: string;
}

const wanted = process.env.SDPO_TEST_DEVICES?.split(",").filter(Boolean);

async function openOptional(name: string): Promise<Device[]> {
  if (wanted) return wanted.includes(name) ? [await openDevice(name)] : [];
  return addon()
    .backends()
    .some((backend) => backend.name === name && backend.available)
    ? [await openDevice(name)]
    : [];
}

const cpu = await openDevice("cpu");
const others = [...(await openOptional("simt")), ...(await openOptional("cuda"))];
const instructionSets = addon().buildInfo().instructionSets;

let current: Target = { name: "cpu", device: cpu, instructionSet: instructionSets.at(-1)! };

/** Every target that has kernels for all of these ops, for `describe.each(...)("... on $name", ...)`. */
export function targetsOf(...ops: OpName[]): Target[] {
  const missing = others.filter((device) => ops.some((op) => !device.supports(op)));
  if (wanted && missing.length > 0) {
    throw new Error(`${missing.map(({ name }) => name).join(", ")}: no kernel for one of ${ops.join(", ")}`);
  }
  const onCpu =
    wanted && !wanted.includes("cpu")
      ? []
      : instructionSets.map((set) => ({ name: `cpu ${set}`, device: cpu, instructionSet: set }));
  return [
    ...onCpu,
    ...others.filter((device) => !missing.includes(device)).map((device) => ({ name: device.name, device })),
  ];
}

/** What `runOp` runs on from here on; for `beforeAll`. Returns its device. */
export function useTarget(target: Target): Device {
  if (target.instructionSet) addon().setInstructionSet(target.instructionSet);
  current = target;
  return target.device;
}

/** Back to the CPU and its best instruction set; for `afterAll`. */
export function resetTarget(): void {
  useTarget({ name: "cpu", device: cpu, instructionSet: instructionSets.at(-1)! });
}

export function currentTarget(): Target {
  return current;
}
