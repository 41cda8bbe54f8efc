import { describe, expect, test } from "vitest";
import { runDemo } from "../../lib/demo/demo.js";
import { demoConfig } from "../../lib/demo/settings.js";
import { cli } from "../cli-io.js";

function stream(isTTY = false) {
  const out = { text: "", isTTY, columns: 80, write: (more: string) => (out.text += more) };
  return out;
}

describe("the demo", () => {
  test("learns within a few steps, and says so in plain lines where it is piped", async () => {
    const out = stream();
    const { baseline, curves, summaries } = await runDemo({ seed: 4, steps: 15, out });
    expect(curves.sdpo.map(({ generations }) => generations)).toEqual([0, 640, 1280, 1920]);
    expect(curves.grpo.map(({ generations }) => generations)).toEqual([0, 640, 1280, 1920]);
    expect(baseline.teacher - baseline.student).toBeGreaterThan(0.9);
    for (const curve of [curves.sdpo, curves.grpo]) {
      expect(curve[0]!.accuracy).toBe(baseline.student);
      expect(curve.at(-1)!.accuracy).toBeGreaterThan(baseline.student + 0.05);
    }
    expect(out.text).not.toMatch(/[\x1b\r]/);
    expect(out.text.match(/^ {2}error: /gm)).toHaveLength(3);
    expect(out.text).toContain(`student                          ${baseline.student.toFixed(3)}`);
    expect(out.text).toContain(`self-teacher (after feedback)    ${baseline.teacher.toFixed(3)}`);
    const line = `1,280 generations:  SDPO ${curves.sdpo[2]!.accuracy.toFixed(3)}   GRPO ${curves.grpo[2]!.accuracy.toFixed(3)}`;
    expect(out.text).toContain(line);
    expect(out.text).toContain(`SDPO    ${baseline.student.toFixed(3)}`);
    expect(out.text).toContain(`ended at ${summaries.grpo.final.toFixed(3)}`);
  });

  test("draws curves on a terminal; the same seed gives the same numbers, another seed others", async () => {
    const [terminal, piped] = [stream(true), stream()];
    const first = await runDemo({ seed: 2, steps: 3, out: terminal, plain: false });
    const again = await runDemo({ seed: 2, steps: 3, out: piped, plain: true });
    const other = await runDemo({ seed: 3, steps: 3, out: stream(), plain: true });
    expect(again).toEqual({ ...first, seconds: again.seconds });
    expect(other.curves).not.toEqual(first.curves);
    expect(terminal.text.match(/\x1b\[\d+A/g)).toHaveLength(2);
    expect(terminal.text).not.toContain("generations:  SDPO");
  });

  test.each(["NO_COLOR", "CI"])("prints lines on a terminal where %s is set", async (name) => {
    const before = process.env[name];
    process.env[name] = "1";
    try {
      const out = stream(true);
      await runDemo({ steps: 1, out });
      expect(out.text).not.toContain("\x1b");
    } finally {
      if (before === undefined) delete process.env[name];
      else process.env[name] = before;
    }
  });

  test("stops when it is aborted", async () => {
    const controller = new AbortController();
    const out = stream();
    const run = runDemo({ steps: 200, signal: controller.signal, out });
    setTimeout(() => controller.abort(), 1500);
    await expect(run).rejects.toMatchObject({ code: "ERR_SDPO_ABORTED" });
  });

  test("gives both algorithms the same tasks, samples and measurements", () => {
    const [sdpo, grpo] = [demoConfig("sdpo", 7), demoConfig("grpo", 7)];
    const common = ["seed", "environmentOptions", "steps", "tasksPerBatch", "rolloutsPerTask", "temperature"];
    for (const key of [
      ...common,
      "data",
      "model",
      "evaluateEvery",
      "evaluationData",
    ] as (keyof typeof sdpo)[]) {
      expect(sdpo[key], key).toEqual(grpo[key]);
    }
  });
});

describe("sdpo demo", () => {
  test("runs from the command line", async () => {
    const { code, out, err } = await cli(["demo", "--steps", "1", "--seed", "1"]);
    expect([code, err]).toEqual([0, ""]);
    expect(out).toContain("128 generations:");
    expect(out).toMatch(/Next: sdpo demo --seed 2 .*\n$/);
  });

  test("has help, and refuses what it cannot use", async () => {
    expect(await cli(["demo", "--help"])).toMatchObject({ code: 0, out: expect.stringContaining("--seed") });
    for (const args of [["--seed", "x"], ["--seed", "-1"], ["--steps", "0"], ["--nonsense"], ["extra"]]) {
      expect((await cli(["demo", ...args])).code, args.join(" ")).toBe(2);
    }
  });
});
