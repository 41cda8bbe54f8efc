// The main job on real input: SmolLM2-135M-Instruct on SciKnowEval chemistry. Warm start, 30 SDPO steps, SIGKILL,
// five more from the checkpoint, evaluations between; the report is docs/smollm2.md.
//
//   SDPO_TEST_GGUF=SmolLM2-135M-Instruct.Q4_1.gguf SDPO_TEST_DATA=datasets node bench/smollm2.mjs [work folder]
//   node bench/smollm2.mjs --report        # the page again, from the raw data in bench/results/smollm2
import { spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDevice } from "../dist/native/device.js";
import { environment } from "./harness.mjs";
import { report } from "./smollm2-report.mjs";

const root = join(import.meta.dirname, "..");
const raw = join(root, "bench/results/smollm2");
const cli = join(root, "dist/cli/main.js");
const STEPS = 35;
const KILL_AFTER = 30;

const gguf = process.env.SDPO_TEST_GGUF;
const data = process.env.SDPO_TEST_DATA;
const ran = [];

/** Runs the CLI; with `watch`, which is given all output so far, until that returns true: then SIGKILL. */
function sdpo(args, watch) {
  const shown = args.map((arg) =>
    arg.replace(gguf, "$SDPO_TEST_GGUF").replace(data, "$SDPO_TEST_DATA").replace(work, "$WORK"),
  );
  process.stdout.write(`\n$ sdpo ${shown.join(" ")}\n`);
  const started = Date.now();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [cli, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.on("data", (chunk) => {
      output += chunk;
      process.stdout.write(chunk);
    });
    const timer = watch && setInterval(() => watch() && child.kill("SIGKILL"), 200);
    child.on("exit", (code, signal) => {
      clearInterval(timer);
      ran.push({
        command: `sdpo ${shown.join(" ")}`,
        seconds: (Date.now() - started) / 1000,
        exit: code ?? signal,
      });
      if (code === 0 || (watch && signal === "SIGKILL")) resolve(output);
      else reject(new Error(`sdpo ${args[0]} ended with ${code ?? signal}`));
    });
  });
}

const lines = (file) =>
  existsSync(file)
    ? readFileSync(file, "utf8")
        .trim()
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line))
    : [];

async function evaluate(name, model) {
  const output = await sdpo([
    ...["eval", "-m", model, "-e", "mcq", "--option", "omitReasoningRequest=true"],
    ...[
      "-d",
      join(data, "sciknoweval/chemistry/test.json"),
      "--max-prompt-tokens",
      "330",
      "--max-tokens",
      "32",
    ],
    ...["--rollouts", "4", "--temperature", "0.6", "--top-p", "0.95", "--json"],
  ]);
  writeFileSync(join(raw, `eval-${name}.json`), output);
}

const work = process.argv[2] === "--report" ? "" : (process.argv[2] ?? join(tmpdir(), "sdpo-smollm2"));

async function experiment() {
  if (!gguf || !data) throw new Error("set SDPO_TEST_GGUF and SDPO_TEST_DATA");
  mkdirSync(raw, { recursive: true });
  mkdirSync(work, { recursive: true });
  const warm = join(work, "warm");
  const run = join(work, "run");
  const train = join(data, "sciknoweval/chemistry/train.json");
  for (const folder of [warm, run]) rmSync(folder, { recursive: true, force: true });
  await evaluate("before", gguf);
  const sft = await sdpo([
    ...["sft", "-m", gguf, "-e", "mcq", "--option", "omitReasoningRequest=true", "-d", train, "-o", warm],
    ...["--set", "rows=64", "--set", "rowsPerBatch=8", "--set", "maxPromptTokens=330"],
  ]);
  writeFileSync(join(raw, "sft.log"), sft);
  await evaluate("warm", warm);
  const metrics = join(run, "metrics.jsonl");
  const stepsDone = () => lines(metrics).length;
  const settings = [
    "train",
    "--preset",
    "smollm2-cpu",
    "-m",
    warm,
    "-d",
    train,
    "-o",
    run,
    "--set",
    `steps=${STEPS}`,
  ];
  const killAt = () => stepsDone() > KILL_AFTER;
  await sdpo([...settings, "--set", "keepCheckpoints=1"], killAt);
  copyFileSync(metrics, join(raw, "metrics-killed.jsonl"));
  await sdpo(["train", "--resume", "-o", run]);
  copyFileSync(metrics, join(raw, "metrics.jsonl"));
  copyFileSync(join(run, "config.json"), join(raw, "config.json"));
  await evaluate("trained", join(run, "checkpoints", `step-${STEPS}`));
  const device = await openDevice("cpu");
  const about = { ...environment(device), commands: ran };
  writeFileSync(join(raw, "about.json"), `${JSON.stringify(about, null, 2)}\n`);
}

if (process.argv[2] !== "--report") await experiment();
writeFileSync(join(root, "docs/smollm2.md"), report(raw));
