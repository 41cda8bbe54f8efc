// Writes the tables of docs/demo.md from the newest bench/results/demo-<date>.json; no figure there is typed by hand.
//   node bench/demo-table.mjs [--print]
import { readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = import.meta.dirname;
const page = join(folder, "../docs/demo.md");
const BEGIN = "<!-- results: node bench/demo-table.mjs -->";
const END = "<!-- end of results -->";
const HEAVY_LOAD = 0.5;

const share = (x) => x.toFixed(3);
const count = (n) => (n === null ? "never" : n.toLocaleString("en-US"));
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const table = (rows) =>
  rows
    .flatMap((cells, i) => [cells, ...(i === 0 ? [cells.map(() => "---")] : [])])
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");

/** The newest result: its file's name and what it holds. */
function newestResult() {
  const files = readdirSync(join(folder, "results")).filter((name) =>
    /^demo-\d{4}-\d\d-\d\d\.json$/.test(name),
  );
  const file = files.sort().at(-1);
  return { file, ...JSON.parse(readFileSync(join(folder, "results", file), "utf8")) };
}

function accuracyTable(runs) {
  const reached = ({ final, to50, to90 }) => `${share(final)} (${count(to50)} / ${count(to90)})`;
  const rows = runs.map(({ seed, baseline, summaries }) => [
    seed,
    share(baseline.student),
    share(baseline.teacher),
    reached(summaries.sdpo),
    reached(summaries.grpo),
  ]);
  const finals = (name) => share(mean(runs.map(({ summaries }) => summaries[name].final)));
  const before = (name) => share(mean(runs.map(({ baseline }) => baseline[name])));
  return table([
    ["seed", "before", "self-teacher", "SDPO (to .5 / .9)", "GRPO (to .5 / .9)"],
    ...rows,
    ["mean", before("student"), before("teacher"), finals("sdpo"), finals("grpo")],
  ]);
}

function curveTable(runs, name) {
  const every = runs[0].curves[name].filter((_, i) => i % 2 === 0);
  return table([
    ["seed", ...every.map(({ generations }) => count(generations))],
    ...runs.map(({ seed, curves }) => [
      seed,
      ...curves[name].filter((_, i) => i % 2 === 0).map(({ accuracy }) => accuracy.toFixed(2)),
    ]),
  ]);
}

/** The part of the page between its two marks. */
function resultSection({ file, date, processor, device, node, command, loadAverage, runs }) {
  const seconds = (key) => `${mean(runs.map((run) => run[key])).toFixed(0)} s`;
  const total = count(runs[0].curves.sdpo.at(-1).generations);
  const busy = Math.max(...loadAverage) > HEAVY_LOAD;
  const load = busy
    ? ` Other work shared the cores (load average ${Math.min(...loadAverage).toFixed(1)} to ${Math.max(...loadAverage).toFixed(1)}), so the wall time means little.`
    : "";
  return [
    `\`${command}\`, ${date.slice(0, 10)}, ${processor} (${device}), Node ${node}. Both runs of a seed with their measurements took ${seconds("seconds")} on average, with the measurements before them ${seconds("cpuSeconds")} of processor time.${load} Raw: [bench/results/${file}](../bench/results/${file}).`,
    `Accuracy on 256 unseen dates, no feedback in the prompt; at the end of ${total} generations, the mean of the last three measurements.`,
    accuracyTable(runs),
    "Accuracy after so many generations, SDPO:",
    curveTable(runs, "sdpo"),
    "GRPO:",
    curveTable(runs, "grpo"),
  ].join("\n\n");
}

/** The page with the newest result. */
function newPage() {
  const [before, rest] = readFileSync(page, "utf8").split(BEGIN);
  const [, after] = rest.split(END);
  return `${before}${BEGIN}\n\n${resultSection(newestResult())}\n\n${END}${after}`;
}

export function updatePage() {
  writeFileSync(page, newPage());
}

if (realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  if (process.argv.includes("--print")) process.stdout.write(newPage());
  else updatePage();
}
