import { execFile } from "node:child_process";
import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import * as sdpo from "../../lib/index.js";
import { writeTinyModel } from "../tiny-model.js";

const example = fileURLToPath(new URL("../../docs/examples/embed.mjs", import.meta.url));

/** The mean Jensen-Shannon divergence of rows of logits, in float64. */
function meanDivergence(student: number[][], teacher: number[][]): number {
  const softmax = (z: number[]) => z.map((x) => Math.exp(x) / z.reduce((sum, y) => sum + Math.exp(y), 0));
  const kl = (p: number[], q: number[]) => p.reduce((sum, x, i) => sum + x * Math.log(x / q[i]!), 0);
  const rows = student.map((z, i) => {
    const [p, t] = [softmax(z), softmax(teacher[i]!)];
    const m = p.map((x, v) => (x + t[v]!) / 2);
    return (kl(p, m) + kl(t, m)) / 2;
  });
  return rows.reduce((a, b) => a + b, 0) / rows.length;
}

test("the embedding example runs: text, a loss, a training step in an environment of one's own", async () => {
  const folder = await writeTinyModel();
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [example, folder]);
  expect(stderr).toBe("");
  const student = [
    [2, 1, 0],
    [0, 1, 2],
  ];
  const teacher = [
    [0, 1, 2],
    [0, 1, 2],
  ];
  const [, loss, distilled] = /\nloss (\d\.\d{4})\ndistilled ([\d.]+)\n$/.exec(stdout)!;
  expect(Number(loss)).toBeCloseTo(meanDivergence(student, teacher), 4);
  expect(Number(distilled)).toBeGreaterThan(0);
  expect(stdout.indexOf("\nloss")).toBeGreaterThan(10);
  rmSync(folder, { recursive: true });
});

test("generation in another program ends when its signal fires", async () => {
  const folder = await writeTinyModel();
  using device = await sdpo.openDevice("cpu");
  using model = await sdpo.Model.load(folder, { device });
  const controller = new AbortController();
  let tokens = 0;
  const read = async () => {
    const options = { maxTokens: 900, ignoreEos: true, signal: controller.signal };
    for await (const _ of model.generate([{ role: "user", content: "Hello" }], options)) {
      if (++tokens === 5) controller.abort(new Error("enough"));
    }
  };
  await expect(read()).rejects.toMatchObject({ code: "ERR_SDPO_ABORTED", cause: { message: "enough" } });
  expect(tokens).toBe(5);
  rmSync(folder, { recursive: true });
});

test("the public interface has the parts that it promises", () => {
  const promised = `openDevice Tensor run Model Tokenizer distillationLoss policyLoss groupAdvantages
    linearDistillationLoss teacherMessages Trainer environments defineEnvironment SdpoError evaluate sft`;
  for (const name of promised.split(/\s+/)) expect(sdpo).toHaveProperty(name);
});
