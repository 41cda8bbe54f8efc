// docs/smollm2.md from the raw data of bench/smollm2.mjs. No figure on the page is typed by hand.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { quantile } from "./harness.mjs";

const lines = (file) =>
  readFileSync(file, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
const json = (file) => JSON.parse(readFileSync(file, "utf8"));
const fixed = (digits) => (x) => (x === undefined || x === null ? "" : Number(x).toFixed(digits));
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const median = (values) => quantile(values, 0.5);

/** Metrics that must not differ between a killed run and its resumption. */
const timing = /^(seconds|tokens_per_second|memory)\./;

function sameStep(a, b) {
  const names = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => !timing.test(name));
  return names.filter((name) => a[name] !== b[name]);
}

function evaluationTable(raw) {
  const rows = [
    ["before", "as downloaded"],
    ["warm", "after the warm start"],
    ["trained", "after 35 SDPO steps"],
  ].map(([name, title]) => {
    const r = json(join(raw, `eval-${name}.json`));
    const format =
      r.metrics?.["environment.incorrectFormat"] === undefined
        ? ""
        : fixed(3)(1 - r.metrics["environment.incorrectFormat"]);
    return `| ${title} | ${r.tasks} x ${r.rollouts} | ${fixed(3)(r["avg@k"])} ± ${fixed(3)(r.standardError)} | ${fixed(3)(r["pass@k"])} | ${format} | ${fixed(1)(r.completionTokens)} |`;
  });
  return [
    "| | tasks x rollouts | avg@4 | pass@4 | right format | tokens |",
    "|---|---|---|---|---|---|",
    ...rows,
  ].join("\n");
}

function verdict(raw) {
  const [warm, trained] = ["warm", "trained"].map((name) => json(join(raw, `eval-${name}.json`)));
  const gap = trained["avg@k"] - warm["avg@k"];
  const error = Math.hypot(warm.standardError, trained.standardError);
  const size = `${gap >= 0 ? "+" : ""}${gap.toFixed(3)} ± ${error.toFixed(3)} (the errors added as if independent; the tasks are the same, so this is on the wide side)`;
  if (Math.abs(gap) < 2 * error)
    return `From the warm start to the end the test score moved by ${size}: not distinguishable from no change.`;
  return `From the warm start to the end the test score moved by ${size}.`;
}

function stepTable(steps) {
  const columns = [
    ["step", "step", 0],
    ["loss", "loss", 5],
    ["reward.mean", "reward", 3],
    ["success.groups", "groups with a success", 2],
    ["distilled.fraction", "distilled", 3],
    ["entropy", "entropy", 3],
    ["grad_norm", "gradient norm", 3],
    ["completion.mean", "tokens", 1],
    ["sharing.saved", "tokens saved", 3],
    ["seconds.step", "seconds", 1],
  ];
  const head = `| ${columns.map(([, title]) => title).join(" | ")} |\n|${columns.map(() => "---").join("|")}|`;
  const body = steps.map(
    (m) => `| ${columns.map(([name, , digits]) => fixed(digits)(m[name])).join(" | ")} |`,
  );
  return [head, ...body].join("\n");
}

function speedTable(steps) {
  const of = (name) => median(steps.map((m) => m[name]).filter((x) => x !== undefined));
  const rows = [
    ["rollouts: sampled tokens; the prompts' time is in it, their tokens are not", "rollout"],
    ["teacher scoring", "score"],
    ["student forward, loss, backward, optimizer", "train"],
  ].map(
    ([title, phase]) =>
      `| ${title} | ${fixed(1)(of(`seconds.${phase}`))} | ${fixed(0)(of(`tokens.${phase}`))} | ${fixed(0)(of(`tokens_per_second.${phase}`))} |`,
  );
  return [
    "| phase, median of the steps | seconds | tokens computed | tokens/s |",
    "|---|---|---|---|",
    ...rows,
  ].join("\n");
}

export function report(raw) {
  const about = json(join(raw, "about.json"));
  const steps = lines(join(raw, "metrics.jsonl"));
  const killed = lines(join(raw, "metrics-killed.jsonl"));
  const last = killed.at(-1);
  const again = steps.find(({ step }) => step === last.step);
  const differing = sameStep(last, again);
  const distilled = steps.filter((m) => m["distilled.fraction"] > 0).length;
  const commands = about.commands.map(
    ({ command, seconds, exit }) =>
      `${command}    # ${seconds.toFixed(0)} s, ${exit === 0 ? "ended with 0" : exit}`,
  );
  return `# SmolLM2-135M on SciKnowEval chemistry

Made by \`node bench/smollm2.mjs --report\` from \`bench/results/smollm2/\`; the experiment itself is \`node bench/smollm2.mjs\`. ${about.date.slice(0, 10)}, ${about.processor}, ${about.device}, Node ${about.node}, commit ${about.commit.slice(0, 12)}.

At temperature 1 this model never writes the answer format of the task by itself, so without environment feedback every rollout would be masked and SDPO would have nothing to learn from. A warm start on 64 training rows (cross entropy on the answers alone) teaches the format. Then 35 steps of SDPO with demonstrations only: 4 tasks x 8 rollouts a step, JSD with alpha 0.5 over the student's top 100 tokens and a tail, an EMA teacher. The run was killed with SIGKILL after step ${last.step} and resumed from the checkpoint of step ${again ? last.step - 1 : "?"}.

## What moved and what did not

${evaluationTable(raw)}

avg@4 at temperature 0.6, top_p 0.95, on the test rows whose prompts have at most 330 tokens, without their last line ("Please reason step by step."), as in training. ± is the standard error over tasks. Four options: chance is 0.25.

${verdict(raw)} What the warm start changed is the format. The reward in training was ${fixed(3)(mean(steps.slice(0, 10).map((m) => m["reward.mean"])))} over the first ten steps and ${fixed(3)(mean(steps.slice(-10).map((m) => m["reward.mean"])))} over the last ten (32 rollouts a step: one step's standard error is about 0.08). Entropy went from ${fixed(3)(steps[0].entropy)} to ${fixed(3)(steps.at(-1).entropy)}, the loss from ${fixed(5)(steps[0].loss)} to ${fixed(5)(steps.at(-1).loss)}. A model of this size hardly knows the chemistry asked; this page shows that the machinery works on a real model and real data, not that 35 steps teach chemistry.

${distilled} of ${steps.length} steps had a distilled fraction above 0. Step ${last.step} was computed twice, before the kill and after the resumption: ${differing.length === 0 ? "every metric but times and memory is the same number" : `these metrics differ: ${differing.join(", ")}`}.

## Steps

${stepTable(steps)}

*tokens saved*: share of the tokens of separate sequences that prefix sharing did not compute, over rollout prompts, teacher scoring and training. All metrics: \`bench/results/smollm2/metrics.jsonl\`.

## Speed and memory

${speedTable(steps)}

Other work shared the cores during this run, so these times are upper bounds; [benchmarks](benchmarks.md) has times from a quiet machine.

Peak device memory ${(Math.max(...steps.map((m) => m["memory.peak"])) / 2 ** 30).toFixed(2)} GiB: weights, EMA teacher, gradient and two moments in float32 are ${((5 * 134515008 * 4) / 2 ** 30).toFixed(2)} GiB of it. Median share of tokens saved by sharing: ${fixed(3)(median(steps.map((m) => m["sharing.saved"])))}.

## Commands

\`\`\`
${commands.join("\n")}
\`\`\`
`;
}
