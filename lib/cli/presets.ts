import { Command } from "commander";
import { type CliIo, print, printJson } from "./io.js";

/** `sdpo presets`. */
export function presetsCommand(io: CliIo): Command {
  return new Command("presets")
    .description("list the recipes that ship, or show one as a configuration")
    .argument("[name]", "show this one")
    .option("--json", "only the values, ready to be used with --config")
    .addHelpText("after", "\nExamples:\n  sdpo presets\n  sdpo presets no-feedback --json > my.json\n")
    .action(async (name: string | undefined, options: { json?: boolean }) => {
      const { findPreset, presetNames } = await import("../trainer/presets.js");
      if (name === undefined) {
        if (options.json)
          printJson(io, Object.fromEntries(presetNames.map((n) => [n, findPreset(n).values])));
        else for (const each of presetNames) print(io, `${each.padEnd(16)}${findPreset(each).description}`);
        return;
      }
      const preset = findPreset(name);
      if (!options.json) {
        print(io, `${name}: ${preset.description}`);
        print(io, `Source: ${preset.source}`);
        print(io, `Models: ${preset.models}`);
        print(io, `Hardware: ${preset.hardware}`);
      }
      printJson(io, preset.values);
    });
}
