import { describe, expect, test } from "vitest";
import {
  configWarnings,
  resolveConfig,
  resolveSft,
  sftKeys,
  trainKeys,
  usedConfig,
} from "../../lib/config.js";
import { SdpoError } from "../../lib/errors.js";
import { findPreset, presetNames } from "../../lib/trainer/presets.js";

const least = { model: "m", data: "d", environment: "mcq" };

describe("a training configuration", () => {
  test("has the paper's values where nothing is said", () => {
    expect(resolveConfig(least)).toMatchObject({
      algorithm: "sdpo",
      ...{ alpha: 0.5, distillationTopK: 100, tail: true, isClip: 2, rolloutWeightClip: 2 },
      ...{ teacher: "ema", teacherRate: 0.05, successThreshold: 1, maxRepromptTokens: 10240 },
      ...{ demonstrateOwnSuccess: false, removeThinking: true, feedbackOnlyWithoutSolution: true },
      ...{ tasksPerBatch: 32, rolloutsPerTask: 8, maxPromptTokens: 2048, maxCompletionTokens: 8192 },
      ...{ temperature: 1, topP: 1, beta1: 0.9, beta2: 0.999, weightDecay: 0.01, clipNorm: 1 },
      ...{ evaluationTemperature: 0.6, evaluationTopP: 0.95, thinking: false, output: null },
    });
  });

  test("holds every key of the contract", () => {
    const contract = `model output environment data seed device dtype algorithm lambda tasksPerBatch
      rolloutsPerTask miniBatchTasks steps maxPromptTokens maxCompletionTokens maxRepromptTokens temperature topP
      topK minP alpha distillation distillationTopK tail isClip rolloutWeightClip advantageClip aggregation teacher
      teacherRate successThreshold environmentFeedback feedbackOnlyWithoutSolution demonstrateOwnSuccess
      removeThinking clipLow clipHigh dualClip normalizeByStd klCoefficient klKind epochs microBatchTokens
      repromptTemplate solutionTemplate feedbackTemplate thinking learningRate schedule warmupSteps weightDecay beta1
      beta2 clipNorm evaluateEvery evaluationRollouts evaluationTemperature evaluationTopP checkpointEvery
      keepCheckpoints dumpRollouts tensorboard resume`;
    const names = trainKeys.map(({ name }) => name);
    expect(contract.split(/\s+/).filter((name) => !names.includes(name))).toEqual([]);
  });

  test("describes every key, and every default is a value that the key takes", () => {
    for (const key of [...trainKeys, ...sftKeys]) {
      expect(key.description, key.name).not.toBe("");
      expect(key.expected, key.name).toMatch(/^(an? |true|")/);
      if (!key.required) expect(key.accepts(key.fallback), key.name).toBe(true);
    }
  });

  test("the keys that are used give it again", () => {
    const inputs = [
      {},
      { algorithm: "grpo", klCoefficient: 0.1, klKind: "k1" },
      { algorithm: "blend", lambda: 0.5, teacher: "trust-region" },
      { distillation: "token", alpha: 1, advantageClip: 5 },
      { teacher: "frozen", distillationTopK: null, environmentFeedback: false },
      { output: "o", evaluateEvery: 5, evaluationData: "e", environmentOptions: { formatFeedback: true } },
    ];
    for (const input of inputs) {
      const config = resolveConfig({ ...least, ...input });
      const used = usedConfig(config);
      expect(used).toMatchObject(input);
      expect(resolveConfig(used)).toEqual(config);
    }
    expect(Object.keys(usedConfig(resolveConfig({ ...least, algorithm: "grpo" })))).not.toContain("alpha");
  });

  test("undefined counts as left out", () => {
    expect(resolveConfig({ ...least, lambda: undefined, alpha: undefined })).toEqual(resolveConfig(least));
  });

  test("the trust region has a rate of its own, unless one is set", () => {
    const rate = (input: object, base?: object) =>
      resolveConfig({ ...least, ...input }, { base: { ...base } }).teacherRate;
    expect(rate({ teacher: "trust-region" })).toBe(0.01);
    expect(rate({ teacher: "trust-region", teacherRate: 0.2 })).toBe(0.2);
    expect(rate({ teacher: "trust-region" }, { teacher: "ema", teacherRate: 0.05 })).toBe(0.01);
    expect(rate({}, { teacher: "trust-region", teacherRate: 0.03 })).toBe(0.03);
  });

  test("a preset's values that another algorithm does not use are dropped, a user's are refused", () => {
    const base = { alpha: 1, distillationTopK: 20, tasksPerBatch: 4 };
    const config = resolveConfig({ ...least, algorithm: "grpo" }, { base });
    expect(config).toMatchObject({ alpha: 0.5, distillationTopK: 100, tasksPerBatch: 4 });
    const threshold = resolveConfig({ ...least, algorithm: "grpo", successThreshold: 0.5 });
    expect(threshold.successThreshold).toBe(0.5);
    expect(() => resolveConfig({ ...least, algorithm: "grpo", alpha: 1 })).toThrow(
      /alpha is used only where/,
    );
  });

  test("warns of a divergence that vanishes, and of groups of one", () => {
    expect(configWarnings(resolveConfig({ ...least, alpha: 0.02 }))[0]).toMatch(/alpha 0.02.*vanishes/);
    expect(configWarnings(resolveConfig({ ...least, algorithm: "grpo", rolloutsPerTask: 1 }))).toHaveLength(
      1,
    );
    for (const alpha of [0, 0.05, 0.5, 0.95, 1]) {
      expect(configWarnings(resolveConfig({ ...least, alpha }))).toEqual([]);
    }
  });
});

const refused: [name: string, input: Record<string, unknown>, message: RegExp][] = [
  ["an unknown key", { alhpa: 1 }, /"alhpa" is no key.*did you mean alpha\?/],
  ["a key that is like none", { quux: 1 }, /"quux" is no key.*--keys lists/],
  ["a key of a prototype", { constructor: 1 }, /"constructor" is no key/],
  ["snake_case", { learning_rate: 1e-4 }, /did you mean learningRate\?/],
  ["no model", { model: undefined }, /model is missing/],
  ["an empty model", { model: " " }, /model: expected a text that is not empty, got " "/],
  ["a text for a number", { alpha: "0.5" }, /alpha: expected a number from 0 to 1, got "0.5"/],
  ["NaN", { alpha: Number.NaN }, /alpha: expected a number.*got NaN/],
  ["a number out of range", { alpha: 1.5 }, /alpha: expected a number from 0 to 1, got 1.5/],
  ["a zero rate", { learningRate: 0 }, /learningRate: expected a number above 0, at most 1, got 0/],
  ["an infinite number", { clipNorm: Infinity }, /clipNorm: expected .* or null, got Infinity/],
  ["a fraction of a task", { tasksPerBatch: 2.5 }, /tasksPerBatch: expected an integer from 1 .*got 2.5/],
  ["no rollouts", { rolloutsPerTask: 0 }, /rolloutsPerTask: expected an integer from 1/],
  ["a bigint", { seed: 3n }, /seed: expected an integer from 0 to 2\^53 - 1, got 3n/],
  ["a negative seed", { seed: -1 }, /seed: expected an integer from 0/],
  ["a temperature of 0", { temperature: 0 }, /temperature: expected a number above 0/],
  ["null where there is no off", { temperature: null }, /temperature: expected a number above 0.*got null/],
  ["a text for a boolean", { tail: "yes" }, /tail: expected true or false, got "yes"/],
  ["an unknown choice", { teacher: "emma" }, /teacher: expected "ema" or "trust-region" or .*got "emma"/],
  ["a list of options", { environmentOptions: [] }, /environmentOptions: expected an object, got \[\]/],
  ["lambda without blend", { lambda: 0.5 }, /lambda is used only where algorithm is "blend"/],
  ["clipLow in SDPO", { clipLow: 0.1 }, /clipLow is used only where algorithm is "grpo" or "blend"/],
  [
    "a weight of samplers where there is none",
    { dtype: "f32", rolloutWeightClip: 3 },
    /rolloutWeightClip is used only where dtype is not "f32"/,
  ],
  [
    "a normalizer in the blend",
    { algorithm: "blend", normalizer: "distilled" },
    /normalizer is used only where algorithm is "sdpo"/,
  ],
  ["a teacher in GRPO", { algorithm: "grpo", teacher: "ema" }, /teacher is used only where/],
  ["klKind without KL", { algorithm: "grpo", klKind: "k1" }, /klKind .*klCoefficient is above 0/],
  [
    "top K of a token",
    { distillation: "token", alpha: 1, distillationTopK: 5 },
    /distillationTopK .*"logit"/,
  ],
  ["a tail of all", { distillationTopK: null, tail: true }, /tail .*distillationTopK is a number/],
  [
    "a frozen teacher's rate",
    { teacher: "frozen", teacherRate: 0.1 },
    /teacherRate .*"ema" or "trust-region"/,
  ],
  [
    "a template that is off",
    { environmentFeedback: false, feedbackTemplate: "x" },
    /feedbackTemplate is used only/,
  ],
  ["resume without a folder", { resume: true }, /resume is used only where output names/],
  ["evaluation that never is", { evaluationRollouts: 2 }, /evaluationRollouts .*evaluateEvery is above 0/],
  ["evaluation of nothing", { evaluateEvery: 5 }, /evaluateEvery is 5, but evaluationData is not set/],
  [
    "forward KL of a token",
    { distillation: "token", alpha: 0 },
    /alpha is 0, but distillation "token".*set alpha to 1/,
  ],
  ["sequence credit by default", { distillation: "sequence" }, /alpha is 0.5, but distillation "sequence"/],
  ["advantage clip of JSD", { advantageClip: 5 }, /advantageClip is 5.*alpha is 0.5/],
  [
    "the paper's mean of tokens",
    { normalizer: "paper-micro-batch" },
    /normalizer .*set it to "seq-mean-token-mean"/,
  ],
  [
    "mini-batches beyond the batch",
    { tasksPerBatch: 4, miniBatchTasks: 8 },
    /miniBatchTasks is 8, more than/,
  ],
  ["warm-up to the end", { schedule: "cosine", warmupSteps: 100 }, /warmupSteps is 100, not below steps 100/],
  ["a reprompt below the prompt", { maxRepromptTokens: 1024 }, /maxRepromptTokens is 1024, less than/],
  ["nothing to learn", { rolloutsPerTask: 1, environmentFeedback: false }, /rolloutsPerTask is 1 and/],
];

test.each(refused)("refuses %s", (_, input, message) => {
  expect(() => resolveConfig({ ...least, ...input })).toThrow(message);
  try {
    resolveConfig({ ...least, ...input });
  } catch (error) {
    expect((error as SdpoError).code).toBe("ERR_SDPO_CONFIG");
  }
});

test.each([[null], [undefined], ["x"], [3], [[]], [() => {}]])("refuses %s as a configuration", (input) => {
  for (const resolve of [resolveConfig, resolveSft]) {
    expect(() => resolve(input as never)).toThrow(SdpoError);
  }
});

test("a warm start has keys of its own", () => {
  expect(resolveSft(least)).toMatchObject({ learningRate: 5e-5, epochs: 1, rowsPerBatch: 8, rows: null });
  expect(() => resolveSft({ ...least, alpha: 1 })).toThrow(/"alpha" is no key/);
  expect(() => resolveSft({ ...least, rows: 0 })).toThrow(/rows: expected an integer from 1/);
});

describe("presets", () => {
  test.each(presetNames)("%s resolves, says where it comes from and what it takes", (name) => {
    const { values, description, source, hardware, models } = findPreset(name);
    const evaluation = { evaluateEvery: 5, evaluationData: "e" };
    const config = resolveConfig({ ...least, ...evaluation }, { base: values });
    expect(config).toMatchObject({ ...values, environment: "mcq" });
    for (const text of [description, source, hardware, models]) expect(text.length).toBeGreaterThan(5);
  });

  test("hold no key that their algorithm ignores", () => {
    for (const name of presetNames) {
      const { values } = findPreset(name);
      const used = usedConfig(resolveConfig({ ...least }, { base: values }));
      const ignored = Object.keys(values).filter((key) => !(key in used));
      expect(ignored.filter((key) => !key.startsWith("evaluation"))).toEqual([]);
    }
  });

  test("are the paper's table", () => {
    const column = (name: string) => {
      const c = resolveConfig({ ...least }, { base: findPreset(name).values });
      return [
        c.alpha,
        c.distillationTopK,
        c.advantageClip,
        c.learningRate,
        c.warmupSteps,
        c.teacherRate,
      ].concat([...[c.tasksPerBatch, c.rolloutsPerTask, c.miniBatchTasks, c.environmentFeedback ? 1 : 0]]);
    };
    expect(column("rich-feedback")).toEqual([1, 20, null, 1e-6, 0, 0.01, 32, 8, 1, 1]);
    expect(column("no-feedback")).toEqual([0.5, 100, null, 1e-5, 10, 0.05, 32, 8, 32, 0]);
    expect(column("test-time")).toEqual([1, 20, 5, 1e-6, 0, 0.01, 1, 16, 1, 1]);
    const grpo = resolveConfig({ ...least }, { base: findPreset("grpo").values });
    expect(grpo).toMatchObject({
      clipHigh: 0.28,
      normalizeByStd: false,
      learningRate: 1e-6,
      warmupSteps: 10,
    });
    expect(grpo).toMatchObject({ miniBatchTasks: 8, tasksPerBatch: 32, rolloutsPerTask: 8 });
    const onPolicy = resolveConfig({ ...least }, { base: findPreset("grpo-on-policy").values });
    expect(onPolicy).toMatchObject({ miniBatchTasks: 32, learningRate: 1e-5 });
  });

  test("an unknown one is refused with the nearest", () => {
    expect(() => findPreset("no-feedbak")).toThrow(/did you mean no-feedback\?/);
    expect(() => findPreset("toString")).toThrow(/unknown name "toString"/);
    expect(() => findPreset("zzzzzzz")).toThrow(/there are rich-feedback, /);
  });
});
