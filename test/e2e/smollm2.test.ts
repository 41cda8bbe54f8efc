// One training step of a real model on real data: SDPO_TEST_GGUF and SDPO_TEST_DATA.
import { join } from "node:path";
import { expect, test } from "vitest";
import { Trainer } from "../../lib/trainer/trainer.js";

const { SDPO_TEST_GGUF: model, SDPO_TEST_DATA: data } = process.env;

test.skipIf(!model || !data)(
  "one SDPO step of SmolLM2-135M on SciKnowEval",
  { timeout: 300_000 },
  async () => {
    const notices: string[] = [];
    using trainer = await Trainer.create(
      {
        model: model!,
        data: join(data!, "sciknoweval/chemistry/train.json"),
        environment: "mcq",
        environmentOptions: { omitReasoningRequest: true, formatFeedback: true },
        output: null,
        device: "cpu",
        steps: 1,
        tasksPerBatch: 1,
        rolloutsPerTask: 4,
        maxPromptTokens: 330,
        maxCompletionTokens: 12,
        learningRate: 1e-5,
      },
      { log: (message) => notices.push(message) },
    );
    const name = "model.layers.3.mlp.up_proj.weight";
    const before = await trainer.model.parameter("weight", name).readFloats();
    for await (const { metrics } of trainer.run()) {
      expect(metrics["completion.mean"]).toBeGreaterThan(1);
      expect(metrics["feedback.fraction"]).toBe(1);
      expect(metrics["distilled.fraction"]).toBe(1);
      expect(metrics.loss).toBeGreaterThan(0);
      expect(metrics.loss).toBeLessThan(1);
      expect(metrics.grad_norm).toBeGreaterThan(1e-3);
      expect(metrics["sampler_gap.max"]).toBeLessThan(1e-2);
      expect(metrics["tokens.prompt"]).toBeLessThanOrEqual(330);
      expect(metrics["sharing.saved"]).toBeGreaterThan(0.4);
    }
    const after = await trainer.model.parameter("weight", name).readFloats();
    const moved = after.filter((x, i) => x !== before[i]).length;
    expect(moved).toBeGreaterThan(after.length / 2);
    expect(notices.join()).toMatch(/device: cpu/);
  },
);
