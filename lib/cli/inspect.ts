import { stat } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { SdpoError } from "../errors.js";
import { environmentOption, environmentOptionsOption, OPTION_NOTES } from "./arguments.js";
import { type CliIo, print, printJson } from "./io.js";

interface Options {
  environment?: string;
  option?: string[];
  json?: boolean;
}

/** What a path was found to be: facts in the order in which they are printed. */
export interface Report {
  kind: "model" | "tensors" | "data" | "checkpoint" | "run";
  [fact: string]: unknown;
}

const EXAMPLES = `
Examples:
  sdpo inspect model.gguf
  sdpo inspect train.jsonl -e mcq
  sdpo inspect runs/first
`;

/** `sdpo inspect`. */
export function inspectCommand(io: CliIo): Command {
  return new Command("inspect")
    .description("what a model, data set, checkpoint or run folder is, checked in full")
    .argument("<path>", "a model (folder, .safetensors, .gguf), a file of rows, a checkpoint or a run folder")
    .addOption(environmentOption())
    .addOption(environmentOptionsOption())
    .option("--json", "as JSON")
    .addHelpText("after", OPTION_NOTES + EXAMPLES)
    .action(async (path: string, options: Options) => {
      const report = await inspect(path, options);
      if (options.json) printJson(io, report);
      else printReport(io, report);
    });
}

async function inspect(path: string, options: Options): Promise<Report> {
  const info = await stat(path).catch(() => undefined);
  if (!info) throw new SdpoError("ERR_SDPO_FILE", `${path}: no such file or folder`);
  if (info.isDirectory()) return inspectFolder(path);
  const { inspectModel, inspectTensors } = await import("./inspect-model.js");
  if (path.endsWith(".gguf")) return inspectModel(path);
  if (path.endsWith(".safetensors")) {
    const hasConfig = await isFile(join(path, "..", "config.json"));
    return hasConfig ? inspectModel(path) : inspectTensors(path);
  }
  const { inspectData } = await import("./inspect-data.js");
  return inspectData(path, options.environment, options.option ?? []);
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isFile(),
    () => false,
  );
}

async function inspectFolder(folder: string): Promise<Report> {
  const has = (name: string) => isFile(join(folder, name));
  const { inspectCheckpoint, inspectRun } = await import("./inspect-run.js");
  if ((await has("manifest.json")) && (await has("state.json"))) return inspectCheckpoint(folder);
  const isModel = (await has("model.safetensors")) || (await has("model.safetensors.index.json"));
  if (isModel) return (await import("./inspect-model.js")).inspectModel(folder);
  const isRun =
    (await has("metrics.jsonl")) || (await stat(join(folder, "checkpoints")).catch(() => undefined));
  if (isRun || ((await has("config.json")) && (await has("rollouts")))) return inspectRun(folder);
  throw new SdpoError(
    "ERR_SDPO_FILE",
    `${folder}: is neither a model (model.safetensors), a checkpoint (manifest.json) nor a run folder (metrics.jsonl)`,
  );
}

function printReport(io: CliIo, report: Report): void {
  const width = Math.max(...Object.keys(report).map((name) => name.length));
  for (const [name, value] of Object.entries(report)) {
    if (value === undefined) continue;
    const lines = linesOf(value);
    print(io, `${name.padEnd(width)}  ${lines[0] ?? ""}`.trimEnd());
    for (const line of lines.slice(1)) print(io, `${" ".repeat(width)}  ${line}`);
  }
}

function linesOf(value: unknown): string[] {
  if (typeof value === "number")
    return [Number.isInteger(value) ? value.toLocaleString("en-US") : String(value)];
  if (typeof value === "string") return value.split("\n");
  if (Array.isArray(value)) return value.map((item) => linesOf(item).join(" "));
  if (typeof value === "object" && value !== null) {
    return Object.entries(value).map(([name, inner]) => `${name}: ${linesOf(inner).join(" ")}`);
  }
  return [String(value)];
}
