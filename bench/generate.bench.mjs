// Tokens per second of sampling groups of rollouts, with and without sharing their prompt, beside transformers:
//   SDPO_TEST_GGUF=model.gguf SDPO_BENCH_PYTHON=venv/bin/python node bench/generate.bench.mjs [--option n ...]
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { GenerationEngine } from "../dist/models/generation.js";
import { checkSampling } from "../dist/models/sampling.js";
import { openDevice } from "../dist/native/device.js";
import { addon } from "../dist/native/load.js";
import { quantile, save } from "./harness.mjs";
import { describeModel, licenceText, openModel, processorName, wholeNumbers, withFolder } from "./model.mjs";
import { startPeer } from "./peers/peer.mjs";

const options = {
  groups: { type: "string", default: "4" },
  rollouts: { type: "string", default: "8" },
  prompt: { type: "string", default: "300" },
  tokens: { type: "string", default: "64" }, // of each rollout: end tokens do not end it
  threads: { type: "string", default: String(addon().buildInfo().threads) },
  runs: { type: "string", default: "3" }, // measured runs of each variant, after one to warm up
  model: { type: "string" },
};
const { values } = parseArgs({ options });
const size = wholeNumbers(
  values,
  Object.keys(options).filter((name) => name !== "model"),
);

/** Ids of all rollouts in order, and the time until every rollout had a token and from then on. */
async function generate(model, requests, temperature) {
  const rollouts = requests.reduce((sum, { rollouts }) => sum + rollouts.length, 0);
  const sampling = checkSampling({ maxTokens: size.tokens, temperature, ignoreEos: true, seed: 1 });
  const settings = { ...sampling, slot: "weight", step: 0, batchSize: rollouts, signal: undefined };
  model.device.resetPeakMemory();
  const start = performance.now();
  let first;
  const ids = new Map();
  const engine = new GenerationEngine(model, requests, settings);
  for await (const batch of engine.run()) {
    first ??= performance.now();
    for (const { request, rollout, ids: drawn, finishReason } of batch)
      if (finishReason) ids.set(`${requests[request].task} ${rollout}`, drawn);
  }
  const end = performance.now();
  return {
    phases: { prompt: first - start, decode: end - first },
    ids: requests.flatMap(({ task, rollouts }) => rollouts.map((r) => ids.get(`${task} ${r}`))),
    promptTokens: engine.prefill.computed,
    peakBytes: model.device.memory().peak,
  };
}

function summary(results) {
  const sampled = size.groups * size.rollouts * size.tokens;
  const of = (samples) => ({ median: quantile(samples, 0.5), samples });
  const { promptTokens, peakBytes } = results.at(-1);
  return {
    tokensPerSecond: of(results.map(({ phases }) => (sampled / (phases.prompt + phases.decode)) * 1e3)),
    prompt: of(results.map(({ phases }) => phases.prompt)),
    decode: of(results.map(({ phases }) => phases.decode)),
    promptTokens,
    peakBytes,
  };
}

async function measure(variants) {
  const names = Object.keys(variants);
  const first = {};
  for (const name of names) first[name] = await variants[name]();
  const results = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < size.runs; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + round) % names.length];
      results[name].push(await variants[name]());
      const { tokensPerSecond, prompt, decode } = summary(results[name].slice(-1));
      const times = `prompts ${Math.round(prompt.median)} ms, decoding ${Math.round(decode.median)} ms`;
      console.log(`${name}: ${tokensPerSecond.median.toFixed(1)} tokens/s (${times})`);
    }
  }
  const variantsSummary = Object.fromEntries(names.map((name) => [name, summary(results[name])]));
  return { variants: variantsSummary, sameRollouts: sameIds(first.shared.ids, first.separate.ids) };
}

const sameIds = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** The share of greedily decoded tokens, up to each prompt's first different one, that two engines agree on. */
function agreement(a, b) {
  const equal = a.map((ids, i) => {
    const other = ids.findIndex((id, t) => id !== b[i][t]);
    return other < 0 ? ids.length : other;
  });
  return { equalTokens: equal.reduce((x, y) => x + y, 0), tokens: a.flat().length };
}

const loadAverage = loadavg()[0];
addon().setThreads(size.threads);
const device = await openDevice("cpu");
const model = await openModel(device, values.model);
const take = await licenceText(model);
const prompts = Array.from({ length: size.groups }, (_, group) => take(group * 409, size.prompt));
const members = Array.from({ length: size.rollouts }, (_, i) => i);
const grouped = prompts.map((prompt, task) => ({ prompt, task, rollouts: members }));
const alone = prompts.flatMap((prompt, task) => members.map((r) => ({ prompt, task, rollouts: [r] })));
const peer = startPeer("generate_transformers.py", size.threads);
const versions =
  peer && (await withFolder(model, (folder) => peer.call("load", { folder, threads: size.threads })));
const asked = { prompts: prompts.map((ids) => [...ids]), tokens: size.tokens };
const measured = await measure({
  shared: () => generate(model, grouped, 1),
  separate: () => generate(model, alone, 1),
  ...(peer && {
    transformers: () => peer.call("generate", { ...asked, rollouts: size.rollouts, sample: true }),
  }),
});
let greedy;
if (peer) {
  const single = grouped.map((request) => ({ ...request, rollouts: [0] }));
  const theirs = await peer.call("generate", { ...asked, rollouts: 1, sample: false });
  greedy = agreement((await generate(model, single, 0)).ids, theirs.ids);
  await peer.close();
}
console.log(`with and without sharing the same rollouts: ${measured.sameRollouts}`);
if (greedy) console.log(`greedy tokens equal to transformers': ${greedy.equalTokens} of ${greedy.tokens}`);
const results = { loadAverage, settings: size, model: describeModel(model), versions, greedy, ...measured };
console.log(`written: ${save(`generate-${processorName()}`, device, results)}`);
