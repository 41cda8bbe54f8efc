// What the SIMT checker claims to catch, it catches: kernels with one mistake each, in both orders of threads.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "sdpo-broken-"));
afterAll(() => rmSync(folder, { recursive: true }));

const EXPECTED: Record<string, RegExp> = {
  missing_barrier: /race|uninitialised read/,
  missing_barrier_before_reuse: /race/,
  shared_race: /race/,
  missing_syncwarp: /race|uninitialised read/,
  global_race: /race: .* global memory.*another block/,
  global_race_read: /race: .* global memory.*another block/,
  atomic_and_plain: /race/,
  shared_overrun: /out of bounds: 4-byte write .* byte 1024 of 1024/,
  static_overrun: /out of bounds: 4-byte write .* byte 1024 of 1024/,
  global_overrun_read: /out of bounds: 4-byte read .* global memory, byte 1024 of 1024/,
  global_overrun_write: /out of bounds: 4-byte write .* global memory, byte 1024 of 1024/,
  full_mask_of_half_a_warp: /early return/,
  lane_outside_its_mask: /wrong lane mask: .* is called by lane \d+, which is not in mask 000000ff/,
  lane_that_takes_no_part: /wrong lane mask: lane \d+ shuffles .* from lane 16, which does not take part/,
  divergent_barrier: /divergent barrier: __syncthreads/,
  early_return: /early return|divergent barrier: the thread ends/,
  uninitialised_shared: /uninitialised read: .* shared array 0/,
  uninitialised_global: /uninitialised read: .* global memory/,
  misaligned_load: /misaligned: ld16/,
  misaligned_array: /misaligned: st16 .*shared array 0/,
  missing_bulk_wait: /use of data still in flight/,
  missing_copy_wait: /use of data still in flight/,
  overwritten_while_stored: /write over data still in flight/,
  wrong_bytes_expected: /deadlock: .* wait in mbar_wait/,
  cluster_read_too_early: /race|out of bounds: .* shared memory of block rank/,
  cluster_peer_has_ended: /out of bounds: .* shared memory of block rank/,
  too_much_shared_memory: /shared memory: .* takes 65536 bytes of dynamic shared memory, launched with 4608/,
};

function compile(): string {
  const simt = join(root, "native/backends/simt");
  const sources = readdirSync(simt).filter((file) => file.endsWith(".cpp"));
  const flags = ["-std=c++17", "-O2", "-g", "-I", join(root, "native"), "-I", import.meta.dirname];
  const variant = ["-DSDPO_SIMT_CHECKED", '-DSDPO_SIMT_VARIANT="checked"'];
  const [kernels, program] = [join(folder, "broken.o"), join(folder, "broken")];
  const source = join(import.meta.dirname, "broken.cu");
  execFileSync("c++", [...flags, ...variant, "-fsanitize=thread", "-x", "c++", "-c", source, "-o", kernels]);
  const others = [...sources.map((file) => join(simt, file)), join(root, "native/backends/plugin.cpp")];
  const main = join(import.meta.dirname, "broken_main.cpp");
  execFileSync("c++", [...flags, ...variant, main, ...others, kernels, "-ldl", "-lpthread", "-o", program]);
  return program;
}

/** The lines of broken.cu that end in `// BUG name`. */
const places: Record<string, number[]> = {};
const lines = readFileSync(join(import.meta.dirname, "broken.cu"), "utf8").split("\n");
for (const [i, line] of lines.entries()) {
  const name = /\/\/ BUG (\w+)$/.exec(line)?.[1];
  if (name) places[name] = [...(places[name] ?? []), i + 1];
}

const program = compile();

describe.each(["forward", "reverse"])("the checker, %s order", (order) => {
  const env = { ...process.env, SDPO_SIMT_ORDER: order };
  const output = execFileSync(program, { encoding: "utf8", env }).trim().split("\n");
  const results = new Map(
    output.map((line) => {
      const [name, state, message] = line.split("|") as [string, string, string];
      return [`${name} ${state}`, message];
    }),
  );

  test("there are kernels for all of it", () => {
    expect([...results.keys()].sort()).toEqual(
      Object.keys(EXPECTED)
        .flatMap((name) => [`${name} broken`, `${name} whole`])
        .sort(),
    );
  });

  test.each(Object.entries(EXPECTED))("%s", (name, expected) => {
    expect(results.get(`${name} whole`)).toBe("ok");
    const message = results.get(`${name} broken`)!;
    expect(message).toMatch(new RegExp(`^kernel ${name}, block \\(\\d+,0,0\\) thread \\(\\d+,0,0\\): `));
    expect(message).toMatch(expected);
    const named = [...message.matchAll(/broken\.cu:(\d+)/g)].map((match) => Number(match[1]));
    expect(places[name]).toContain(named.find((line) => places[name]!.includes(line)));
  });
});
