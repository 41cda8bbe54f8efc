#!/usr/bin/env node
import { runCli } from "./program.js";

// A reader that goes away, as in `sdpo inspect x | head`, is no error; a training run goes on without one.
const trains = ["train", "sft"].includes(process.argv[2] ?? "");
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  if (!trains) process.exit(0);
});

process.exitCode = await runCli(process.argv.slice(2), process);
