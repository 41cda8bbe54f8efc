import { nearestName, SdpoError, show } from "../errors.js";

/** How completions are drawn. */
export interface SamplingOptions {
  /** At most this many tokens a completion; 256 by default. */
  maxTokens?: number;
  /** 1 by default; 0 takes the most probable token. */
  temperature?: number;
  /** Keep the k most probable tokens; 0 (the default) keeps all. */
  topK?: number;
  /** Keep the most probable tokens that together have this mass; 1 by default. */
  topP?: number;
  /** Keep tokens with at least this share of the best token's probability; 0 by default. */
  minP?: number;
  /** Texts that end a completion; they are not part of its text. */
  stop?: readonly string[];
  /** Do not stop at the model's end tokens. */
  ignoreEos?: boolean;
  /** Key of the counter-based generator; 0 by default. */
  seed?: number;
}

export type SamplingSettings = Required<SamplingOptions>;

interface Range {
  low: number;
  high: number;
  integer?: boolean;
  fallback: number;
}

const RANGES: Record<"maxTokens" | "temperature" | "topK" | "topP" | "minP" | "seed", Range> = {
  maxTokens: { low: 1, high: 1 << 24, integer: true, fallback: 256 },
  temperature: { low: 0, high: 100, fallback: 1 },
  topK: { low: 0, high: 2 ** 31 - 1, integer: true, fallback: 0 },
  topP: { low: 1e-6, high: 1, fallback: 1 },
  minP: { low: 0, high: 1, fallback: 0 },
  seed: { low: 0, high: Number.MAX_SAFE_INTEGER, integer: true, fallback: 0 },
};

function inRange(name: string, value: unknown, { low, high, integer, fallback }: Range): number {
  if (value === undefined) return fallback;
  const whole = integer ? Number.isSafeInteger(value) : typeof value === "number";
  if (whole && (value as number) >= low && (value as number) <= high) return value as number;
  const kind = integer ? "an integer" : "a number";
  throw new SdpoError(
    "ERR_SDPO_ARGUMENT",
    `${name}: expected ${kind} from ${low} to ${high}, got ${show(value)}`,
  );
}

/** Fills in defaults. Throws ERR_SDPO_ARGUMENT naming the option, what is expected and what was given. */
export function checkSampling(options: SamplingOptions): SamplingSettings {
  if (typeof options !== "object" || options === null) {
    throw new SdpoError("ERR_SDPO_ARGUMENT", `options: expected an object, got ${show(options)}`);
  }
  const stop = options.stop ?? [];
  if (!Array.isArray(stop) || stop.some((text) => typeof text !== "string" || text === "")) {
    throw new SdpoError(
      "ERR_SDPO_ARGUMENT",
      `stop: expected a list of texts that are not empty, got ${show(stop)}`,
    );
  }
  const number = (name: keyof typeof RANGES) => inRange(name, options[name], RANGES[name]);
  return {
    maxTokens: number("maxTokens"),
    temperature: number("temperature"),
    topK: number("topK"),
    topP: number("topP"),
    minP: number("minP"),
    seed: number("seed"),
    stop,
    ignoreEos: options.ignoreEos ?? false,
  };
}

/** Throws ERR_SDPO_ARGUMENT naming an option that there is not, and the nearest one. */
export function refuseUnknownOptions(options: object): void {
  const known = [...Object.keys(RANGES), "stop", "ignoreEos", "signal"];
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const near = nearestName(name, known);
    const hint = near ? `did you mean '${near}'?` : `there are ${known.join(", ")}`;
    throw new SdpoError("ERR_SDPO_ARGUMENT", `no option is named '${name}'; ${hint}`);
  }
}
