/** Signals while a native product runs that takes seconds: what the first and the second one do, and what a shell sees. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";

const dist = new URL("../../dist/", import.meta.url).href;

/** Says when a long product has begun, when the signal has fired, and when the product is done. */
const PROGRAM = `
const { openDevice, run, Tensor } = await import("${dist}index.js");
const { interruptible } = await import("${dist}cli/io.js");
await interruptible(async (signal) => {
  const device = await openDevice("cpu");
  const n = 5000;
  const a = Tensor.from(device, new Float32Array(n * n), [n, n]);
  signal.addEventListener("abort", () => console.log("stopping"));
  const product = run(device, "matmul", { a, b: a });
  console.log("begun");
  await product;
  console.log("done");
});
`;

async function signalled(first: NodeJS.Signals, second: NodeJS.Signals) {
  const command =
    'node --input-type=module -e "$1" & child=$!; echo "pid $child"; wait $child; echo "status $?"';
  const shell = spawn("sh", ["-c", command, "sh", PROGRAM], { stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  const pid = () => Number(/^pid (\d+)$/m.exec(out)![1]);
  const waiting: [string, NodeJS.Signals][] = [
    ["begun", first],
    ["stopping", second],
  ];
  shell.stdout.on("data", (chunk) => {
    out += chunk;
    const [text, signal] = waiting[0] ?? [];
    if (text === undefined || !out.includes(text)) return;
    waiting.shift();
    process.kill(pid(), signal);
  });
  await once(shell, "close");
  return out.split("\n").slice(1, -1);
}

test.skipIf(process.platform === "win32").each([
  ["SIGINT", "SIGINT"],
  ["SIGTERM", "SIGINT"],
  ["SIGTERM", "SIGTERM"],
] as const)("%s stops, %s after it ends the process at once with 130", async (first, second) => {
  expect(await signalled(first, second)).toEqual(["begun", "stopping", "status 130"]);
});
