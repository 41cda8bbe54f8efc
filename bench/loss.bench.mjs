// The SDPO loss, forward and backward, beside PyTorch on the same cores: JSD over the top 100 and a tail, and
// over the whole vocabulary. Needs `npm run build`, and SDPO_BENCH_PYTHON: a Python with PyTorch.
//   SDPO_BENCH_PYTHON=venv/bin/python node bench/loss.bench.mjs [--rounds 30] [--no-compile] [--isa avx2] [--note text]
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openDevice } from "../dist/native/device.js";
import { addon } from "../dist/native/load.js";
import { run } from "../dist/native/run.js";
import { Tensor } from "../dist/native/tensor.js";
import { compare, randomFloats, save } from "./harness.mjs";

const { values: args } = parseArgs({
  options: {
    rounds: { type: "string", default: "30" },
    isa: { type: "string" },
    note: { type: "string", default: "" },
    "no-compile": { type: "boolean", default: false },
  },
});
const shapes = [
  { rows: 512, vocab: 49152 },
  { rows: 128, vocab: 151936 },
];
const supports = [
  { name: "top 100 and tail", topK: 100 },
  { name: "whole vocabulary", topK: null },
];
const REFERENCE_ROWS = 4;

/** PyTorch in a process of its own, asked line by line. */
class Peer {
  constructor(python) {
    const script = join(dirname(fileURLToPath(import.meta.url)), "peers/loss_torch.py");
    this.process = spawn(python, [script], { stdio: ["pipe", "pipe", "inherit"] });
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
  }

  async ask(request) {
    this.process.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.lines.next();
    if (done) throw new Error("the PyTorch process ended");
    return JSON.parse(value);
  }
}

function inputs(device, { rows, vocab }, student, teacher) {
  return {
    studentLogits: Tensor.from(device, student, [rows, vocab]),
    teacherLogits: Tensor.from(device, teacher, [rows, vocab]),
    tokenIds: Tensor.from(
      device,
      Int32Array.from({ length: rows }, (_, i) => (i * 7919) % vocab),
      [rows],
    ),
    weights: Tensor.from(device, new Float32Array(rows).fill(1), [rows]),
    coefficients: Tensor.from(device, new Float32Array(rows).fill(1 / rows), [rows]),
  };
}

/** Largest differences from float64: of token losses, and of gradients relative to the largest one. */
async function errors(peer, folder, { rows, vocab }, out) {
  const file = join(folder, "gradient");
  const { losses } = await peer.ask({ reference: REFERENCE_ROWS, gradient: file });
  const bytes = readFileSync(file);
  const expected = new Float64Array(bytes.buffer, bytes.byteOffset, REFERENCE_ROWS * vocab);
  const tokenLoss = await out.tokenLoss.readFloats();
  const gradient = await out.dlogits.readFloats();
  const largest = expected.reduce((most, g) => Math.max(most, Math.abs(g)), 0);
  return {
    loss: Math.max(...losses.map((loss, i) => Math.abs(loss - tokenLoss[i]))),
    gradient: expected.reduce((most, g, i) => Math.max(most, Math.abs(g - gradient[i] * rows)), 0) / largest,
  };
}

async function measure(device, peer, folder, shape, { name, topK }) {
  const { rows, vocab } = shape;
  const student = randomFloats(rows * vocab, 1).map((x) => 3 * x);
  const noise = randomFloats(rows * vocab, 2);
  const teacher = student.map((x, i) => x + noise[i]);
  const files = { student: join(folder, "student"), teacher: join(folder, "teacher") };
  writeFileSync(files.student, student);
  writeFileSync(files.teacher, teacher);
  const { threads } = addon().buildInfo();
  const setup = await peer.ask({ setup: { ...files, rows, vocab, alpha: 0.5, top_k: topK, threads } });
  const given = inputs(device, shape, student, teacher);
  const attributes = { alpha: 0.5, topK };
  const once = async () => {
    const out = await run(device, "distill_loss", given, attributes);
    for (const tensor of Object.values(out)) tensor.dispose();
  };
  const variants = { sdpo: once, eager: () => peer.ask({ run: "eager" }) };
  if (!args["no-compile"]) variants.compile = () => peer.ask({ run: "compile" });
  const times = await compare(variants, { rounds: Number(args.rounds), warmup: 3, least: 0 });
  const out = await run(device, "distill_loss", given, attributes);
  const error = await errors(peer, folder, shape, out);
  for (const tensor of [...Object.values(given), ...Object.values(out)]) tensor.dispose();
  const ratio = (peerName) =>
    times[peerName] && Math.round((10 * times[peerName].median) / times.sdpo.median) / 10;
  const result = { ...shape, support: name, torch: setup.torch, error, times };
  const line = { sdpo: times.sdpo.median, eager: ratio("eager"), compile: ratio("compile"), ...error };
  process.stdout.write(`${rows} x ${vocab}, ${name}: ${JSON.stringify(line)}\n`);
  return { ...result, fasterThan: { eager: ratio("eager"), compile: ratio("compile") } };
}

const python = process.env.SDPO_BENCH_PYTHON;
if (!python) {
  process.stderr.write("SDPO_BENCH_PYTHON: set it to a Python that has PyTorch (pip install torch)\n");
  process.exit(1);
}
if (args.isa) addon().setInstructionSet(args.isa);
const device = await openDevice("cpu");
const peer = new Peer(python);
const folder = mkdtempSync(join(tmpdir(), "sdpo-bench-"));
try {
  const cases = [];
  for (const shape of shapes)
    for (const support of supports) cases.push(await measure(device, peer, folder, shape, support));
  const path = save(`loss-${addon().buildInfo().instructionSet}`, device, { note: args.note, cases });
  process.stdout.write(`${path}\n`);
} finally {
  rmSync(folder, { recursive: true });
  peer.process.stdin.end();
  device.dispose();
}
