import { InvalidArgumentError, Option } from "commander";
import { environments } from "../environments/index.js";

/** A parser of numbers in a range, for commander: what does not fit is a usage error. */
export function numberIn(low: number, high: number, kind: "integer" | "number" = "number") {
  return (text: string): number => {
    const value = text.trim() === "" ? Number.NaN : Number(text);
    const fits = value >= low && value <= high && (kind === "number" || Number.isSafeInteger(value));
    if (fits) return value;
    throw new InvalidArgumentError(
      `Expected ${kind === "integer" ? "an integer" : "a number"} from ${low} to ${high}.`,
    );
  };
}

export const countFrom = (low: number) => numberIn(low, 2 ** 31 - 1, "integer");

/** Collects an option that may be given several times. */
export function collect(text: string, previous: string[] = []): string[] {
  return [...previous, text];
}

export const modelOption = () =>
  new Option("-m, --model <path>", "a Hugging Face folder, .safetensors or .gguf file");
export const deviceOption = () => new Option("--device <name>", "auto, cpu, cuda, cuda:<index> or simt");
export const dtypeOption = () =>
  new Option("--dtype <type>", "of the weights in memory; as they are stored by default").choices([
    "f32",
    "bf16",
  ]);
export const environmentOption = () =>
  new Option("-e, --environment <name>", `the kind of task: ${Object.keys(environments).join(", ")}`);

/** Options of environments with their defaults, for help. */
export const ENVIRONMENT_OPTIONS: Readonly<Record<string, Record<string, unknown>>> = {
  mcq: { formatFeedback: false, omitReasoningRequest: false },
  exact: { ignoreCase: false },
  "house-dates": { seed: 0, customers: 4, feedback: "rules", trainTasks: 4096, testTasks: 256 },
};

/** What help says of `--option`. */
export const OPTION_NOTES = `
Options of the environments, with their defaults, for --option:
${Object.entries(ENVIRONMENT_OPTIONS)
  .map(
    ([name, options]) =>
      `  ${name}: ${Object.entries(options)
        .map((pair) => pair.join("="))
        .join(", ")}`,
  )
  .join("\n")}
`;
export const environmentOptionsOption = () =>
  new Option("--option <name=value>", "an option of the environment; may be repeated").argParser(collect);
export const seedOption = () =>
  new Option("--seed <n>", "of the random numbers").argParser(
    numberIn(0, Number.MAX_SAFE_INTEGER, "integer"),
  );
