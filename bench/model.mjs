// What the benchmarks of a whole model share: the model, the same weights for a peer, token ids to work on.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { Model } from "../dist/models/model.js";
import { addon } from "../dist/native/load.js";

/** The model that --model or SDPO_TEST_GGUF names, widened to f32. Ends the process where there is none. */
export async function openModel(device, path = process.env.SDPO_TEST_GGUF) {
  if (path) return Model.load(path, { device, dtype: "f32" });
  console.error("no model: set SDPO_TEST_GGUF or give --model <folder or .gguf file>");
  process.exit(2);
}

/** What a result says of the model. */
export function describeModel(model) {
  const { layers, hiddenSize, vocabSize } = model.config;
  const numbers = model.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return {
    file: basename(model.path),
    parameters: numbers,
    layers,
    hiddenSize,
    vocabSize,
    dtype: model.dtype,
  };
}

/** Writes the model as a Hugging Face folder, hands it to `use`, and removes it. */
export async function withFolder(model, use) {
  const folder = await mkdtemp(join(tmpdir(), "sdpo-bench-"));
  try {
    await model.save(folder);
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** `take(start, n)`: n token ids of this repository's licence text, which begins again at its end. */
export async function licenceText(model) {
  const text = await readFile(new URL("../LICENSE", import.meta.url), "utf8");
  const ids = model.tokenizer.encode(text);
  return (start, n) => Int32Array.from({ length: n }, (_, i) => ids[(start + i) % ids.length]);
}

/** A part of a result's file name: the processor and the kernels that ran. */
export function processorName() {
  const name = `${cpus()[0]?.model ?? "unknown"} ${addon().buildInfo().instructionSet}`;
  return name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");
}

/** The options as whole numbers. Ends the process where one is not. */
export function wholeNumbers(values, names) {
  const numbers = names.map((name) => [name, Number(values[name])]);
  const wrong = numbers.find(([, value]) => !Number.isInteger(value) || value < 1);
  if (!wrong) return Object.fromEntries(numbers);
  console.error(`--${wrong[0]}: expected a whole number of at least 1, got ${values[wrong[0]]}`);
  process.exit(2);
}
