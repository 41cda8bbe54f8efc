// Shared by the benchmarks: times variants interleaved in one process and writes raw samples as JSON.
// Needs `npm run build`. On a CPU compare ratios within one file, never times of two files.
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { addon } from "../dist/native/load.js";

const folder = dirname(fileURLToPath(import.meta.url));

/** The q-quantile (0..1) of numbers, linear between neighbours. */
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}

async function timed(run, repeats) {
  const start = process.hrtime.bigint();
  for (let i = 0; i < repeats; i++) await run();
  return Number(process.hrtime.bigint() - start) / 1e6 / repeats;
}

/**
 * Times variants side by side: each round runs every variant once, in turning order, so that drift and
 * neighbours on the machine touch all alike.
 * @param variants object of name -> function (awaited)
 * @param options.rounds samples of each; `warmup` rounds come before; a sample repeats its variant until it
 *   lasts `least` milliseconds
 * @returns object of name -> { median, p20, p80, samples } in milliseconds a call
 */
export async function compare(variants, { rounds = 30, warmup = 2, least = 2 } = {}) {
  const entries = [];
  for (const [name, run] of Object.entries(variants)) {
    let once = 0;
    for (let i = 0; i < Math.max(1, warmup); i++) once = await timed(run, 1);
    entries.push({ name, run, repeats: Math.max(1, Math.ceil(least / once)), samples: [] });
  }
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[(i + round) % entries.length];
      entry.samples.push(await timed(entry.run, entry.repeats));
    }
  }
  const summary = ({ samples }) => ({
    median: quantile(samples, 0.5),
    p20: quantile(samples, 0.2),
    p80: quantile(samples, 0.8),
    samples,
  });
  return Object.fromEntries(entries.map((entry) => [entry.name, summary(entry)]));
}

/** Float32Array of n numbers, roughly normal, the same for the same seed. */
export function randomFloats(n, seed = 1) {
  let state = seed >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Float32Array.from({ length: n }, () => next() + next() + next() + next() - 2);
}

/** What a result needs beside it to mean anything. */
export function environment(device) {
  const { instructionSet, threads, gemm } = addon().buildInfo();
  const git = (...args) => execFileSync("git", args, { cwd: folder, encoding: "utf8" }).trim();
  let commit = "unknown";
  try {
    commit = git("rev-parse", "HEAD") + (git("status", "--porcelain", "-uno") ? " (changed)" : "");
  } catch {}
  const [script, ...options] = process.argv.slice(1);
  return {
    command: ["node", relative(dirname(folder), script), ...options].join(" "),
    device: device.description,
    processor: `${cpus().length} x ${cpus()[0]?.model}`,
    instructionSet,
    threads,
    gemm,
    node: process.version,
    commit,
    date: new Date().toISOString(),
  };
}

/** Writes bench/results/<date>-<name>.json: the environment and `results` (raw samples kept); its path. */
export function save(name, device, results) {
  const about = environment(device);
  const path = join(folder, "results", `${about.date.slice(0, 10)}-${name}.json`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify({ ...about, results }, null, 1)}\n`);
  return path;
}
