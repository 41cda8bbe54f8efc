import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { groupAdvantages } from "../../lib/losses/group-advantages.js";
import { type PolicyOptions, policyLoss } from "../../lib/losses/policy.js";
import type { Device } from "../../lib/native/device.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";
import { agrees, goldenCases, goldenTensors, gradientAgrees } from "./loss-golden.js";
import { currentTarget, resetTarget, targetsOf, useTarget } from "./targets.js";

interface GrpoCase extends Pick<PolicyOptions, "clipLow" | "clipHigh" | "dualClip"> {
  file: string;
  shape: [number, number, number];
  lossAggregation: PolicyOptions["aggregation"];
  normalizeByStd: boolean;
  metrics: Record<string, number>;
}

let device: Device = currentTarget().device;
afterAll(resetTarget);

describe.each(targetsOf("policy_loss"))("policy loss, golden data, $name", (target) => {
  beforeAll(() => {
    device = useTarget(target);
  });

  test.each(goldenCases<GrpoCase>("grpo-manifest.json"))("$file", async (c) => {
    const golden = goldenTensors(c.file);
    const [b, t] = c.shape;
    const advantages = groupAdvantages(golden.rewards!, golden.group_ids!, {
      normalizeByStd: c.normalizeByStd,
    });
    const spread = Float32Array.from({ length: b * t }, (_, i) => advantages[Math.floor(i / t)]!);
    const masked = spread.map((a, i) => a * golden.response_mask![i]!);
    const expected = golden.advantages!.map((a, i) => a * golden.response_mask![i]!);
    expect(agrees(masked, expected)).toBe(true);

    const options: PolicyOptions = {
      clipLow: c.clipLow!,
      clipHigh: c.clipHigh!,
      dualClip: c.dualClip!,
      aggregation: c.lossAggregation!,
    };
    const inputs = {
      shape: c.shape,
      logits: golden.student_logits as Float32Array,
      tokenIds: golden.token_ids!,
      completionMask: golden.response_mask!,
      oldLogprobs: golden.old_log_probs!,
      advantages,
      ...(golden.rollout_weights ? { rolloutWeights: golden.rollout_weights } : {}),
    };
    const out = await policyLoss(device, inputs, options);
    expect(agrees([out.loss], golden.loss!)).toBe(true);
    const gradient = await out.dLogits.readFloats();
    expect(gradientAgrees(gradient, golden.grad_student_logits!)).toBe(true);
    expect(out.clipFraction).toBeCloseTo(c.metrics["actor/pg_clipfrac"]!, 6);

    const logits = Tensor.from(device, inputs.logits, c.shape);
    const inPlace = await policyLoss(
      device,
      { ...inputs, logits, advantages: spread },
      { ...options, inPlace: true },
    );
    expect(await logits.readFloats()).toEqual(gradient);
    expect(inPlace.loss).toBe(out.loss);
  });
});

const V = 11;

/** The loss of one row in float64, as method and op header state it. */
function naive(
  z: Float64Array,
  token: number,
  row: { old: number; advantage: number; reference: number },
  o: { clipLow: number; clipHigh: number; dualClip: number; klCoefficient: number; klKind: string },
) {
  const max = Math.max(...z);
  const logprob = z[token]! - max - Math.log(z.reduce((s, x) => s + Math.exp(x - max), 0));
  const ratio = Math.exp(logprob - row.old);
  const cut = Math.min(Math.max(ratio, 1 - o.clipLow), 1 + o.clipHigh);
  const a = row.advantage;
  let loss = Math.max(-a * ratio, -a * cut);
  if (a < 0) loss = Math.min(loss, -a * o.dualClip);
  const gap = logprob - row.reference;
  const kls: Record<string, number> = { k1: gap, k2: gap ** 2 / 2, k3: Math.exp(-gap) + gap - 1 };
  return loss + o.klCoefficient * kls[o.klKind]!;
}

describe.each(["k1", "k2", "k3"] as const)("policy loss with a KL estimate, %s", (klKind) => {
  test("token losses are the naive ones, gradients their finite differences", async () => {
    const n = 24;
    const normal = (i: number, k: number) => 2 * Math.sin(i * 12.9898 + k * 78.233 + 1);
    const logits = Float32Array.from({ length: n * V }, (_, i) => normal(i, 0));
    const rows = Array.from({ length: n }, (_, i) => ({
      old: -2.4 + 0.4 * normal(i, 1),
      advantage: normal(i, 2),
      reference: -2.4 + 0.3 * normal(i, 3),
    }));
    const options = { clipLow: 0.2, clipHigh: 0.3, dualClip: 2, klCoefficient: 0.7, klKind };
    const tokenIds = Int32Array.from({ length: n }, (_, i) => (i * 7) % V);
    const weights = Float32Array.from({ length: n }, (_, i) => (i % 5 === 4 ? 0 : 0.5 + (i % 3)));
    const coefficients = Float32Array.from({ length: n }, (_, i) => 0.25 + (i % 2));
    const column = (pick: (row: (typeof rows)[number]) => number) =>
      Tensor.from(device, Float32Array.from(rows, pick), [n]);
    const out = await run(
      device,
      "policy_loss",
      {
        logits: Tensor.from(device, logits, [n, V]),
        tokenIds: Tensor.from(device, tokenIds, [n]),
        weights: Tensor.from(device, weights, [n]),
        coefficients: Tensor.from(device, coefficients, [n]),
        oldLogprobs: column((row) => row.old),
        advantages: column((row) => row.advantage),
        referenceLogprobs: column((row) => row.reference),
      },
      options,
    );
    const losses: number[] = [];
    const gradient: number[] = [];
    for (let i = 0; i < n; i++) {
      const z = Float64Array.from(logits.subarray(i * V, (i + 1) * V));
      const value = () => weights[i]! * naive(z, tokenIds[i]!, rows[i]!, options);
      losses.push(value());
      for (let v = 0; v < V; v++) {
        const [h, at] = [1e-5, z[v]!];
        z[v] = at + h;
        const up = value();
        z[v] = at - h;
        gradient.push((coefficients[i]! * (up - value())) / (2 * h));
        z[v] = at;
      }
    }
    expect(agrees(await out.tokenLoss.readFloats(), losses)).toBe(true);
    expect(gradientAgrees(await out.dlogits!.readFloats(), gradient)).toBe(true);
    const clipped = await out.clipped.read();
    expect(new Set(clipped)).toContain(1);
    expect(new Set(clipped)).toContain(0);
  });
});
