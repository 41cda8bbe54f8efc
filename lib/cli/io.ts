import { existsSync, readFileSync } from "node:fs";
import { freemem } from "node:os";
import type { Readable } from "node:stream";

/** Where a command reads and writes: the process's streams, or a test's. */
export interface CliIo {
  stdin: Readable & { isTTY?: boolean };
  stdout: { write(text: string): unknown; isTTY?: boolean; columns?: number };
  stderr: { write(text: string): unknown; isTTY?: boolean };
}

/** One line to standard output. */
export function print(io: CliIo, line = ""): void {
  io.stdout.write(`${line}\n`);
}

export function printJson(io: CliIo, value: unknown): void {
  io.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** Lines `name  value` with the values below each other. */
export function printPairs(io: CliIo, pairs: readonly (readonly [string, unknown])[]): void {
  const width = Math.max(...pairs.map(([name]) => name.length));
  for (const [name, value] of pairs) print(io, `${name.padEnd(width)}  ${value}`);
}

/** Bytes as people write them: 98.4 MB. */
export function bytes(count: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

/** A count with its thousands apart: 134,515,008. */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** Memory that can be had without swapping, in bytes. */
export function availableMemory(): number {
  if (!existsSync("/proc/meminfo")) return freemem();
  const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"));
  return line ? Number(line[1]) * 1024 : freemem();
}

const STOP_SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Ends the process at once; a shell sees 130. Native work may be running, which process.exit would wait for or crash in. */
function endAtOnce(): never {
  process.removeAllListeners("SIGINT");
  process.kill(process.pid, "SIGINT");
  // Reached by the first process of a container alone: it ignores the signal.
  process.exit(130);
}

/** Calls `stop` at the first Ctrl-C (SIGINT) or SIGTERM; a second one ends the process. Returns what stops listening. */
export function onStop(stop: () => void): () => void {
  let stopped = false;
  const handle = () => {
    if (stopped) endAtOnce();
    stopped = true;
    stop();
  };
  for (const name of STOP_SIGNALS) process.on(name, handle);
  return () => {
    for (const name of STOP_SIGNALS) process.off(name, handle);
  };
}

/** Runs `body` with a signal that the first Ctrl-C or SIGTERM fires; a second one ends the process. */
export async function interruptible<T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const release = onStop(() => controller.abort());
  try {
    return await body(controller.signal);
  } finally {
    release();
  }
}
