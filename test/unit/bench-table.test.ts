import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const folder = mkdtempSync(join(tmpdir(), "sdpo-table-"));
afterAll(() => rmSync(folder, { recursive: true }));

function page(results: string): string {
  const args = [join(root, "bench/table.mjs"), "--print", "--results", results];
  return execFileSync(process.execPath, args, { encoding: "utf8" });
}

const about = {
  command: "node bench/train-step.bench.mjs --runs 2",
  device: "cpu: avx2, 2 threads",
  processor: "2 x Test",
  node: "v20.0.0",
  commit: "0123456789abcdef",
};
const time = (...samples: number[]) => ({ median: samples[0], samples });
const phases = Object.fromEntries(
  ["teacherForward", "studentForward", "loss", "backward", "optimizer"].map((name, i) => [
    name,
    time(1000 * (i + 1)),
  ]),
);

function trainStep(ours: number, theirs: number) {
  const variant = (ms: number) => ({ step: time(ms, 2 * ms), phases, peakBytes: 4e9 });
  return {
    loadAverage: 3,
    settings: { groups: 4, rollouts: 8, prompt: 300, teacher: 400, shared: 300, runs: 2 },
    model: { file: "m.gguf", parameters: 134.5e6 },
    tokens: { student: { separate: 90, shared: 9 }, teacher: { separate: 80, shared: 8 }, completion: 7 },
    versions: { torch: "2.0", transformers: "5.0", python: "3.11", dtype: "float32", peakBytes: 1e9 },
    variants: { shared: variant(ours), pytorch: variant(theirs) },
    reference: "pytorch",
    differences: {
      shared: { loss: 1e-7, gradientNorm: 2e-6, parameterNorm: 3e-5, parameter: "a.weight", parameters: 9 },
    },
  };
}

function write(date: string, name: string, results: unknown): void {
  const file = join(folder, `${date.slice(0, 10)}-${name}.json`);
  writeFileSync(file, JSON.stringify({ ...about, date, results }));
}

describe("the page of benchmarks", () => {
  test("says what was not measured, and with which command it would be", () => {
    const empty = mkdtempSync(join(tmpdir(), "sdpo-table-"));
    const text = page(empty);
    rmSync(empty, { recursive: true });
    expect(text.match(/Not measured yet/g)).toHaveLength(text.match(/^## /gm)!.length);
    expect(text).toContain("node bench/loss.bench.mjs");
  });

  test("takes the newest result, with its ratio, machine, command and a busy machine's warning", () => {
    write("2026-01-01T00:00:00Z", "train-step-test", trainStep(9000, 9000));
    write("2026-02-01T00:00:00Z", "train-step-test", trainStep(5000, 12500));
    write("2026-03-01T00:00:00Z", "train-step-check-test", trainStep(1, 1));
    const text = page(folder).split("## One training step: against float64")[0]!;
    expect(text).toContain(
      "| sdpo, prompts shared | 5.00 (5.00 to 10.00) | 2.50x | 1.00 | 2.00 | 3.00 | 4.00 | 5.00 | 4.00 |",
    );
    expect(text).toContain("| sdpo, prompts shared | 1.0e-7 | 2.0e-6 | 3.0e-5 (a.weight) |");
    expect(text).toContain("2026-02-01-train-step-test.json");
    expect(text).toContain("commit 0123456789ab;");
    expect(text).toContain(about.command);
    expect(text).toContain("load average of 3.0");
  });

  test("docs/benchmarks.md is what the results in the repository make: run `node bench/table.mjs`", () => {
    const made = page(join(root, "bench/results"));
    expect(readFileSync(join(root, "docs/benchmarks.md"), "utf8")).toBe(made);
  });
});
