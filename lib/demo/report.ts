import type { RolloutGroup } from "../rollouts/types.js";
import type { Baseline } from "./measure.js";
import type { Each } from "./race.js";
import { ALGORITHMS, type Algorithm } from "./settings.js";

/** A held-out accuracy after a number of generations. */
export interface Measurement {
  generations: number;
  accuracy: number;
}

/** What is said of a run: its end is the mean of the last three measurements. */
export interface Summary {
  final: number;
  /** Generations until the accuracy was first at least .5 and .9; null: never. */
  to50: number | null;
  to90: number | null;
}

export const NAMES: Each<string> = { sdpo: "SDPO", grpo: "GRPO" };
const LAST = 3;

export function summarizeRun(curve: readonly Measurement[]): Summary {
  const last = curve.slice(-LAST);
  const reached = (least: number) => curve.find(({ accuracy }) => accuracy >= least)?.generations ?? null;
  return {
    final: last.reduce((sum, { accuracy }) => sum + accuracy, 0) / last.length,
    to50: reached(0.5),
    to90: reached(0.9),
  };
}

const count = (n: number) => n.toLocaleString("en-US");
const share = (x: number) => x.toFixed(3);
/** As people write it: 28/JUL/94. */
const compact = (answer: string) => answer.trim().replaceAll(" ", "");
const sentence = (feedback: string) => feedback.replaceAll(" , ", ", ");

/** Three failed attempts, each with what the environment said and what the model then answered. */
export function attemptLines(failed: Baseline["failed"]): string[] {
  const only = ({ rollouts }: RolloutGroup) => rollouts[0]!;
  return failed.slice(0, 3).flatMap(({ attempt, retry }) => {
    const { text, verdict } = only(attempt);
    const mark = only(retry).verdict.reward === 1 ? "right" : "wrong";
    return [
      `  ${attempt.task.messages[0]!.content} ${compact(text)}`,
      `  ${sentence(verdict.feedback ?? "")}`,
      `  ${attempt.task.messages[0]!.content} ${compact(only(retry).text)}   (${mark})`,
      "",
    ];
  });
}

/** The table at the end. */
export function tableLines(before: number, summaries: Each<Summary>): string[] {
  const cells = [
    ["", "before", "generations to .5", "to .9", "at the end"],
    ...ALGORITHMS.map((name) => {
      const { to50, to90, final } = summaries[name];
      const reached = (n: number | null) => (n === null ? "never" : count(n));
      return [NAMES[name], share(before), reached(to50), reached(to90), share(final)];
    }),
  ];
  const widths = cells[0]!.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  return cells.map((row) => `  ${row.map((cell, i) => cell.padStart(widths[i]!)).join("   ")}`);
}

function howFar(name: Algorithm, { final, to90 }: Summary): string {
  const when = to90 === null ? "did not reach 0.9" : `reached 0.9 after ${count(to90)} generations`;
  return `${NAMES[name]} ${when} and ended at ${share(final)}`;
}

/** What was seen, from the numbers, and what to try next. */
export function conclusion(seed: number, teacher: number, summaries: Each<Summary>): string[] {
  const seen = ALGORITHMS.map((name) => howFar(name, summaries[name])).join("; ");
  return [
    `What the model knew after feedback (${share(teacher)} right) is what SDPO trains it to know without: ${seen}.`,
    `Next: sdpo demo --seed ${seed + 1} draws other house formats, and docs/demo.md says what the gap is and where it comes from.`,
  ];
}
