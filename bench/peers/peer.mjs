// A Python process that does the same work: JSON lines over its stdin and stdout (protocol.py).
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** Runs bench/peers/<script> with the interpreter that SDPO_BENCH_PYTHON names; undefined where none is named. */
export function startPeer(script, threads) {
  const python = process.env.SDPO_BENCH_PYTHON;
  if (!python) {
    console.log("SDPO_BENCH_PYTHON is not set: measured without PyTorch (see bench/README.md)");
    return undefined;
  }
  return new Peer(python, join(dirname(fileURLToPath(import.meta.url)), script), threads);
}

class Peer {
  #child;
  #lines;
  #ended;

  constructor(python, path, threads) {
    const env = { ...process.env, OMP_NUM_THREADS: String(threads), HF_HUB_OFFLINE: "1" };
    this.#child = spawn(python, [path], { env, stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
    this.#ended = new Promise((resolve, reject) => {
      this.#child.on("error", reject);
      this.#child.on("exit", resolve);
    });
    this.#child.stdin.on("error", () => {}); // the reply that does not come says it
  }

  /** Sends a request and waits for its reply. */
  async call(name, request) {
    this.#child.stdin.write(`${JSON.stringify({ call: name, ...request })}\n`);
    const { value, done } = await this.#lines.next();
    if (!done) return JSON.parse(value);
    throw new Error(`the peer ended with ${await this.#ended}; what it said is above`);
  }

  async close() {
    this.#child.stdin.end();
    await this.#ended;
  }
}
