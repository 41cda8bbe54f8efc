import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bf16, expectClose, f32, type Host, normals, roundBf16, runOp } from "./helpers.js";
import { resetTarget, targetsOf, useTarget } from "./targets.js";

const defaults = { learningRate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01, step: 1 };
type Settings = typeof defaults & { gradientScale?: number; emaRate?: number };

/** torch.optim.AdamW in float64, then the moving average. */
function adamw(theta: number, g: number, m: number, v: number, ema: number, s: Settings) {
  const scaled = g * (s.gradientScale ?? 1);
  const first = s.beta1 * m + (1 - s.beta1) * scaled;
  const second = s.beta2 * v + (1 - s.beta2) * scaled ** 2;
  const denominator = Math.sqrt(second / (1 - s.beta2 ** s.step)) + s.epsilon;
  const decayed = theta * (1 - s.learningRate * s.weightDecay);
  const next = decayed - (s.learningRate * first) / (1 - s.beta1 ** s.step) / denominator;
  const rate = s.emaRate ?? 0;
  return { next, first, second, ema: (1 - rate) * ema + rate * next };
}

const square = (make: () => number) => () => make() ** 2;

function given(n: number, kind: { parameter: typeof f32; moments: typeof f32 }) {
  const host = {
    parameter: kind.parameter([n], normals(1)),
    gradient: f32([n], normals(2, 0.1)),
    firstMoment: kind.moments([n], normals(3, 0.01)),
    secondMoment: kind.moments([n], square(normals(4, 0.1))),
  };
  return host;
}

function expected(host: ReturnType<typeof given>, theta: Host, ema: Host | undefined, s: Settings) {
  const all = Array.from(theta.data, (value, i) =>
    adamw(
      value,
      host.gradient.data[i]!,
      host.firstMoment.data[i]!,
      host.secondMoment.data[i]!,
      ema?.data[i] ?? 0,
      s,
    ),
  );
  return {
    next: all.map((a) => a.next),
    first: all.map((a) => a.first),
    second: all.map((a) => a.second),
    ema: all.map((a) => a.ema),
  };
}

const bf16Tolerance = 2 ** -8;

describe.each(targetsOf("adamw"))("adamw on $name", (target) => {
  beforeAll(() => useTarget(target));
  afterAll(resetTarget);

  test.each([1, 37, 100_003])("%i float32 parameters with every setting", async (n) => {
    const settings = {
      ...defaults,
      learningRate: 0.01,
      beta2: 0.95,
      epsilon: 1e-6,
      weightDecay: 0.1,
      step: 7,
      gradientScale: 0.25,
      emaRate: 0.05,
    };
    const host = given(n, { parameter: f32, moments: f32 });
    const ema = f32([n], normals(5));
    const want = expected(host, host.parameter, ema, settings);
    const out = await runOp("adamw", { ...host, ema }, settings);
    expectClose(out.parameter!, want.next, 1e-6);
    expectClose(out.firstMoment!, want.first, 1e-7);
    expectClose(out.secondMoment!, want.second, 1e-7);
    expectClose(out.ema!, want.ema, 1e-6);
    expect(out.master).toBeUndefined();
  });

  test("ten steps from nothing follow torch's formula", async () => {
    const n = 50;
    let theta = f32([n], normals(6));
    let firstMoment = f32([n], () => 0);
    let secondMoment = f32([n], () => 0);
    let oracle = Array.from(theta.data, (value) => ({ next: value, first: 0, second: 0 }));
    for (let step = 1; step <= 10; step++) {
      const gradient = f32([n], normals(100 + step));
      oracle = oracle.map((o, i) =>
        adamw(o.next, gradient.data[i]!, o.first, o.second, 0, { ...defaults, step }),
      );
      const out = await runOp(
        "adamw",
        { parameter: theta, gradient, firstMoment, secondMoment },
        { learningRate: 1e-3, step },
      );
      theta = f32([n], out.parameter!);
      firstMoment = f32([n], out.firstMoment!);
      secondMoment = f32([n], out.secondMoment!);
    }
    expectClose(
      theta.data,
      oracle.map((o) => o.next),
      1e-6,
    );
  });

  test("bf16 parameter with a float32 master", async () => {
    const n = 77;
    const host = given(n, { parameter: bf16, moments: f32 });
    const master = f32([n], normals(8));
    const ema = bf16([n], normals(9));
    const settings = { ...defaults, learningRate: 0.1, emaRate: 0.5 };
    const want = expected(host, master, ema, settings);
    const out = await runOp("adamw", { ...host, master, ema }, settings);
    expectClose(out.master!, want.next, 1e-6);
    expect(out.parameter).toEqual(out.master!.map(roundBf16));
    expectClose(out.ema!, want.ema, bf16Tolerance);
  });

  test("everything in bf16: the average follows the parameter as stored", async () => {
    const n = 77;
    const host = given(n, { parameter: bf16, moments: bf16 });
    const ema = f32([n], () => 0);
    const settings = { ...defaults, learningRate: 0.1, emaRate: 1 };
    const want = expected(host, host.parameter, ema, settings);
    const out = await runOp("adamw", { ...host, ema }, settings);
    expectClose(out.parameter!, want.next, bf16Tolerance);
    expectClose(out.firstMoment!, want.first, bf16Tolerance);
    expectClose(out.secondMoment!, want.second, bf16Tolerance);
    expect(out.ema).toEqual(out.parameter);
    expect(out.firstMoment).toEqual(out.firstMoment!.map(roundBf16));
  });

  test("the norm clips, as torch.nn.utils.clip_grad_norm_ does", async () => {
    const n = 1003;
    const host = given(n, { parameter: f32, moments: f32 });
    const { norm } = await runOp("grad_norm", { gradient: host.gradient });
    for (const [gradientScale, clipNorm] of [
      [1, 0.5],
      [0.25, 0.1],
      [1, 1e6],
    ] as const) {
      const factor = Math.min(1, clipNorm / (norm![0]! * gradientScale + 1e-6));
      const want = expected(host, host.parameter, undefined, {
        ...defaults,
        gradientScale: gradientScale * factor,
      });
      const inputs = { ...host, norm: f32([2], norm!) };
      const out = await runOp("adamw", inputs, { ...defaults, gradientScale, clipNorm });
      expectClose(out.parameter!, want.next, 1e-6);
      expectClose(out.firstMoment!, want.first, 1e-7);
    }
  });

  test.each([
    [Number.NaN, 0],
    [Number.POSITIVE_INFINITY, 0],
    [3, 1],
  ])("a norm of %d with %d elements not finite leaves everything as it was", async (value, unfinished) => {
    const host = given(70, { parameter: bf16, moments: bf16 });
    const ema = f32([70], normals(5));
    const master = f32([70], normals(6));
    const inputs = { ...host, master, ema, norm: f32([2], [value, unfinished]) };
    const out = await runOp("adamw", inputs, { ...defaults, emaRate: 0.5, clipNorm: 1 });
    const kept = { parameter: host.parameter, firstMoment: host.firstMoment, master, ema };
    for (const [name, { data }] of Object.entries(kept)) expect(out[name as keyof typeof out]).toEqual(data);
  });

  test("stochastic rounding: to a neighbour, right on average, the same for the same seed and step", async () => {
    const n = 20_000;
    const value = 1 + 0.3 / 128; // neighbours 1 and 1 + 1/128
    const host = {
      parameter: bf16([n], () => 1),
      gradient: f32([n], () => 0),
      firstMoment: bf16([n], () => 0),
      secondMoment: bf16([n], () => 0),
      ema: bf16([n], () => 1),
      master: f32([n], () => value),
    };
    const settings = { ...defaults, weightDecay: 0, emaRate: 1, roundingSeed: 7 };
    const out = await runOp("adamw", host, settings);
    for (const got of [out.parameter!, out.ema!]) {
      expect(new Set(got)).toEqual(new Set([1, 1 + 1 / 128]));
      const up = got.filter((x) => x > 1).length / n;
      expect(Math.abs(up - 0.3)).toBeLessThan(5 * Math.sqrt(0.21 / n));
    }
    expect(out.ema).not.toEqual(out.parameter);
    expect((await runOp("adamw", host, settings)).parameter).toEqual(out.parameter);
    expect((await runOp("adamw", host, { ...settings, step: 2 })).parameter).not.toEqual(out.parameter);
    expect((await runOp("adamw", host, { ...settings, roundingSeed: 8 })).parameter).not.toEqual(
      out.parameter,
    );
  });

  test.each([0, 1, 31, 32, 33, 70_001])("grad_norm of %i elements", async (n) => {
    const gradient = f32([n], normals(10, 3));
    const { norm } = await runOp("grad_norm", { gradient });
    const exact = Math.sqrt(Float64Array.from(gradient.data).reduce((sum, g) => sum + g * g, 0));
    expectClose(norm!, [exact, 0], 1e-7);
  });

  test("grad_norm counts what is not finite and survives large elements", async () => {
    const gradient = f32([70_000], normals(11));
    for (const [i, value] of [
      [0, Number.NaN],
      [17, Number.POSITIVE_INFINITY],
      [69_999, Number.NEGATIVE_INFINITY],
    ] as const) {
      gradient.data[i] = value;
    }
    const bad = await runOp("grad_norm", { gradient });
    expect(bad.norm![1]).toBe(3);
    expect(Number.isFinite(bad.norm![0])).toBe(false);
    const large = await runOp("grad_norm", { gradient: f32([2], [3e30, 4e30]) });
    expectClose([large.norm![0]! / 5e30, large.norm![1]!], [1, 0], 1e-6);
  });
});

describe("adamw refuses", () => {
  const host = given(4, { parameter: f32, moments: f32 });

  test.each([
    [{ step: 1 }, "learning_rate: expected a number"],
    [{ learningRate: 0.1 }, "step: expected an integer from 1"],
    [{ learningRate: 0.1, step: 0 }, "step: expected an integer from 1"],
    [{ learningRate: 0.1, step: 1, beta1: 1 }, "beta1: expected a number"],
    [{ learningRate: 0.1, step: 1, clipNorm: 1 }, "clip_norm: needs norm"],
    [{ learningRate: 0.1, step: 1, emaRate: 0.1 }, "ema_rate: expected a number with ema, and null without"],
  ])("%j", async (attributes, message) => {
    await expect(runOp("adamw", host, attributes)).rejects.toThrow(message);
  });

  test("an ema without its rate, and a master of another size", async () => {
    const settings = { learningRate: 0.1, step: 1 };
    await expect(runOp("adamw", { ...host, ema: f32([4], () => 0) }, settings)).rejects.toThrow("ema_rate");
    await expect(runOp("adamw", { ...host, master: f32([5], () => 0) }, settings)).rejects.toThrow(
      "[adamw] master: expected",
    );
  });
});
