/** The stable codes of {@link SdpoError}; a message may change between versions, a code does not. */
export type SdpoErrorCode =
  | "ERR_SDPO_ARGUMENT" // a call's argument has the wrong type, shape or value
  | "ERR_SDPO_CONFIG" // a configuration key is unknown, missing or out of range
  | "ERR_SDPO_FILE" // a file is missing, unreadable, truncated or malformed
  | "ERR_SDPO_MODEL" // a model's configuration or weights do not fit together
  | "ERR_SDPO_TEXT" // a tokenizer or chat template cannot do what was asked
  | "ERR_SDPO_DATA" // a data set's row is malformed
  | "ERR_SDPO_ENVIRONMENT" // an environment failed to verify
  | "ERR_SDPO_DEVICE" // a device cannot be opened or has failed
  | "ERR_SDPO_OP" // an op refused its inputs or attributes
  | "ERR_SDPO_MEMORY" // an allocation failed
  | "ERR_SDPO_ABORTED" // an AbortSignal fired
  | "ERR_SDPO_DISPOSED" // a disposed device, tensor or model was used
  | "ERR_SDPO_CHECKPOINT" // a checkpoint is incomplete or does not match
  | "ERR_SDPO_NUMERICS"; // losses or gradients stayed non-finite

/** Every error this package raises on purpose: `code` says what kind, `message` names the thing, the value and the remedy. */
export class SdpoError extends Error {
  readonly code: SdpoErrorCode;

  constructor(code: SdpoErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "SdpoError";
    this.code = code;
  }
}

/** Levenshtein distance, for "did you mean". */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(previous[j]! + 1, current[j - 1]! + 1, swap));
    }
    previous = current;
  }
  return previous[b.length]!;
}

/** The candidate nearest to `name` ignoring case, or undefined where none is near enough to be meant. */
export function nearestName(name: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** A short printable form of any value for an error message. */
export function show(value: unknown): string {
  if (typeof value === "string")
    return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${(value as Uint8Array).length})`;
  if (typeof value === "function") return "a function";
  if (typeof value === "object" && value !== null) {
    try {
      const text = JSON.stringify(value);
      return text.length > 80 ? `${text.slice(0, 77)}...` : text;
    } catch {
      return Object.prototype.toString.call(value);
    }
  }
  return String(value);
}
