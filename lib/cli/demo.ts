import { Command } from "commander";
import { countFrom, seedOption } from "./arguments.js";
import { type CliIo, interruptible } from "./io.js";

const NOTES = `
A small model, shipped with the package, writes dates in house formats that it does not know. Three attempts with the
environment's feedback are shown, the student's accuracy beside its self-teacher's, then SDPO and GRPO learning side by
side. Nothing is scripted: another seed draws other formats, tasks and samples. On a terminal the curves are drawn as
they grow; elsewhere, or where NO_COLOR or CI is set, lines are printed. Takes about a minute on two cores.

Examples:
  sdpo demo
  sdpo demo --seed 3
`;

/** `sdpo demo`. */
export function demoCommand(io: CliIo): Command {
  return new Command("demo")
    .description("watch SDPO and GRPO learn a small task, side by side")
    .addOption(seedOption().default(0))
    .option("--steps <n>", "training steps of each, 128 generations a step; 80 by default", countFrom(1))
    .addHelpText("after", NOTES)
    .action(async ({ seed, steps }: { seed: number; steps?: number }) => {
      const { runDemo } = await import("../demo/demo.js");
      await interruptible((signal) => runDemo({ seed, steps, signal, out: io.stdout }));
    });
}
