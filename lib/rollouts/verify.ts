import type { Environment, Verdict } from "../environments/types.js";
import { SdpoError, show } from "../errors.js";
import { abortedError } from "../native/load.js";
import type { Rollout } from "./types.js";

/** Runs at most `limit` jobs at a time, in the order they come. */
export function concurrently(limit: number): <T>(job: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (job) => {
    if (running >= limit) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await job();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  };
}

function checkVerdict(environment: string, verdict: Verdict): Verdict {
  const refuse = (field: string, expected: string, got: unknown) =>
    new SdpoError(
      "ERR_SDPO_ENVIRONMENT",
      `environment ${environment}: verify: ${field} must be ${expected}, got ${show(got)}`,
    );
  if (typeof verdict !== "object" || verdict === null) throw refuse("its result", "{ reward }", verdict);
  const { reward, feedback, metrics } = verdict;
  if (typeof reward !== "number" || !Number.isFinite(reward))
    throw refuse("reward", "a finite number", reward);
  if (feedback !== undefined && typeof feedback !== "string")
    throw refuse("feedback", "a text or left out", feedback);
  for (const [name, value] of Object.entries(metrics ?? {})) {
    if (!Number.isFinite(value)) throw refuse(`metrics.${name}`, "a finite number", value);
  }
  return verdict;
}

/** Settles as `promise` does, or with the abort as soon as the signal fires. */
export async function orAbort<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortedError(signal));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** What the environment says of a rollout. Throws what `verify` throws; ERR_SDPO_ENVIRONMENT for a verdict that is none. */
export async function verifyRollout<Task>(
  environment: Environment<Task>,
  task: Task,
  rollout: Pick<Rollout, "text" | "ids" | "finishReason">,
  signal?: AbortSignal,
): Promise<Verdict> {
  if (signal?.aborted) throw abortedError(signal);
  const { text, ids: tokenIds, finishReason } = rollout;
  const truncated = finishReason === "length";
  const verdict = await environment.verify(task, { text, tokenIds, truncated }, signal ? { signal } : {});
  return checkVerdict(environment.name, verdict);
}
