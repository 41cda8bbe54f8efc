// One SDPO update of a model, with and without prompt sharing, beside PyTorch doing the same arithmetic:
//   SDPO_TEST_GGUF=model.gguf SDPO_BENCH_PYTHON=venv/bin/python node bench/train-step.bench.mjs [--option n ...]
// Options and what they are by default: `options` below; bench/README.md says what is computed and compared.
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { packSequences } from "../dist/models/packing.js";
import { openDevice } from "../dist/native/device.js";
import { addon } from "../dist/native/load.js";
import { run } from "../dist/native/run.js";
import { Tensor } from "../dist/native/tensor.js";
import { copySlot, Optimizer } from "../dist/trainer/optimizer.js";
import { quantile, save } from "./harness.mjs";
import { describeModel, licenceText, openModel, processorName, wholeNumbers, withFolder } from "./model.mjs";
import { startPeer } from "./peers/peer.mjs";

const options = {
  groups: { type: "string", default: "4" },
  rollouts: { type: "string", default: "8" },
  prompt: { type: "string", default: "300" }, // tokens that a group's rollouts share
  completion: { type: "string", default: "16" }, // mean; a group's lengths spread over half to one and a half
  teacher: { type: "string", default: "400" }, // tokens of a teacher's prompt
  shared: { type: "string" }, // of those, tokens that a group shares: the prompt by default
  "micro-tokens": { type: "string", default: "4096" }, // computed at once, on either side
  threads: { type: "string", default: String(addon().buildInfo().threads) },
  runs: { type: "string", default: "3" }, // measured runs of each variant, after one to warm up
  model: { type: "string" },
  "peer-dtype": { type: "string", default: "float32" }, // float64: a reference for the numbers, not the time
};
const { values } = parseArgs({ options });
values.shared ??= String(Math.min(Number(values.prompt), Number(values.teacher)));
const size = wholeNumbers(
  values,
  Object.keys(options).filter((name) => name !== "model" && name !== "peer-dtype"),
);
const settings = {
  ...{ alpha: 0.5, topK: 100, tail: true, teacherRate: 0.05 },
  ...{ learningRate: 1e-5, beta1: 0.9, beta2: 0.999, weightDecay: 0.01, clipNorm: 1 },
};

/** Rollouts of real text: a prompt per group, a completion and a longer prompt for the teacher per rollout. */
function makeSamples(take) {
  return Array.from({ length: size.groups * size.rollouts }, (_, i) => {
    const group = Math.floor(i / size.rollouts) * 409;
    const member = i % size.rollouts;
    const spread = size.rollouts > 1 ? 0.5 + member / (size.rollouts - 1) : 1;
    const completion = take(997 + 53 * i, Math.max(1, Math.round(size.completion * spread)));
    const own = take(131 + 71 * i, size.teacher - size.shared);
    return {
      completion,
      student: Int32Array.of(...take(group, size.prompt), ...completion),
      teacher: Int32Array.of(...take(group, size.shared), ...own, ...completion),
    };
  });
}

/** Cuts samples where `tokens` of either side would exceed the limit. */
function cut(samples, tokens) {
  const parts = [];
  for (const sample of samples) {
    const longer = [...(parts.at(-1) ?? []), sample];
    const fits = ["student", "teacher"].every(
      (side) => tokens(longer.map((s) => s[side])) <= size["micro-tokens"],
    );
    if (parts.length > 0 && fits) parts.at(-1).push(sample);
    else parts.push([sample]);
  }
  return parts;
}

const packedTokens = (share) => (sequences) => packSequences(sequences, share).ids.length;
const paddedTokens = (sequences) => sequences.length * Math.max(...sequences.map(({ length }) => length));

/** This package's update. Every run starts from the weights that were loaded. */
class Ours {
  static async create(model) {
    for (const slot of ["initial", "teacher", "gradient"]) model.addSlot(slot, "f32");
    await copySlot(model, "weight", "initial");
    return new Ours(model, await Optimizer.create(model, settings));
  }

  constructor(model, optimizer) {
    this.model = model;
    this.device = model.device;
    this.optimizer = optimizer;
  }

  async reset() {
    for (const slot of ["weight", "teacher"]) await copySlot(this.model, "initial", slot);
    for (const slot of this.optimizer.slots) {
      const x = this.model.flat(slot);
      (await run(this.device, "scale", { x }, { factor: 0 })).x.dispose();
      x.dispose();
    }
    this.optimizer.updates = 0;
  }

  async lap(name, work) {
    const start = performance.now();
    const result = await work();
    this.phases[name] = (this.phases[name] ?? 0) + performance.now() - start;
    return result;
  }

  async hidden(side, part, share, options) {
    const packed = packSequences(
      part.map((sample) => sample[side]),
      share,
    );
    const rows = part.flatMap(({ completion: { length } }, i) => [...packed.rows[i].slice(-length - 1, -1)]);
    return this.model.forward(packed, Int32Array.from(rows), options);
  }

  async microBatch(part, share, tokens) {
    const { model, device } = this;
    const teacher = await this.lap("teacherForward", () =>
      this.hidden("teacher", part, share, { slot: "teacher" }),
    );
    const student = await this.lap("studentForward", () =>
      this.hidden("student", part, share, { keep: true }),
    );
    const ids = Int32Array.from(part.flatMap(({ completion }) => [...completion]));
    const n = ids.length;
    const inputs = {
      studentHidden: student.hidden,
      studentHead: model.head("weight"),
      teacherHidden: teacher.hidden,
      teacherHead: model.head("teacher"),
      tokenIds: Tensor.from(device, ids, [n]),
      weights: Tensor.from(device, new Float32Array(n).fill(1), [n]),
      coefficients: Tensor.from(device, new Float32Array(n).fill(1 / tokens), [n]),
      dHead: model.head("gradient"),
    };
    const { alpha, topK, tail } = settings;
    const outputs = await this.lap("loss", () =>
      run(device, "linear_distill_loss", inputs, { alpha, topK, tail }),
    );
    await this.lap("backward", () => model.backwardHidden(student.tape, outputs.dHidden));
    const losses = await outputs.tokenLoss.readFloats();
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.dispose();
    return losses.reduce((sum, x) => sum + x / tokens, 0);
  }

  async step(parts, share, norms) {
    const { model, device, optimizer } = this;
    await this.reset();
    device.resetPeakMemory();
    this.phases = {};
    const start = performance.now();
    await this.lap("optimizer", () => model.zeroGradient());
    const tokens = parts.flat().reduce((sum, { completion }) => sum + completion.length, 0);
    let loss = 0;
    for (const part of parts) loss += await this.microBatch(part, share, tokens);
    const result = { loss, norms: norms ? await this.#norms() : undefined };
    const gradientNorm = await this.lap("optimizer", async () => {
      const norm = await optimizer.gradientNorm();
      await optimizer.update(settings.learningRate, norm, settings.teacherRate);
      return norm;
    });
    const total = performance.now() - start;
    return { ...result, gradientNorm, total, phases: this.phases, peakBytes: device.memory().peak };
  }

  async #norms() {
    const norms = {};
    for (const { name } of this.model.parameters) {
      const gradient = this.model.parameter("gradient", name);
      norms[name] = Math.sqrt((await gradient.readFloats()).reduce((sum, x) => sum + x * x, 0));
      gradient.dispose();
    }
    return norms;
  }
}

/** Median, share of the whole and samples of each phase and of the whole step, in milliseconds. */
function summary(results) {
  const names = Object.keys(results[0].phases).sort();
  const of = (samples) => ({ median: quantile(samples, 0.5), samples });
  const { loss, gradientNorm, peakBytes } = results.at(-1);
  const phases = Object.fromEntries(names.map((name) => [name, of(results.map((r) => r.phases[name]))]));
  return { step: of(results.map(({ total }) => total)), phases, loss, gradientNorm, peakBytes };
}

/** How far two variants' first results lie apart, relatively; of the parameters' gradient norms the farthest. */
function difference(a, b) {
  const apart = (x, y) => Math.abs(x - y) / Math.max(Math.abs(x), Math.abs(y), Number.MIN_VALUE);
  const names = Object.keys(a.norms);
  const farthest = names.reduce((worst, name) =>
    apart(a.norms[name], b.norms[name]) > apart(a.norms[worst], b.norms[worst]) ? name : worst,
  );
  return {
    loss: apart(a.loss, b.loss),
    gradientNorm: apart(a.gradientNorm, b.gradientNorm),
    parameterNorm: apart(a.norms[farthest], b.norms[farthest]),
    parameter: farthest,
    parameters: names.length,
  };
}

async function measure(variants) {
  const names = Object.keys(variants);
  const first = {};
  for (const name of names) first[name] = await variants[name](true);
  const results = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < size.runs; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + round) % names.length];
      results[name].push(await variants[name](false));
      const { step, phases } = summary(results[name].slice(-1));
      const parts = Object.entries(phases).map(([phase, { median }]) => `${phase} ${Math.round(median)}`);
      console.log(`${name}: ${Math.round(step.median)} ms (${parts.join(", ")})`);
    }
  }
  const reference = names.at(-1);
  const others = names.slice(0, -1);
  return {
    variants: Object.fromEntries(names.map((name) => [name, summary(results[name])])),
    reference,
    differences: Object.fromEntries(others.map((name) => [name, difference(first[name], first[reference])])),
  };
}

function peerVariant(peer, samples, tokens) {
  const parts = cut(samples, paddedTokens).map((part) => ({
    student: part.map(({ student }) => [...student]),
    teacher: part.map(({ teacher }) => [...teacher]),
    counts: part.map(({ completion }) => completion.length),
  }));
  return (norms) => peer.call("step", { parts, settings: { ...settings, tokens }, norms });
}

function tokenCounts(samples) {
  const sides = ["student", "teacher"].map((side) => [side, samples.map((sample) => sample[side])]);
  const count = ([side, sequences]) => {
    const parts = cut(samples, packedTokens(true)).map((part) => part.map((sample) => sample[side]));
    const shared = parts.reduce((sum, part) => sum + packedTokens(true)(part), 0);
    return [side, { separate: packedTokens(false)(sequences), shared }];
  };
  const completion = samples.reduce((sum, sample) => sum + sample.completion.length, 0);
  return { ...Object.fromEntries(sides.map(count)), completion };
}

const loadAverage = loadavg()[0];
addon().setThreads(size.threads);
const device = await openDevice("cpu");
const model = await openModel(device, values.model);
const samples = makeSamples(await licenceText(model));
const tokens = tokenCounts(samples);
const peer = startPeer("train_step_torch.py", size.threads);
const about = { threads: size.threads, dtype: values["peer-dtype"] };
const versions = peer && (await withFolder(model, (folder) => peer.call("load", { folder, ...about })));
const ours = await Ours.create(model);
const [shared, separate] = [true, false].map((share) => cut(samples, packedTokens(share)));
const measured = await measure({
  shared: (norms) => ours.step(shared, true, norms),
  separate: (norms) => ours.step(separate, false, norms),
  ...(peer && { pytorch: peerVariant(peer, samples, tokens.completion) }),
});
await peer?.close();
for (const [name, apart] of Object.entries(measured.differences))
  console.log(`${name} against ${measured.reference}: ${JSON.stringify(apart)}`);
const described = { settings: { ...size, ...settings }, model: describeModel(model), tokens, versions };
const results = { loadAverage, ...described, ...measured };
const name = values["peer-dtype"] === "float32" ? "train-step" : "train-step-check";
console.log(`written: ${save(`${name}-${processorName()}`, device, results)}`);
