// Makes docs/benchmarks.md from the newest result of each benchmark. No figure on the page is typed by hand.
//   node bench/table.mjs [--results folder = bench/results] [--print]
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const folder = dirname(fileURLToPath(import.meta.url));
const { values: args } = parseArgs({
  options: {
    results: { type: "string", default: join(folder, "results") },
    print: { type: "boolean", default: false },
  },
});

/** All results: the file's name without date and `.json`, and what it holds. */
function readResults() {
  return (existsSync(args.results) ? readdirSync(args.results) : [])
    .map((file) => ({ file, name: /^\d{4}-\d\d-\d\d-(.+)\.json$/.exec(file)?.[1] }))
    .filter(({ name }) => name)
    .map(({ file, name }) => ({ file, name, ...JSON.parse(readFileSync(join(args.results, file), "utf8")) }));
}

/** The newest result of each name that matches: one for each machine or instruction set in the name. */
function newest(all, pattern) {
  const found = all.filter(({ name }) => pattern.test(name)).sort((a, b) => a.date.localeCompare(b.date));
  return [...new Map(found.map((result) => [result.name, result])).values()];
}

const table = (head, rows) =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
const times = (x) => `${x.toFixed(x < 10 ? 2 : 1)}x`;
const milliseconds = (x) => (x < 10 ? x.toFixed(2) : x.toFixed(1));
const seconds = (ms) => (ms / 1e3).toFixed(2);
const gigabytes = (bytes) => (bytes / 1e9).toFixed(2);
const small = (x) => (x === 0 ? "0" : x.toExponential(1));
const range = (samples, format) => `${format(Math.min(...samples))} to ${format(Math.max(...samples))}`;

const HEAVY_LOAD = 0.5;

/** Machine, versions, command: what a table needs beside it. */
function origin({ file, processor, device, node, commit, date, command, results }) {
  const { versions, loadAverage } = results;
  const peer = versions
    ? `; PyTorch ${versions.torch} (${versions.instructionSet}, ${versions.threads} threads), transformers ${versions.transformers}, Python ${versions.python}`
    : "";
  const lines = [
    `Measured ${date.slice(0, 10)} on ${processor} (${device}), Node ${node}${peer}; commit ${commit.slice(0, 12)}${commit.endsWith("(changed)") ? " with changes" : ""}; raw samples: [bench/results/${file}](../bench/results/${file}).`,
  ];
  if (loadAverage > HEAVY_LOAD)
    lines.push(
      "",
      `**The machine was busy: a load average of ${loadAverage.toFixed(1)} when this began. Times, and ratios of programs that wait for their threads differently, mean little.**`,
    );
  if (command) lines.push("", "```sh", command, "```");
  return lines.join("\n");
}

function lossTable({ results }) {
  const rows = results.cases.map(({ rows, vocab, support, times: t, error }) => [
    `${rows} x ${vocab}, ${support}`,
    ...["sdpo", "eager", "compile"].map((name) => (t[name] ? milliseconds(t[name].median) : "")),
    ...["eager", "compile"].map((name) => (t[name] ? times(t[name].median / t.sdpo.median) : "")),
    small(error.loss),
    small(error.gradient),
  ]);
  const head = ["rows x vocabulary, support", "sdpo ms", "eager ms", "torch.compile ms"];
  return table([...head, "against eager", "against compile", "error, loss", "error, gradient"], rows);
}

function gemmTable({ results }) {
  const names = [...new Set(Object.values(results).flatMap((variants) => Object.keys(variants)))];
  const cell = (time) => (time ? time.gflops.toFixed(0) : "");
  const share = ({ onednn, fastest }) =>
    onednn && fastest ? `${Math.round((100 * fastest.gflops) / onednn.gflops)}%` : "";
  const rows = Object.entries(results).map(([name, variants]) => [
    name,
    ...names.map((variant) => cell(variants[variant])),
    share(variants),
  ]);
  return table(["product", ...names, "fastest / oneDNN"], rows);
}

const PHASES = ["teacherForward", "studentForward", "loss", "backward", "optimizer"];
const VARIANTS = {
  shared: "sdpo, prompts shared",
  separate: "sdpo, every sequence by itself",
  pytorch: "PyTorch",
  transformers: "transformers",
};

function stepTable({ results }) {
  const { variants, settings, tokens, model, versions } = results;
  const reference = variants.pytorch?.step.median;
  const rows = Object.entries(variants).map(([name, v]) => [
    VARIANTS[name],
    `${seconds(v.step.median)} (${range(v.step.samples, seconds)})`,
    reference ? times(reference / v.step.median) : "",
    ...PHASES.map((phase) => seconds(v.phases[phase].median)),
    gigabytes(v.peakBytes),
  ]);
  const head = ["", "step s (least to most)", "PyTorch's time / this", "teacher forward"];
  const peak = versions
    ? ` The peak is that of tensors for sdpo and of the whole process for PyTorch (${gigabytes(versions.peakBytes)} of it before the first step); both hold one more copy of the weights, from which every run starts.`
    : "";
  return [
    `${model.file}, f32, ${(model.parameters / 1e6).toFixed(1)} M parameters: ${settings.groups} groups x ${settings.rollouts} rollouts, prompts of ${settings.prompt} tokens, ${tokens.completion} completion tokens in all, teacher prompts of ${settings.teacher} (${settings.shared} shared by a group), ${settings.runs} measured runs. Tokens computed, student: ${tokens.student.separate} separately, ${tokens.student.shared} shared; teacher: ${tokens.teacher.separate} and ${tokens.teacher.shared}.`,
    table([...head, "student forward", "loss", "backward", "optimizer", "peak GB"], rows),
    `Seconds, medians.${peak}`,
    differenceTable(results),
  ].join("\n\n");
}

/** How far the variants' loss and gradient lie from the reference's, on the same inputs. */
function differenceTable({ differences, versions, reference, tokens }) {
  const entries = Object.entries(differences);
  if (entries.length === 0) return "";
  const to = reference === "pytorch" ? `PyTorch in ${versions.dtype}` : VARIANTS[reference];
  const rows = entries.map(([name, d]) => [
    VARIANTS[name],
    small(d.loss),
    small(d.gradientNorm),
    `${small(d.parameterNorm)} (${d.parameter})`,
  ]);
  const worst = `worst of ${entries[0][1].parameters} parameters' gradient norms`;
  return `Relative differences from ${to}, same weights and inputs (${tokens.completion} completion tokens):\n\n${table(["", "loss", "gradient norm", worst], rows)}`;
}

function generateTable({ results }) {
  const { variants, settings, greedy, sameRollouts } = results;
  const reference = variants.transformers?.tokensPerSecond.median;
  const rows = Object.entries(variants).map(([name, v]) => [
    VARIANTS[name],
    `${v.tokensPerSecond.median.toFixed(1)} (${range(v.tokensPerSecond.samples, (x) => x.toFixed(1))})`,
    reference ? times(v.tokensPerSecond.median / reference) : "",
    seconds(v.prompt.median),
    seconds(v.decode.median),
  ]);
  const head = ["", "tokens/s (least to most)", "against transformers", "prompts s", "decoding s"];
  const same = sameRollouts
    ? "With and without sharing, the same rollouts came out, token by token."
    : "With and without sharing, different rollouts came out.";
  const agreed = greedy
    ? ` Decoded greedily, ${greedy.equalTokens} of ${greedy.tokens} tokens came before the first one that differs from transformers'.`
    : "";
  const about = `${settings.groups} prompts of ${settings.prompt} tokens x ${settings.rollouts} rollouts of ${settings.tokens} tokens, f32.`;
  return [about, table(head, rows), same + agreed].join("\n\n");
}

const peer = "SDPO_BENCH_PYTHON=venv/bin/python";
const real = `SDPO_TEST_GGUF=model.gguf ${peer}`;
const SECTIONS = [
  {
    title: "One training step",
    pattern: /^train-step-(?!check)/,
    command: `${real} node bench/train-step.bench.mjs`,
    text: `One SDPO update of a real model on token ids of a real text: teacher forward, student forward, the divergence over the student's top 100 tokens and a tail on the completion's rows, backward, clipping, AdamW, and the teacher's moving average. PyTorch is eager and does the same arithmetic: sequences padded to the longest of a micro-batch, SDPA attention without a mask, the head on completion rows only, fused AdamW, foreach for the average. It computes a group's prompt once for each rollout, which is what its users get unless they rewrite attention; so the row without sharing compares the engines, and the row with it the engine and the method of packing. Not compared: torch.compile, bf16, other lengths. Long completions or short prompts leave less to share, and the gain shrinks towards that of the row without.`,
    render: stepTable,
  },
  {
    title: "One training step: against float64",
    pattern: /^train-step-check/,
    command: `${real} node bench/train-step.bench.mjs --peer-dtype float64 --groups 1 --rollouts 3 --prompt 40 --teacher 60 --completion 6 --runs 1`,
    text: `The same update, small, with PyTorch in double precision as the reference. The differences above hold both sides' rounding; these hold this package's alone. Times mean nothing here.`,
    render: ({ results }) => differenceTable(results),
  },
  {
    title: "Generation",
    pattern: /^generate-/,
    command: `${real} node bench/generate.bench.mjs`,
    text: `Sampling groups of rollouts at temperature 1, every one of the same length. transformers' \`generate\` computes the prompt once for each rollout and is no serving engine; a fair comparison for throughput would be one, and there is none here. Prompts and decoding use row-invariant products, so that a rollout does not depend on its batch.`,
    render: generateTable,
  },
  {
    title: "The loss",
    pattern: /^loss-/,
    command: `${peer} node bench/loss.bench.mjs`,
    text: `JSD at alpha 0.5, forward and backward, f32, beside the same formula in PyTorch, eager and compiled, in turn on the same cores. Errors are those against float64: the largest of token losses, and of the gradient relative to its largest element. Inputs are random logits, so that top-k selection sees no favourable order; the GEMMs that make logits are not part of it. \`--isa avx2\` limits this package to AVX2; PyTorch keeps the processor's best.`,
    render: lossTable,
  },
  {
    title: "Matrix products",
    pattern: /^gemm/,
    command: "node bench/gemm.mjs",
    text: `GFLOP/s (the fast fifth of the samples) of the products of SmolLM2-135M and of a tiny model: the built-in kernels, oneDNN over the same threads, and what is chosen by default. \`rowInvariant\` is what generation uses: a row has the same bits whatever its neighbours. This says nothing of other shapes, and absolute figures are this machine's.`,
    render: gemmTable,
  },
];

function section({ title, text, command, pattern, render }, all) {
  const results = newest(all, pattern);
  const body = results.length
    ? results.flatMap((result) => [render(result), origin(result)])
    : [`Not measured yet:\n\n\`\`\`sh\n${command}\n\`\`\``];
  return [`## ${title}`, text, ...body].join("\n\n");
}

function page() {
  const all = readResults();
  const intro =
    "Made by `node bench/table.mjs` from the newest file of each benchmark, machine and instruction set in [bench/results](../bench/results); [bench/README.md](../bench/README.md) says how to run them. Programs that are compared run in turn in one session on one machine. Times on a CPU are that machine's: compare ratios within a table, never times of two tables. The demo's five seeds have [a page of their own](demo.md).";
  return `${["# Benchmarks", intro, ...SECTIONS.map((one) => section(one, all))].join("\n\n")}\n`;
}

if (args.print) process.stdout.write(page());
else writeFileSync(join(dirname(folder), "docs", "benchmarks.md"), page());
