/**
 * Makes the demo's model: `node dist/demo/pretrain.js FOLDER --seed 0`. A small Llama learns from session logs
 * (houseDocument) how dates are written in house formats and how to answer an error message. The customers that
 * the demo asks for have new formats in every log, so that nothing is learnt about theirs.
 */
import { createHash } from "node:crypto";
import { readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type HouseDocument, houseDocument } from "../environments/house-dates-documents.js";
import { NEWLINE_ID, WORDS, wordTokenizerFiles } from "../environments/house-dates-words.js";
import { Random } from "../environments/random.js";
import { SdpoError, show } from "../errors.js";
import { parseModelConfig } from "../models/formats/config.js";
import { writeJson } from "../models/formats/safetensors-write.js";
import { Model } from "../models/model.js";
import { packSequences } from "../models/packing.js";
import { type Device, openDevice } from "../native/device.js";
import { run } from "../native/run.js";
import { Tensor } from "../native/tensor.js";
import { Tokenizer } from "../text/tokenizer.js";
import { Optimizer } from "../trainer/optimizer.js";
import { heldOut, measureBaseline } from "./measure.js";

/** The model: 526,080 parameters. */
const CONFIG = {
  model_type: "llama",
  vocab_size: WORDS.length,
  hidden_size: 128,
  intermediate_size: 256,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  tie_word_embeddings: true,
  eos_token_id: NEWLINE_ID,
};

/** How it is trained. The schedule is one of `scheduleSteps`; training ends at `steps`. */
export const PRETRAINING = {
  steps: 1500,
  scheduleSteps: 1600,
  warmupSteps: 100,
  documentsPerStep: 64,
  learningRate: 2e-3,
  lowestRate: 0.02,
  beta1: 0.9,
  beta2: 0.98,
  weightDecay: 0.01,
  clipNorm: 1,
  initialDeviation: 0.05,
};
export type Pretraining = typeof PRETRAINING;

const REPORT_STEPS = 100;

export interface PretrainOptions {
  seed: number;
  /** Takes the lines that say how far it is. */
  log?: (line: string) => void;
  /** Settings other than {@link PRETRAINING}, for tests. */
  settings?: Partial<Pretraining>;
}

/** Warm-up, then a cosine from the full rate to `lowestRate` of it. `step` counts from 0. */
function learningRateOf(step: number, settings: Pretraining): number {
  const { learningRate, lowestRate, warmupSteps, scheduleSteps } = settings;
  const wave = (1 + Math.cos((Math.PI * step) / scheduleSteps)) / 2;
  return learningRate * Math.min(1, (step + 1) / warmupSteps) * (lowestRate + (1 - lowestRate) * wave);
}

/** A number of the standard normal distribution (Box and Muller 1958). */
function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}

/** Normal weights, norms 1; projections back to the hidden states are smaller by the root of their number. */
async function initialize(model: Model, deviation: number, random: Random): Promise<void> {
  const perLayer = deviation / Math.sqrt(2 * model.config.layers);
  for (const { name, shape } of model.parameters) {
    const scale = /\.(o_proj|down_proj)\./.test(name) ? perLayer : deviation;
    const size = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: size }, () =>
      shape.length === 1 ? 1 : scale * normal(random),
    );
    using x = model.parameter("weight", name);
    using y = Tensor.from(model.device, values, shape);
    (await run(model.device, "lerp", { x, y }, { rate: 1 })).x.dispose();
  }
}

/** Sets slot "gradient" to that of the mean cross entropy over the documents' masked tokens, which it returns. */
async function gradient(model: Model, documents: readonly HouseDocument[]): Promise<number> {
  const packed = packSequences(documents.map(({ ids }) => Int32Array.from(ids)));
  const learnt = documents.map(({ mask }) => [...mask.keys()].filter((t) => mask[t] === 1));
  const rows = learnt.flatMap((tokens, i) => tokens.map((t) => packed.rows[i]![t - 1]!));
  const targets = learnt.flatMap((tokens, i) => tokens.map((t) => documents[i]!.ids[t]!));
  const n = targets.length;
  await model.zeroGradient();
  const { hidden, tape } = await model.forward(packed, Int32Array.from(rows), { keep: true });
  const { device } = model;
  const inputs = {
    hidden,
    head: model.head(),
    tokenIds: Tensor.from(device, Int32Array.from(targets), [n]),
    weights: Tensor.from(device, new Float32Array(n).fill(1), [n]),
    coefficients: Tensor.from(device, new Float32Array(n).fill(1 / n), [n]),
    dHead: model.head("gradient"),
  };
  const outputs = await run(device, "linear_cross_entropy", inputs);
  await model.backwardHidden(tape!, outputs.dHidden!);
  const losses = await outputs.tokenLoss.readFloats();
  for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.dispose();
  return losses.reduce((sum, loss) => sum + loss / n, 0);
}

/** A model trained from random weights. The same seed gives the same weights on the same kind of processor. */
export async function pretrain(device: Device, options: PretrainOptions): Promise<Model> {
  const settings = { ...PRETRAINING, ...options.settings };
  const files = wordTokenizerFiles();
  const tokenizer = Tokenizer.fromFiles({
    tokenizerJson: files["tokenizer.json"],
    tokenizerConfig: files["tokenizer_config.json"],
  });
  const model = Model.create(parseModelConfig(CONFIG, "the demo's configuration"), { device, tokenizer });
  await initialize(model, settings.initialDeviation, new Random(options.seed, 0));
  const optimizer = await Optimizer.create(model, settings);
  const random = new Random(options.seed, 1);
  const start = performance.now();
  let total = 0;
  for (let step = 0; step < settings.steps; step++) {
    const documents = Array.from({ length: settings.documentsPerStep }, () => houseDocument(random));
    total += await gradient(model, documents);
    await optimizer.update(learningRateOf(step, settings), await optimizer.gradientNorm());
    if ((step + 1) % REPORT_STEPS !== 0) continue;
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    options.log?.(`step ${step + 1}: loss ${(total / REPORT_STEPS).toFixed(4)}, ${seconds} s`);
    total = 0;
  }
  return model;
}

/** Writes the model, its tokenizer, and `pretraining.json`: seed, settings and the weights' SHA-256. */
export async function savePretrained(model: Model, folder: string, seed: number): Promise<void> {
  await model.save(folder);
  for (const [name, content] of Object.entries(wordTokenizerFiles()))
    await writeJson(join(folder, name), content);
  const weights = await readFile(join(folder, "model.safetensors"));
  await writeJson(join(folder, "pretraining.json"), {
    script: "lib/demo/pretrain.ts",
    seed,
    settings: PRETRAINING,
    device: model.device.description,
    "model.safetensors": {
      bytes: weights.length,
      sha256: createHash("sha256").update(weights).digest("hex"),
    },
  });
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { seed: { type: "string", default: "0" } },
    allowPositionals: true,
  });
  const [folder] = positionals;
  const seed = Number(values.seed);
  if (folder === undefined || positionals.length > 1 || !Number.isSafeInteger(seed) || seed < 0) {
    const given = show(process.argv.slice(2));
    throw new SdpoError("ERR_SDPO_ARGUMENT", `expected FOLDER [--seed a whole number from 0], got ${given}`);
  }
  const log = (line: string) => process.stdout.write(`${line}\n`);
  using device = await openDevice("cpu");
  log(device.description);
  const model = await pretrain(device, { seed, log });
  const { student, sampled, teacher } = await measureBaseline(model, await heldOut(model, 0));
  log(`world 0, held-out: student ${student.toFixed(3)} (sampled ${sampled.toFixed(3)})`);
  log(`world 0, held-out: the same model after feedback ${teacher.toFixed(3)}`);
  await savePretrained(model, folder, seed);
}

if (process.argv[1] && (await realpath(process.argv[1])) === fileURLToPath(import.meta.url)) await main();
