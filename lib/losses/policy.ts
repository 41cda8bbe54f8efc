import type { Device } from "../native/device.js";
import { run } from "../native/run.js";
import { Tensor } from "../native/tensor.js";
import {
  batchShape,
  checkChoice,
  checkDevice,
  checkKeys,
  checkNumber,
  type FloatValues,
  type HostValues,
  hostMask,
  hostNumbers,
  refuse,
  reshaped,
  Temporaries,
} from "./arguments.js";
import {
  aggregate,
  type BatchOptions,
  batchOptionKeys,
  batchRows,
  type CompletionBatch,
  checkAggregation,
  checkInPlace,
  checkTemperature,
  completionKeys,
} from "./rows.js";

/** Inputs of {@link policyLoss}. */
export interface PolicyInputs extends CompletionBatch {
  /** [B,T,V] */
  logits: FloatValues;
  /** log p(token) under the parameters that the ratio is measured from, [B,T]. */
  oldLogprobs: HostValues;
  /** [B] or [B,T]; {@link groupAdvantages} gives the first. */
  advantages: HostValues;
  /** log p(token) under a reference policy, [B,T]; needed where klCoefficient is not 0. */
  referenceLogprobs?: HostValues;
}

export interface PolicyOptions extends BatchOptions {
  /** The ratio counts down to 1 - clipLow (default 0.2) and up to 1 + clipHigh (default 0.2). */
  clipLow?: number;
  clipHigh?: number;
  /** The loss of a token with a negative advantage is at most dualClip * |advantage|; null for no bound. Default 3. */
  dualClip?: number | null;
  /** Weight of the KL estimate to the reference. Default 0. */
  klCoefficient?: number;
  /** Which estimator: log ratio, its half square, or the unbiased non-negative one. Default "k3". */
  klKind?: "k1" | "k2" | "k3";
  /** dLogits takes logits' memory, which must be a Tensor. Default false. */
  inPlace?: boolean;
}

/** Result of {@link policyLoss}. */
export interface PolicyResult {
  loss: number;
  /** Weighted, before aggregation, [B,T]. */
  tokenLoss: Tensor;
  /** d loss / d logits, [B,T,V]. */
  dLogits: Tensor;
  /** Share of the mask's tokens whose loss the range clips. */
  clipFraction: number;
  /** [B,T] */
  ratio: Tensor;
  /** log p(token), [B,T]. */
  logprobs: Tensor;
  entropy: Tensor;
  /** The KL estimate, 0 without a reference, [B,T]. */
  kl: Tensor;
}

const inputKeys = [...completionKeys, "logits", "oldLogprobs", "advantages", "referenceLogprobs"];
const optionKeys = [
  ...["clipLow", "clipHigh", "dualClip", "klCoefficient", "klKind", "inPlace"],
  ...batchOptionKeys,
];

function policyAttributes(options: PolicyOptions, { logits, referenceLogprobs }: PolicyInputs) {
  checkKeys("options", options, optionKeys);
  const dualClip = options.dualClip === undefined ? 3 : options.dualClip;
  if (dualClip !== null) checkNumber("dualClip", dualClip, { least: 1 });
  const klCoefficient = checkNumber("klCoefficient", options.klCoefficient ?? 0, { least: 0 });
  if (klCoefficient !== 0 && referenceLogprobs === undefined)
    throw refuse("klCoefficient", "0, as there are no referenceLogprobs", klCoefficient);
  return {
    clipLow: checkNumber("clipLow", options.clipLow ?? 0.2, { least: 0, most: 1 }),
    clipHigh: checkNumber("clipHigh", options.clipHigh ?? 0.2, { least: 0 }),
    dualClip,
    klCoefficient,
    klKind: checkChoice("klKind", options.klKind ?? "k3", ["k1", "k2", "k3"]),
    temperature: checkTemperature(options),
    inPlace: checkInPlace(options.inPlace, "logits", logits),
  };
}

/** [B,T] from [B] or [B,T]. */
async function spreadAdvantages(value: unknown, b: number, t: number): Promise<ArrayLike<number>> {
  const given = value as { length?: number; shape?: readonly number[] } | undefined;
  const perSequence = value instanceof Tensor ? value.shape.length === 1 : given?.length === b;
  const nested = Array.isArray(value) && typeof value[0] === "object";
  if (!perSequence || nested) return hostNumbers("advantages", value, [b, t]);
  const each = await hostNumbers("advantages", value, [b]);
  return Float64Array.from({ length: b * t }, (_, i) => each[Math.floor(i / t)]!);
}

async function policyRows(
  temporaries: Temporaries,
  inputs: PolicyInputs,
  shape: readonly [number, number, number],
  options: PolicyOptions,
) {
  const [b, t] = shape;
  const mask = await hostMask("completionMask", inputs.completionMask, [b, t]);
  const rows = await batchRows(temporaries, inputs, mask, shape, checkAggregation(options));
  const old = await hostNumbers("oldLogprobs", inputs.oldLogprobs, [b, t]);
  const reference =
    inputs.referenceLogprobs && (await hostNumbers("referenceLogprobs", inputs.referenceLogprobs, [b, t]));
  return {
    mask,
    ...rows,
    inputs: {
      ...rows.inputs,
      oldLogprobs: temporaries.floats(old),
      advantages: temporaries.floats(await spreadAdvantages(inputs.advantages, b, t)),
      ...(reference ? { referenceLogprobs: temporaries.floats(reference) } : {}),
    },
  };
}

async function clipFractionOf(clipped: Tensor, mask: ArrayLike<number>): Promise<number> {
  const flags = await clipped.read();
  let tokens = 0;
  let hits = 0;
  for (let i = 0; i < flags.length; i++) {
    if (mask[i] === 0) continue;
    tokens++;
    hits += flags[i]! & 1;
  }
  return hits / Math.max(tokens, 1);
}

/**
 * The clipped policy-gradient loss of a batch of completions (PPO with dual clip, as GRPO uses it), with an
 * optional KL estimate to a reference, and its gradient with respect to the logits.
 * @throws ERR_SDPO_ARGUMENT naming the argument, what was expected and what was given
 */
export async function policyLoss(
  device: Device,
  inputs: PolicyInputs,
  options: PolicyOptions = {},
): Promise<PolicyResult> {
  checkDevice(device);
  checkKeys("inputs", inputs, inputKeys);
  const attributes = policyAttributes(options, inputs);
  const shape = batchShape("logits", inputs.shape, inputs.logits, [inputs.tokenIds, inputs.completionMask]);
  const [b, t] = shape;
  const temporaries = new Temporaries(device);
  try {
    const logits = temporaries.matrix("logits", inputs.logits, shape);
    const rows = await policyRows(temporaries, inputs, shape, options);
    const outputs = await run(device, "policy_loss", { logits, ...rows.inputs }, attributes);
    temporaries.keep(outputs.clipped);
    return {
      loss: await aggregate(outputs.tokenLoss, rows),
      clipFraction: await clipFractionOf(outputs.clipped, rows.mask),
      tokenLoss: reshaped(outputs.tokenLoss, [b, t]),
      dLogits: reshaped(outputs.dlogits!, shape),
      ratio: reshaped(outputs.ratio, [b, t]),
      logprobs: reshaped(outputs.logprobs, [b, t]),
      entropy: reshaped(outputs.entropy, [b, t]),
      kl: reshaped(outputs.kl, [b, t]),
    };
  } finally {
    temporaries.dispose();
  }
}
