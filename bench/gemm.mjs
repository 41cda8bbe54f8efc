// Matrix products of SmolLM2-135M (D = 576, I = 1536, kv = 192, V = 49152) and of a tiny model (D = 128):
// GFLOP/s of the built-in kernels, of oneDNN over the same threads, and of the default choice. From the 20th
// percentile of the times: neighbours on the machine only ever add to them.
//   npm run build && node bench/gemm.mjs [rounds = 15] [part of a case's name]
import { openDevice } from "../dist/native/device.js";
import { addon } from "../dist/native/load.js";
import { run } from "../dist/native/run.js";
import { Tensor } from "../dist/native/tensor.js";
import { compare, randomFloats, save } from "./harness.mjs";

const rounds = Number(process.argv[2] ?? 15);
const wanted = process.argv[3] ?? "";
const hasOneDnn = addon().buildInfo().gemm.includes("oneDNN");
const device = await openDevice("cpu");
const data = randomFloats(1 << 16);

function tensor(rows, columns, dtype = "f32") {
  const values = new Float32Array(rows * columns);
  for (let at = 0; at < values.length; at += data.length)
    values.set(data.subarray(0, Math.min(data.length, values.length - at)), at);
  return Tensor.from(device, values, [rows, columns], { dtype });
}

const product = (library, inputs, attributes) => async () => {
  addon().setGemm(library);
  const { c } = await run(device, "matmul", inputs, attributes);
  if (c !== inputs.c) c.dispose();
};

/** Y = X W^T, W [out, in]. */
function forward(t, inSize, outSize) {
  const x = tensor(t, inSize);
  const w = tensor(outSize, inSize);
  const half = tensor(outSize, inSize, "bf16");
  const f32 = { a: x, b: w };
  const bf16 = { a: x, b: half };
  return {
    flop: 2 * t * inSize * outSize,
    variants: {
      builtin: product("builtin", f32, { transposeB: true }),
      ...(hasOneDnn && { onednn: product("onednn", f32, { transposeB: true }) }),
      fastest: product("fastest", f32, { transposeB: true }),
      rowInvariant: product("fastest", f32, { transposeB: true, rowInvariant: true }),
      rowInvariantBf16: product("fastest", bf16, { transposeB: true, rowInvariant: true }),
      bf16Widened: product("fastest", bf16, { transposeB: true }),
      bf16Compute: product("fastest", bf16, { transposeB: true, bf16Compute: true }),
    },
  };
}

/** dX = dY W, or dW += dY^T X. */
function backward(inputs, attributes, flop) {
  return {
    flop,
    variants: {
      builtin: product("builtin", inputs, attributes),
      ...(hasOneDnn && { onednn: product("onednn", inputs, attributes) }),
      fastest: product("fastest", inputs, attributes),
    },
  };
}

const inputGradient = (t, inSize, outSize) =>
  backward({ a: tensor(t, outSize), b: tensor(outSize, inSize) }, {}, 2 * t * inSize * outSize);
const weightGradient = (t, inSize, outSize) =>
  backward(
    { a: tensor(t, outSize), b: tensor(t, inSize), c: tensor(outSize, inSize) },
    { transposeA: true },
    2 * t * inSize * outSize,
  );

const cases = {
  "forward T=64 576->1536": () => forward(64, 576, 1536),
  "forward T=512 576->1536": () => forward(512, 576, 1536),
  "forward T=512 1536->576": () => forward(512, 1536, 576),
  "forward T=512 576->192": () => forward(512, 576, 192),
  "forward T=2048 576->576": () => forward(2048, 576, 576),
  "forward T=128 576->49152": () => forward(128, 576, 49152),
  "dX T=64 576->1536": () => inputGradient(64, 576, 1536),
  "dX T=512 576->1536": () => inputGradient(512, 576, 1536),
  "dX T=512 1536->576": () => inputGradient(512, 1536, 576),
  "dX T=128 576->49152": () => inputGradient(128, 576, 49152),
  "dW T=64 576->1536": () => weightGradient(64, 576, 1536),
  "dW T=512 576->1536": () => weightGradient(512, 576, 1536),
  "dW T=512 1536->576": () => weightGradient(512, 1536, 576),
  "dW T=128 576->49152": () => weightGradient(128, 576, 49152),
  "tiny T=64 128->128": () => forward(64, 128, 128),
  "tiny T=256 128->384": () => forward(256, 128, 384),
  "decode m=1 576->1536": () => forward(1, 576, 1536),
  "decode m=8 576->1536": () => forward(8, 576, 1536),
  "decode m=16 1536->576": () => forward(16, 1536, 576),
  "decode m=32 576->1536": () => forward(32, 576, 1536),
  "decode m=1 576->49152": () => forward(1, 576, 49152),
  "decode m=8 576->49152": () => forward(8, 576, 49152),
  "prefill m=300 576->1536": () => forward(300, 576, 1536),
};

const results = {};
for (const [name, make] of Object.entries(cases)) {
  if (!name.includes(wanted)) continue;
  const { flop, variants } = make();
  const times = await compare(variants, { rounds });
  for (const time of Object.values(times)) time.gflops = flop / time.p20 / 1e6;
  results[name] = times;
  const cell = ([variant, { gflops }]) => {
    const share = times.onednn ? ` (${Math.round((100 * gflops) / times.onednn.gflops)}%)` : "";
    return `${variant} ${gflops.toFixed(1)}${variant === "onednn" ? "" : share}`;
  };
  process.stdout.write(`${name}: ${Object.entries(times).map(cell).join(", ")}\n`);
}
addon().setGemm("fastest");
process.stdout.write(`GFLOP/s (share of oneDNN); written to ${save("gemm", device, results)}\n`);
device.dispose();
