// Runs a TypeScript module in a Node process of its own: node run-ts.mjs <module> [arguments].
import { runnerImport } from "vite";

await runnerImport(process.argv[2], {
  configFile: false,
  logLevel: "error",
  oxc: { target: "node20" },
});
