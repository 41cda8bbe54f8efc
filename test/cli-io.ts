import { Readable } from "node:stream";
import { runCli } from "../lib/cli/program.js";

export interface CliResult {
  code: number;
  out: string;
  err: string;
}

/** Runs a command line in this process. */
export async function cli(args: readonly string[], input?: string): Promise<CliResult> {
  const result = { code: 0, out: "", err: "" };
  const stdin = Object.assign(Readable.from(input === undefined ? [] : [input]), {
    isTTY: input === undefined,
  });
  const stdout = { write: (text: string) => (result.out += text) };
  const stderr = { write: (text: string) => (result.err += text) };
  result.code = await runCli(args, { stdin, stdout, stderr });
  return result;
}
