import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../lib/environments/random.js";
import {
  type EngineOptions,
  type Generated,
  GenerationEngine,
  type GenerationRequest,
} from "../../lib/models/generation.js";
import { Model } from "../../lib/models/model.js";
import { checkSampling } from "../../lib/models/sampling.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { addon } from "../../lib/native/load.js";
import { goldenPath } from "../golden-tensors.js";

const random = new Random(11);
const prompt = (n: number) => Int32Array.from({ length: n }, () => 3 + random.below(90));

let device: Device;
let model: Model;
beforeAll(async () => {
  device = await openDevice("cpu");
  model = await Model.load(goldenPath("models", "llama-tied-gqa-rope3"), { device });
});
afterAll(() => model.dispose());

async function generate(
  requests: GenerationRequest[],
  options: Partial<EngineOptions> = {},
): Promise<{ done: Map<string, Generated>; engine: GenerationEngine }> {
  const defaults = { ...checkSampling({ maxTokens: 40, seed: 7 }), slot: "weight", step: 3, batchSize: 32 };
  const engine = new GenerationEngine(model, requests, { signal: undefined, ...defaults, ...options });
  const done = new Map<string, Generated>();
  for await (const batch of engine.run()) {
    for (const rollout of batch) {
      if (rollout.finishReason) done.set(`${requests[rollout.request]!.task}/${rollout.rollout}`, rollout);
    }
  }
  return { done, engine };
}

describe("continuous batching", () => {
  const requests = [5, 33, 70, 1, 64].map((n, task) => ({ prompt: prompt(n), task, rollouts: [0, 1, 2, 3] }));

  test("a rollout does not depend on what shares its batch, bit for bit", async () => {
    const { done: together } = await generate(requests);
    expect(together.size).toBe(20);
    for (const batchSize of [1, 3, 7]) {
      const { done } = await generate(requests, { batchSize });
      for (const [name, rollout] of together) {
        expect(done.get(name)!.ids, name).toEqual(rollout.ids);
        expect(done.get(name)!.logprobs, name).toEqual(rollout.logprobs);
      }
    }
    const { done: alone } = await generate([{ ...requests[2]!, rollouts: [3] }]);
    expect(alone.get("2/3")).toMatchObject({
      ids: together.get("2/3")!.ids,
      logprobs: together.get("2/3")!.logprobs,
    });
    const { done: reversed } = await generate([...requests].reverse());
    for (const [name, rollout] of together) expect(reversed.get(name)!.ids, name).toEqual(rollout.ids);
  });

  test("nor on the number of threads", async () => {
    const { threads } = addon().buildInfo();
    const { done } = await generate(requests);
    addon().setThreads(1);
    const { done: single } = await generate(requests);
    addon().setThreads(threads);
    for (const [name, rollout] of done) expect(single.get(name)!.logprobs).toEqual(rollout.logprobs);
  });

  test("rollouts of a group differ, and so do seeds and steps", async () => {
    const one = [requests[1]!];
    const texts = async (options: Partial<EngineOptions>) =>
      [...(await generate(one, options)).done.values()].map(({ ids }) => ids.join());
    const first = await texts({});
    expect(new Set(first).size).toBe(4);
    expect(await texts({})).toEqual(first);
    expect(await texts({ seed: 8 })).not.toEqual(first);
    expect(await texts({ seed: 7 + 2 ** 40 })).not.toEqual(first);
    expect(await texts({ step: 4 })).not.toEqual(first);
  });

  test("a prompt is computed once for its group, also where the group does not fit at once", async () => {
    for (const batchSize of [32, 3]) {
      const { engine } = await generate(requests, { batchSize });
      expect(engine.prefill).toEqual({
        computed: 5 + 33 + 70 + 1 + 64,
        withoutSharing: 4 * (5 + 33 + 70 + 1 + 64),
      });
    }
  });

  test("logprobs are those of a forward pass over prompt and completion", async () => {
    const { done } = await generate([requests[1]!], { temperature: 0.8 });
    for (const rollout of done.values()) {
      const sequence = [...requests[1]!.prompt, ...rollout.ids];
      const [logits] = await model.logits([sequence]);
      const v = model.config.vocabSize;
      rollout.ids.forEach((id, i) => {
        const at = requests[1]!.prompt.length - 1 + i;
        const row = Float64Array.from(logits!.subarray(at * v, (at + 1) * v), (z) => z / Math.fround(0.8));
        const most = Math.max(...row);
        const lse = most + Math.log(row.reduce((sum, z) => sum + Math.exp(z - most), 0));
        expect(Math.abs(rollout.logprobs[i]! - (row[id]! - lse))).toBeLessThan(2e-4);
      });
    }
  });

  test("ends at end tokens, at the limit, and not at end tokens where they are ignored", async () => {
    const eos = model.config.eosTokenIds;
    const { done } = await generate(
      requests.map((request) => ({ ...request, rollouts: Array.from({ length: 12 }, (_, i) => i) })),
      { temperature: 1.5 },
    );
    const reasons = new Set([...done.values()].map(({ finishReason }) => finishReason));
    expect(reasons).toEqual(new Set(["stop", "length"]));
    for (const { ids, finishReason } of done.values()) {
      const at = ids.findIndex((id) => eos.includes(id));
      if (finishReason === "stop") expect(at).toBe(ids.length - 1);
      else expect([at, ids.length]).toEqual([-1, 40]);
    }
    const ignored = await generate(requests, { ignoreEos: true, temperature: 1.5 });
    for (const { ids } of ignored.done.values()) expect(ids.length).toBe(40);
  });
});

describe("generate", () => {
  test("streams tokens and stops at once when its signal fires", async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const stream = model.generate(prompt(9), { maxTokens: 1000, ignoreEos: true, signal: controller.signal });
    await expect(async () => {
      for await (const { id, logprob, text } of stream) {
        seen.push(id);
        expect(logprob).toBeLessThanOrEqual(0);
        expect(text).toBe("");
        if (seen.length === 5) controller.abort(new Error("enough"));
      }
    }).rejects.toMatchObject({ code: "ERR_SDPO_ABORTED" });
    expect(seen.length).toBe(5);
  });

  test("frees its cache", async () => {
    const before = device.memory().current;
    for await (const _ of model.generate(prompt(200), { maxTokens: 20 }));
    const controller = new AbortController();
    const stream = model.generate(prompt(200), { maxTokens: 20, signal: controller.signal });
    await stream.next();
    controller.abort();
    await stream.next().catch(() => undefined);
    expect(device.memory().current - before).toBe(0);
  });

  test.each([0, 1, 2, 5, 10])("aborted after %i ms, it has freed all it took", async (delay) => {
    const before = device.memory().current;
    const controller = new AbortController();
    const { signal } = controller;
    setTimeout(() => controller.abort(), delay);
    const drain = async () => {
      for await (const _ of model.generate(prompt(700), { maxTokens: 3000, ignoreEos: true, signal }));
    };
    await expect(drain()).rejects.toMatchObject({ code: "ERR_SDPO_ABORTED" });
    expect(device.memory().current).toBe(before);
  });

  const refused: [string, () => AsyncIterable<unknown>, RegExp][] = [
    ["no tokens", () => model.generate([]), /prompt: expected at least one token id/],
    [
      "an id outside the vocabulary",
      () => model.generate([1, 97]),
      /prompt\[1\]: token id 97 is not in \[0, 97\)/,
    ],
    ["a fraction", () => model.generate([1.5]), /token id 1\.5/],
    [
      "a text for a prompt",
      () => model.generate("hello" as never),
      /expected messages or token ids, got "hello"/,
    ],
    [
      "messages without a tokenizer",
      () => model.generate([{ role: "user", content: "x" }]),
      /has no tokenizer/,
    ],
    ["maxTokens 0", () => model.generate([1], { maxTokens: 0 }), /maxTokens: expected an integer from 1/],
    ["temperature below 0", () => model.generate([1], { temperature: -1 }), /temperature: .* got -1/],
    ["topP above 1", () => model.generate([1], { topP: 1.1 }), /topP/],
    ["minP NaN", () => model.generate([1], { minP: Number.NaN }), /minP/],
    ["topK a fraction", () => model.generate([1], { topK: 2.5 }), /topK/],
    ["seed below 0", () => model.generate([1], { seed: -1 }), /seed/],
    ["an empty stop text", () => model.generate([1], { stop: [""] }), /stop/],
    [
      "more than the model's positions",
      () => model.generate([1], { maxTokens: 5000 }),
      /exceed the model's 4096 positions/,
    ],
  ];
  test.each(refused)("refuses %s", async (_, attempt, message) => {
    await expect(async () => {
      for await (const _ of attempt());
    }).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_SDPO_/),
      message: expect.stringMatching(message),
    });
  });
});
