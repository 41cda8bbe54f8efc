// What ptxas said of every kernel when it was built: `node native/backends/cuda/resources.mjs` prints it.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));
const objects = join(root, "build/cmake/CMakeFiles/sdpo_cuda.dir/native/ops");

/** One multiprocessor: what its resident blocks share (CUDA programming guide, compute capabilities). */
const MULTIPROCESSORS = {
  sm_80: { registers: 65536, warps: 64, blocks: 32, shared: 164 * 1024 },
  sm_90a: { registers: 65536, warps: 64, blocks: 32, shared: 228 * 1024 },
};
const SHARED_PER_BLOCK = 1024; // kept by the system in each block
const WARP_REGISTERS = 256; // a warp's registers come in units of this

/** ptxas -v as records: { kernel, arch, registers, stack, spillStores, spillLoads, shared }. */
export function parseResources(text) {
  const entries = text.split(/^ptxas info +: Compiling entry function /m).slice(1);
  return entries.map((entry) => {
    const [, kernel, arch] = /^'(.+?)' for '(.+?)'/.exec(entry);
    const number = (pattern) => Number(pattern.exec(entry)?.[1] ?? 0);
    return {
      kernel,
      arch,
      registers: number(/Used (\d+) registers/),
      stack: number(/(\d+) bytes stack frame/),
      spillStores: number(/(\d+) bytes spill stores/),
      spillLoads: number(/(\d+) bytes spill loads/),
      shared: number(/(\d+) bytes smem/),
    };
  });
}

/** Blocks that one multiprocessor holds at a time, of `threads` threads and `dynamicShared` bytes each. */
export function residentBlocks({ arch, registers, shared }, threads, dynamicShared) {
  const has = MULTIPROCESSORS[arch];
  const warps = Math.ceil(threads / 32);
  const warpRegisters = Math.ceil((registers * 32) / WARP_REGISTERS) * WARP_REGISTERS;
  return Math.min(
    has.blocks,
    Math.floor(has.warps / warps),
    Math.floor(Math.floor(has.registers / warpRegisters) / warps),
    Math.floor(has.shared / (SHARED_PER_BLOCK + Math.ceil((shared + dynamicShared) / 128) * 128)),
  );
}

function demangled(names) {
  const { stdout, status } = spawnSync("c++filt", ["-p"], { input: names.join("\n"), encoding: "utf8" });
  return status === 0 ? stdout.trimEnd().split("\n") : names;
}

/** The kernels of the last build, readable names, sorted; empty where no CUDA backend was built. */
export function builtKernels() {
  if (!existsSync(objects)) return [];
  const kernels = readdirSync(objects)
    .filter((file) => file.endsWith(".cu.o.resources"))
    .filter((file) => existsSync(join(root, "native/ops", file.slice(0, -".o.resources".length))))
    .flatMap((file) => parseResources(readFileSync(join(objects, file), "utf8")));
  const names = demangled(kernels.map(({ kernel }) => kernel));
  return kernels
    .map((entry, i) => ({
      ...entry,
      kernel: names[i].replaceAll("sdpo::", "").replaceAll("(anonymous namespace)::", ""),
    }))
    .sort((a, b) => a.kernel.localeCompare(b.kernel) || a.arch.localeCompare(b.arch));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write("registers  stack  spills  shared  arch    kernel\n");
  for (const k of builtKernels()) {
    const numbers = [k.registers, k.stack, k.spillStores + k.spillLoads, k.shared];
    const columns = numbers.map((value, i) => String(value).padStart([9, 5, 6, 6][i])).join("  ");
    process.stdout.write(`${columns}  ${k.arch.padEnd(6)}  ${k.kernel}\n`);
  }
}
