import { existsSync, readFileSync, statfsSync } from "node:fs";
import { createRequire } from "node:module";
import { arch, cpus, release, totalmem } from "node:os";
import { Command } from "commander";
import { type Addon, addon, BUILD_COMMAND } from "../native/load.js";
import { availableMemory, bytes, type CliIo, print, printJson, printPairs } from "./io.js";

interface Diagnosis {
  version: string;
  node: string;
  platform: string;
  processor: string;
  /** What was built, or why it cannot be loaded. */
  native: ReturnType<Addon["buildInfo"]> | { error: string };
  bf16: { hardware: boolean; detail: string };
  devices: { name: string; available: boolean; detail: string; remedy?: string }[];
  memory: { total: number; free: number };
  disk: { folder: string; free: number };
}

const REMEDIES: Record<string, string> = {
  cuda: "needed: an NVIDIA GPU from sm_80 on with a driver for CUDA 13, and a build with nvcc 13 (on PATH, CUDA_HOME or from .ci/cuda-toolkit: npm run build)",
  simt: "only needed to test CUDA kernels without a GPU: npm run build",
};

/** `sdpo doctor`. */
export function doctorCommand(io: CliIo): Command {
  return new Command("doctor")
    .description("what was built, which devices there are, what is missing and how to get it")
    .option("--json", "as JSON")
    .addHelpText("after", "\nExample:\n  sdpo doctor --json\n")
    .action((options: { json?: boolean }) => {
      const diagnosis = diagnose();
      if (options.json) printJson(io, diagnosis);
      else printDiagnosis(io, diagnosis);
    });
}

function diagnose(): Diagnosis {
  const { version } = createRequire(import.meta.url)("../../package.json") as { version: string };
  const folder = process.cwd();
  const { bavail, bsize } = statfsSync(folder);
  return {
    version,
    node: process.version,
    platform: `${process.platform} ${arch()} ${release()}`,
    processor: `${cpus()[0]?.model ?? "unknown"}, ${cpus().length} threads`,
    native: nativeInfo(),
    bf16: bf16Support(),
    devices: deviceReports(),
    memory: { total: totalmem(), free: availableMemory() },
    disk: { folder, free: bavail * bsize },
  };
}

function nativeInfo(): Diagnosis["native"] {
  try {
    return addon().buildInfo();
  } catch (error) {
    return { error: (error as Error).message };
  }
}

function deviceReports(): Diagnosis["devices"] {
  try {
    return addon()
      .backends()
      .map((report) => (report.available ? report : { ...report, remedy: REMEDIES[report.name] }));
  } catch {
    return [];
  }
}

/** Does the processor multiply bf16 itself? Linux tells; elsewhere it is not known. */
function bf16Support(): Diagnosis["bf16"] {
  if (!existsSync("/proc/cpuinfo")) return { hardware: false, detail: "not known on this system" };
  const flags = /^flags\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1]?.split(" ") ?? [];
  const found = ["avx512_bf16", "amx_bf16"].filter((flag) => flags.includes(flag));
  if (found.length > 0) return { hardware: true, detail: found.join(", ") };
  return {
    hardware: false,
    detail: "no AVX-512 BF16 or AMX, so bf16 weights are widened to f32 tile by tile",
  };
}

function gemmLine(gemm: string): string {
  if (gemm.includes("oneDNN")) return gemm;
  return `${gemm} (for oneDNN, which may be faster: install libdnnl-dev, then run ${BUILD_COMMAND})`;
}

function printDiagnosis(io: CliIo, d: Diagnosis): void {
  const native =
    "error" in d.native
      ? ([["addon", d.native.error]] as const)
      : ([
          ["addon", `built for ${d.native.version}`],
          [
            "instructions",
            `${d.native.instructionSet} (this processor runs ${d.native.instructionSets.join(", ")})`,
          ],
          ["threads", d.native.threads],
          ["matrix products", gemmLine(d.native.gemm)],
        ] as const);
  printPairs(io, [
    ["sdpo", d.version],
    ["node", d.node],
    ["platform", d.platform],
    ["processor", d.processor],
    ...native,
    ["bf16 hardware", d.bf16.hardware ? d.bf16.detail : `none: ${d.bf16.detail}`],
    ["memory", `${bytes(d.memory.free)} of ${bytes(d.memory.total)} available`],
    ["disk", `${bytes(d.disk.free)} free in ${d.disk.folder}`],
  ]);
  print(io, "devices");
  for (const { name, available, detail, remedy } of d.devices) {
    print(io, `  ${name.padEnd(6)}${available ? "yes" : "no "}  ${detail}`);
    if (remedy) print(io, `             ${remedy}`);
  }
  if ("error" in d.native) print(io, "  none: the addon is missing");
}
