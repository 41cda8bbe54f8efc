import { createRequire } from "node:module";
import { Command, CommanderError } from "commander";
import { SdpoError } from "../errors.js";
import { convertCommand } from "./convert.js";
import { demoCommand } from "./demo.js";
import { doctorCommand } from "./doctor.js";
import { evalCommand } from "./eval.js";
import { generateCommand } from "./generate.js";
import { inspectCommand } from "./inspect.js";
import type { CliIo } from "./io.js";
import { presetsCommand } from "./presets.js";
import { sftCommand } from "./sft.js";
import { trainCommand } from "./train.js";

const OVERVIEW = `
Self-Distillation Policy Optimization (arXiv 2601.20802): trains a language model on tasks that an environment
verifies, its own successes and the environment's feedback being its teacher.

Examples:
  sdpo train --preset no-feedback -m model -e mcq -d train.json -o runs/first --dry-run
  sdpo eval -m model -e mcq -d test.json --max-tokens 64
  sdpo doctor

"sdpo <command> --help" says more. The exit code is 0 when done, 1 for an error, 2 for wrong usage, 130 when interrupted.

Environment variables:
  SDPO_THREADS  threads of the processor; all it has by default
  SDPO_ISA      baseline, avx2 or avx512; the best that runs here by default
  SDPO_GEMM     builtin or onednn; the fastest by default
  SDPO_DEBUG    1 shows where an error came from
`;

function buildProgram(io: CliIo): Command {
  const { version } = createRequire(import.meta.url)("../../package.json") as { version: string };
  const program = new Command("sdpo").version(version).addHelpText("after", OVERVIEW);
  const commands = [
    ...[trainCommand(io), evalCommand(io), generateCommand(io), sftCommand(io), inspectCommand(io)],
    ...[doctorCommand(io), convertCommand(io), presetsCommand(io), demoCommand(io)],
  ];
  for (const command of commands) program.addCommand(command);
  for (const command of [program, ...commands]) {
    command
      .exitOverride()
      .showHelpAfterError("(--help lists the options)")
      .configureOutput({
        writeOut: (text) => io.stdout.write(text),
        writeErr: (text) => io.stderr.write(text),
      });
  }
  return program;
}

/** The line that stands for an error; with SDPO_DEBUG its stack. */
function describeError(error: unknown): string {
  if (process.env.SDPO_DEBUG && error instanceof Error) return error.stack ?? error.message;
  if (error instanceof SdpoError) return `${error.code}: ${error.message}`;
  const detail = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return `unexpected ${detail}\nSet SDPO_DEBUG=1 to see where; this is a defect worth a report.`;
}

/**
 * Runs one command line.
 * @param args without node and script
 * @returns the exit code: 0, 1 for an error (message on standard error), 2 for wrong usage, 130 when interrupted
 */
export async function runCli(args: readonly string[], io: CliIo): Promise<number> {
  try {
    await buildProgram(io).parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof SdpoError && error.code === "ERR_SDPO_ABORTED") return 130;
    io.stderr.write(`sdpo: ${describeError(error)}\n`);
    return 1;
  }
}
