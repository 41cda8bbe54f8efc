import * as v from "valibot";
import { conditions, type SftConfig, sftEntries, type TrainConfig, trainEntries } from "./config-keys.js";
import { expectation } from "./config-values.js";
import { nearestName, SdpoError, show } from "./errors.js";

export type { SftConfig, SftInput, TrainConfig, TrainInput } from "./config-keys.js";

type Entries = Record<string, v.GenericSchema>;
type Values = Record<string, unknown>;

const TRUST_REGION_RATE = 0.01;

export interface ResolveOptions {
  /** A preset's values, which come before the defaults; those of keys that are not used are dropped. */
  base?: Values;
}

/** What a key takes, for lists of keys and for reading values from text. */
export interface KeyInfo {
  name: string;
  description: string;
  /** Undefined where the key must be given. */
  fallback: unknown;
  required: boolean;
  /** What a value must be, such as `a number from 0 to 1`. */
  expected: string;
  /** Is the value one that the key takes? */
  accepts(value: unknown): boolean;
}

function configError(message: string): SdpoError {
  return new SdpoError("ERR_SDPO_CONFIG", message);
}

function infoOf(name: string, schema: v.GenericSchema): KeyInfo {
  const isOptional = schema.type === "optional";
  const inner = isOptional ? (schema as v.OptionalSchema<v.GenericSchema, unknown>).wrapped : schema;
  return {
    name,
    description: v.getDescription(inner) ?? "",
    fallback: isOptional ? v.getDefault(schema as v.OptionalSchema<v.GenericSchema, unknown>) : undefined,
    required: !isOptional,
    expected: expectation(inner, Symbol.iterator) ?? "",
    accepts: (value) => expectation(inner, value) === undefined,
  };
}

const list = (entries: Entries) => Object.entries(entries).map(([name, schema]) => infoOf(name, schema));
/** All keys of a training configuration, in order. */
export const trainKeys: readonly KeyInfo[] = list(trainEntries);
/** All keys of a supervised warm start, in order. */
export const sftKeys: readonly KeyInfo[] = list(sftEntries);

function checkObject(input: unknown): asserts input is Values {
  if (typeof input === "object" && input !== null && !Array.isArray(input)) return;
  throw configError(`the configuration must be an object of keys and values, got ${show(input)}`);
}

/** Types, ranges and defaults of each key by itself; undefined counts as left out. */
function checkShape(given: Values, entries: Entries): Values {
  for (const name of Object.keys(given)) {
    if (Object.hasOwn(entries, name)) continue;
    const near = nearestName(name, Object.keys(entries));
    throw configError(
      `${show(name)} is no key of the configuration; ${near ? `did you mean ${near}?` : "--keys lists all keys"}`,
    );
  }
  const values: Values = {};
  for (const [name, schema] of Object.entries(entries)) {
    const value = given[name];
    if (value === undefined && schema.type !== "optional") throw configError(`${name} is missing; set it`);
    const expected = expectation(schema, value);
    if (expected) throw configError(`${name}: expected ${expected}, got ${show(value)}`);
    values[name] = v.parse(schema, value);
  }
  return values;
}

const withoutUndefined = (values: Values) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));

/** Why a key changes nothing in this configuration; undefined where it is used. */
function unusedBecause(name: string, config: TrainConfig): string | undefined {
  return conditions.find(({ keys, holds }) => keys.includes(name) && !holds(config))?.when;
}

/**
 * A complete configuration from what a user gives: types and ranges are checked, keys that are unknown or that
 * change nothing here are refused, defaults are filled in. Resolving {@link usedConfig} of it gives it again.
 * @throws ERR_SDPO_CONFIG naming the key, the value and the remedy
 */
export function resolveConfig(input: Values, { base = {} }: ResolveOptions = {}): TrainConfig {
  checkObject(input);
  const given = withoutUndefined(input);
  const values: Values = { ...withoutUndefined(base), ...given };
  const otherTeacher = given.teacher !== undefined && given.teacher !== base.teacher;
  if (otherTeacher) values.teacherRate = given.teacherRate;
  if (values.teacher === "trust-region") values.teacherRate ??= TRUST_REGION_RATE;
  const config = checkShape(values, trainEntries) as TrainConfig;
  for (const name of Object.keys(given)) {
    const when = unusedBecause(name, config);
    if (when) throw configError(`${name} is used only where ${when}; leave it out`);
  }
  for (const { name, fallback } of trainKeys) {
    if (unusedBecause(name, config)) (config as Values)[name] = fallback;
  }
  checkTogether(config);
  return config;
}

/** The keys of a configuration that have an effect: what `config.json` of a run folder holds. */
export function usedConfig(config: TrainConfig): TrainConfig {
  const used = Object.entries(config).filter(([name]) => unusedBecause(name, config) === undefined);
  return Object.fromEntries(used) as TrainConfig;
}

/** A complete configuration of a supervised warm start. Throws ERR_SDPO_CONFIG. */
export function resolveSft(input: Values): SftConfig {
  checkObject(input);
  return checkShape(withoutUndefined(input), sftEntries) as SftConfig;
}

/** What keys must be together. Throws ERR_SDPO_CONFIG. */
function checkTogether(c: TrainConfig): void {
  const refuse = (bad: boolean, problem: string) => {
    if (bad) throw configError(problem);
  };
  refuse(
    c.miniBatchTasks !== null && c.miniBatchTasks > c.tasksPerBatch,
    `miniBatchTasks is ${c.miniBatchTasks}, more than tasksPerBatch ${c.tasksPerBatch}; lower it, or null for all tasks`,
  );
  refuse(
    c.schedule !== "constant" && c.warmupSteps >= c.steps,
    `warmupSteps is ${c.warmupSteps}, not below steps ${c.steps}: nothing is left of the ${c.schedule} schedule; lower it`,
  );
  refuse(
    c.evaluateEvery > 0 && c.evaluationData === null,
    `evaluateEvery is ${c.evaluateEvery}, but evaluationData is not set; name the tasks to evaluate on`,
  );
  if (c.algorithm !== "grpo") checkDistillation(c, refuse);
}

function checkDistillation(c: TrainConfig, refuse: (bad: boolean, problem: string) => void): void {
  refuse(
    c.distillation !== "logit" && c.alpha !== 1,
    `alpha is ${c.alpha}, but distillation ${show(c.distillation)} is reverse KL; set alpha to 1`,
  );
  refuse(
    c.advantageClip !== null && c.distillation === "logit" && c.alpha !== 1,
    `advantageClip is ${c.advantageClip}, but it is defined for reverse KL and alpha is ${c.alpha}; set alpha to 1 or advantageClip to null`,
  );
  refuse(
    c.normalizer === "paper-micro-batch" && c.aggregation !== "seq-mean-token-mean",
    `normalizer is "paper-micro-batch", a mean over rollouts, but aggregation is ${show(c.aggregation)}; set it to "seq-mean-token-mean"`,
  );
  refuse(
    c.maxRepromptTokens < c.maxPromptTokens,
    `maxRepromptTokens is ${c.maxRepromptTokens}, less than maxPromptTokens ${c.maxPromptTokens}: the teacher's prompt holds the question and more; raise it`,
  );
  refuse(
    c.algorithm === "sdpo" && c.rolloutsPerTask === 1 && !c.environmentFeedback && !c.demonstrateOwnSuccess,
    "rolloutsPerTask is 1 and environmentFeedback false: no rollout has another's success or feedback to learn from; raise rolloutsPerTask",
  );
}

/** What a configuration allows but its user may not want, one sentence each. */
export function configWarnings(c: TrainConfig): string[] {
  const warnings: string[] = [];
  const nearEnd = (c.alpha > 0 && c.alpha < 0.05) || (c.alpha > 0.95 && c.alpha < 1);
  if (c.algorithm !== "grpo" && nearEnd) {
    warnings.push(
      `alpha ${c.alpha}: the generalised JSD vanishes near 0 and 1 and does not tend to the KL divergences; exactly 0 or 1 gives those`,
    );
  }
  if (c.algorithm === "grpo" && c.rolloutsPerTask === 1) {
    warnings.push("rolloutsPerTask 1: a group of one has no baseline, its advantage is the reward itself");
  }
  return warnings;
}
