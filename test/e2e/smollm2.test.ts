import { expect, test } from "vitest";
import { mcq } from "../../lib/environments/mcq.js";
import { Trainer } from "../../lib/trainer/trainer.js";

const model = process.env.SDPO_TEST_GGUF;

test.skipIf(!model)(
  "one SDPO step of SmolLM2-135M-Instruct on a question, from the format's feedback",
  { timeout: 600_000 },
  async () => {
    using trainer = await Trainer.create({
      ...{ model: model!, environment: mcq({ formatFeedback: true }), device: "cpu", steps: 1 },
      data: [{ prompt: "Which is a noble gas?\nA: N\nB: O\nC: Ne\nD: Cl", answer: "C" }],
      ...{ tasksPerBatch: 1, rolloutsPerTask: 2, maxPromptTokens: 128, maxCompletionTokens: 8 },
      ...{ maxRepromptTokens: 256, learningRate: 1e-5, warmupSteps: 0 },
    });
    const weights = async () => (await trainer.model.parameter("weight", "model.norm.weight").read()).slice();
    const before = await weights();
    for await (const { metrics } of trainer.run()) {
      expect(Object.values(metrics).every(Number.isFinite)).toBe(true);
      expect(metrics).toMatchObject({ "distilled.fraction": 1, updates: 1, skipped_steps: 0 });
      expect(metrics.loss).toBeGreaterThan(0);
      // The packed forward pass gives the logprobs that generation over the cache sampled with.
      expect(metrics["sampler_gap.max"]).toBeLessThan(0.01);
    }
    expect(await weights()).not.toEqual(before);
  },
);
