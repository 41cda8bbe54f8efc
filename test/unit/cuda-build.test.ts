// What can be known of the CUDA backend without a GPU: its symbols, registers and spills, accesses in PTX, and
// what is asked of cuBLASLt. Skipped where it was not built.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "sdpo-cuda-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Kernel {
  kernel: string;
  arch: string;
  registers: number;
  stack: number;
  spillStores: number;
  spillLoads: number;
  shared: number;
}
interface Resources {
  parseResources(text: string): Kernel[];
  residentBlocks(kernel: Kernel, threads: number, dynamicShared: number): number;
  builtKernels(): Kernel[];
}
const path = join(root, "native/backends/cuda/resources.mjs");
const { parseResources, residentBlocks, builtKernels } = (await import(path)) as Resources;

const plugin = join(root, "build/Release/libsdpo_cuda.so");
const cache = join(root, "build/cmake/CMakeCache.txt");
const nvcc = existsSync(cache) && /^SDPO_NVCC:STRING=(.+)$/m.exec(readFileSync(cache, "utf8"))?.[1];
const built = existsSync(plugin) && nvcc;

describe("the resource report", () => {
  const text = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3abcv' for 'sm_90a'
ptxas info    : Function properties for _Z3abcv
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 384 bytes smem, 372 bytes cmem[0]
ptxas info    : Compiling entry function 'def' for 'sm_80'
ptxas info    : Function properties for def
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
`;

  test("is read", () => {
    expect(parseResources(text)).toEqual([
      {
        kernel: "_Z3abcv",
        arch: "sm_90a",
        registers: 40,
        stack: 16,
        spillStores: 8,
        spillLoads: 4,
        shared: 384,
      },
      { kernel: "def", arch: "sm_80", registers: 255, stack: 0, spillStores: 0, spillLoads: 0, shared: 0 },
    ]);
  });

  test("gives the blocks that a multiprocessor holds", () => {
    const kernel = (arch: string, registers: number, shared = 0) =>
      ({ ...parseResources(text)[1], arch, registers, shared }) as Kernel;
    expect(residentBlocks(kernel("sm_90a", 32), 1024, 0)).toBe(2); // by warps
    expect(residentBlocks(kernel("sm_90a", 33), 1024, 0)).toBe(1); // by registers, in units of 8 a thread
    expect(residentBlocks(kernel("sm_90a", 128), 128, 0)).toBe(4);
    expect(residentBlocks(kernel("sm_90a", 16), 32, 0)).toBe(32); // by blocks
    expect(residentBlocks(kernel("sm_90a", 32), 256, 75 * 1024)).toBe(3); // by shared memory: 228 / (75 + 1)
    expect(residentBlocks(kernel("sm_90a", 32, 64), 256, 75 * 1024)).toBe(2);
    expect(residentBlocks(kernel("sm_80", 32), 256, 75 * 1024)).toBe(2);
  });
});

describe.skipIf(!built)("libsdpo_cuda.so", () => {
  test("exports one symbol", () => {
    const symbols = execFileSync("nm", ["-D", "--defined-only", plugin], { encoding: "utf8" });
    expect(symbols.trim().split("\n")).toEqual([expect.stringMatching(/ T sdpo_backend_get$/)]);
  });

  test("needs no CUDA library to load", () => {
    const needed = execFileSync("readelf", ["-d", plugin], { encoding: "utf8" });
    expect(needed).toMatch(/NEEDED.*libc\.so/);
    expect(needed).not.toMatch(/NEEDED.*(cuda|cublas)/);
  });

  test("no kernel spills registers or has a stack", () => {
    const kernels = builtKernels();
    expect(kernels.length).toBeGreaterThan(0);
    expect(
      kernels.filter(({ stack, spillLoads, spillStores }) => stack + spillLoads + spillStores > 0),
    ).toEqual([]);
  });

  test("16-byte accesses are one instruction", () => {
    const out = join(folder, "vectors.ptx");
    const source = join(root, "test/cuda/vectors.cu");
    const flags = ["-std=c++17", "-arch=compute_90", "-ptx", "-I", join(root, "native")];
    execFileSync(nvcc as string, [...flags, source, "-o", out]);
    const kernels = readFileSync(out, "utf8").split(".visible .entry ").slice(1);
    expect(kernels).toHaveLength(3);
    for (const kernel of kernels) {
      expect(kernel.match(/\bld\.global\S*/g)).toEqual([expect.stringMatching(/\.v4\.u32$/)]);
      expect(kernel.match(/\bst\.global\S*/g)).toEqual([expect.stringMatching(/\.v4\.u32$/)]);
    }
  });
});

describe.skipIf(!built)("matrix products by cuBLASLt", () => {
  const include = join(dirname(dirname(nvcc as string)), "include");
  const compile = (...args: string[]) =>
    execFileSync("c++", ["-std=c++17", "-isystem", include, "-I", join(root, "native"), ...args]);
  const [library, program] = [join(folder, "fake.so"), join(folder, "products")];
  const run = (file: string, ...args: string[]) =>
    execFileSync(program, args, { encoding: "utf8", env: { ...process.env, SDPO_CUBLASLT: file } }).trim();

  test("mean what was asked for, whatever is transposed, padded, accumulated or misaligned", () => {
    compile("-shared", "-fPIC", join(root, "test/cuda/fake_cublaslt.cpp"), "-o", library);
    const sources = ["cuda/gemm_library.cpp", "cuda/cublaslt.cpp", "plugin.cpp"].map((file) =>
      join(root, "native/backends", file),
    );
    const main = join(root, "test/cuda/gemm_library_test.cpp");
    compile('-DSDPO_CUDA_LIBRARIES="/nowhere"', main, ...sources, "-ldl", "-o", program);
    expect(run(library, "compare")).toBe("256 products, 64 searches");
  });

  test("a library that is not there, or is none, is named", () => {
    expect(run(library)).toBe(library);
    expect(run("/nowhere/libcublasLt.so")).toMatch(/^none \(\/nowhere\/libcublasLt\.so: cannot open/);
    expect(run(plugin)).toBe(`none (${plugin}: no cublasLtCreate)`);
  });
});
