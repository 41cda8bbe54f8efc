// The demo on several seeds: writes bench/results/demo-<date>.json (settings, every measured accuracy) and then
// docs/demo.md's tables from it. About a minute a seed on two idle cores. Needs `npm run build`.
//   node bench/demo.bench.mjs [--seeds 0,1,2,3,4]
import { readFileSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runDemo } from "../dist/demo/demo.js";
import { ALGORITHMS, demoConfig, GENERATIONS, MODEL_FOLDER } from "../dist/demo/settings.js";
import { openDevice } from "../dist/native/device.js";
import { updatePage } from "./demo-table.mjs";
import { environment } from "./harness.mjs";

const { values: args } = parseArgs({ options: { seeds: { type: "string", default: "0,1,2,3,4" } } });
const seeds = args.seeds.split(",").map(Number);

/** A run's settings without what depends on where the package lies and on the seed. */
function settingsOf(algorithm) {
  const { model: _, seed: __, environmentOptions: ___, ...settings } = demoConfig(algorithm, 0);
  return settings;
}

const device = await openDevice("cpu");
const about = environment(device);
device.dispose();
const loadAverage = [loadavg()[0]];
const runs = [];
for (const seed of seeds) {
  const usage = process.cpuUsage();
  const run = await runDemo({ seed, out: process.stdout, plain: true });
  const { user, system } = process.cpuUsage(usage);
  runs.push({ ...run, cpuSeconds: (user + system) / 1e6 });
  loadAverage.push(loadavg()[0]);
}
const result = {
  ...about,
  loadAverage,
  generationsPerStep: GENERATIONS,
  settings: Object.fromEntries(ALGORITHMS.map((name) => [name, settingsOf(name)])),
  pretraining: JSON.parse(readFileSync(join(MODEL_FOLDER, "pretraining.json"), "utf8")),
  runs,
};
const file = join(import.meta.dirname, `results/demo-${about.date.slice(0, 10)}.json`);
writeFileSync(file, `${JSON.stringify(result, null, 1)}\n`);
updatePage();
process.stdout.write(`\n${file}\n`);
