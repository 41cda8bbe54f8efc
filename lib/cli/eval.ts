import { Command } from "commander";
import type { EvaluationReport } from "../trainer/evaluate.js";
import {
  countFrom,
  deviceOption,
  dtypeOption,
  environmentOption,
  environmentOptionsOption,
  modelOption,
  numberIn,
  OPTION_NOTES,
  seedOption,
} from "./arguments.js";
import { type CliIo, interruptible, print, printJson } from "./io.js";

interface Options {
  model: string;
  data: string;
  environment: string;
  option?: string[];
  rollouts: number;
  temperature: number;
  topP: number;
  maxTokens: number;
  maxPromptTokens: number;
  limit?: number;
  batch: number;
  thinking?: boolean;
  seed: number;
  device: string;
  dtype?: "f32" | "bf16";
  rows?: string;
  json?: boolean;
}

const EXAMPLE = `
Example:
  sdpo eval -m model -e mcq -d test.json --rollouts 4 --max-tokens 64 --limit 50

avg@k is the mean reward of k rollouts a task, pass@k the share of tasks that one of k rollouts solves; both
with their standard error over tasks.
`;

/** `sdpo eval`. */
export function evalCommand(io: CliIo): Command {
  return new Command("eval")
    .description("sample completions of a data set's tasks and score them: avg@k, pass@k")
    .addOption(modelOption().makeOptionMandatory())
    .requiredOption("-d, --data <source>", "tasks: a file of rows, or what else the environment takes")
    .addOption(environmentOption().makeOptionMandatory())
    .addOption(environmentOptionsOption())
    .option("-k, --rollouts <n>", "completions of each task", countFrom(1), 4)
    .option("-t, --temperature <x>", "0: the most probable token", numberIn(0, 100), 0.6)
    .option("--top-p <x>", "keep the most probable tokens with this mass", numberIn(1e-6, 1), 0.95)
    .option("-n, --max-tokens <n>", "of a completion", countFrom(1), 256)
    .option("--max-prompt-tokens <n>", "tasks with longer prompts are left out", countFrom(1), 2048)
    .option("--limit <n>", "only the first so many tasks that fit; all by default", countFrom(1))
    .option("--batch <n>", "rollouts generated at the same time", countFrom(1), 64)
    .option("--thinking", "let the chat template open a thinking block")
    .addOption(seedOption().default(0))
    .addOption(deviceOption().default("auto"))
    .addOption(dtypeOption())
    .option("--rows <file>", "write every completion with its reward to this file, one JSON object a line")
    .option("--json", "print the report as JSON")
    .addHelpText("after", OPTION_NOTES + EXAMPLE)
    .action(async (options: Options) => {
      await interruptible((signal) => evaluateModel(io, options, signal));
    });
}

async function evaluateModel(io: CliIo, options: Options, signal: AbortSignal): Promise<void> {
  const { parseOptions } = await import("./settings.js");
  const { createEnvironment } = await import("../environments/index.js");
  const environment = createEnvironment(options.environment, parseOptions(options.option ?? []));
  const { Model } = await import("../models/model.js");
  const { openDevice } = await import("../native/device.js");
  const { evaluate } = await import("../trainer/evaluate.js");
  const { loadTasks } = await import("../trainer/data.js");
  if (options.rows !== undefined) await writeRows(options.rows, []);
  using device = await openDevice(options.device);
  using model = await Model.load(options.model, { device, dtype: options.dtype });
  const { tasks, skipped } = await loadTasks(model.tokenizer, environment, options.data, {
    maxPromptTokens: options.maxPromptTokens,
    thinking: options.thinking ?? false,
    limit: options.limit,
  });
  const report = await evaluate(model, environment, tasks, {
    ...{ rollouts: options.rollouts, temperature: options.temperature, topP: options.topP },
    ...{ maxTokens: options.maxTokens, seed: options.seed, batchSize: options.batch, signal },
    onProgress: (done, total) => io.stderr.isTTY && io.stderr.write(`\r\x1b[K${done}/${total} completions`),
  });
  if (io.stderr.isTTY) io.stderr.write("\r\x1b[K");
  if (options.rows !== undefined) await writeRows(options.rows, report.rows);
  if (options.json) printJson(io, summaryOf(report, skipped));
  else printReport(io, report, skipped);
}

/** The standard error of a share p over n tasks. */
export function shareError(p: number, n: number): number {
  return Math.sqrt((p * (1 - p)) / Math.max(1, n - 1));
}

function summaryOf({ rows: _, ...report }: EvaluationReport, skipped: number) {
  return { ...report, "pass@k.standardError": shareError(report["pass@k"], report.tasks), skipped };
}

function printReport(io: CliIo, report: EvaluationReport, skipped: number): void {
  const { tasks, rollouts: k, standardError, metrics, truncated, dropped, completionTokens } = report;
  const line = (name: string, value: number, error?: number) =>
    print(io, `${name.padEnd(28)}${value.toFixed(4)}${error === undefined ? "" : ` +- ${error.toFixed(4)}`}`);
  const left = skipped > 0 ? ` (${skipped} with longer prompts left out)` : "";
  print(io, `${tasks} tasks${left}, ${k} rollouts each`);
  line(`avg@${k}`, report["avg@k"], standardError);
  for (const [n, value] of Object.entries(report.passAt)) line(`pass@${n}`, value, shareError(value, tasks));
  for (const [name, value] of Object.entries(metrics)) line(name, value);
  line("cut at the token limit", truncated);
  if (dropped > 0) line("not verified", dropped);
  print(io, `${"tokens a completion".padEnd(28)}${completionTokens.toFixed(1)}`);
}

async function writeRows(file: string, rows: EvaluationReport["rows"]): Promise<void> {
  const { writeFile } = await import("node:fs/promises");
  const { SdpoError } = await import("../errors.js");
  try {
    await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  } catch (cause) {
    throw new SdpoError("ERR_SDPO_FILE", `${file}: cannot be written: ${(cause as Error).message}`, {
      cause,
    });
  }
}
