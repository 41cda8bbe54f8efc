import { stat } from "node:fs/promises";
import { join } from "node:path";
import {
  resolveConfig,
  resolveSft,
  type SftConfig,
  sftKeys,
  type TrainConfig,
  trainKeys,
} from "../config.js";
import { SdpoError } from "../errors.js";
import { findPreset } from "../trainer/presets.js";
import { parseOptions, parseSettings, readConfigFile } from "./settings.js";

/** The options of `train` and `sft` that make a configuration. */
export interface ConfigOptions {
  config?: string;
  preset?: string;
  set?: string[];
  option?: string[];
  model?: string;
  data?: string;
  environment?: string;
  output?: string;
  steps?: number;
  seed?: number;
  device?: string;
  resume?: boolean;
}

type Values = Record<string, unknown>;

const FLAGS = ["model", "data", "environment", "output", "steps", "seed", "device", "resume"] as const;

/** The values of --config, of options of their own and of --set, the later before the earlier. */
async function gather(
  options: ConfigOptions,
  keys: typeof trainKeys,
  file: string | undefined,
): Promise<Values> {
  const base = file === undefined ? {} : await readConfigFile(file);
  const flags = Object.fromEntries(
    FLAGS.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]])),
  );
  const settings = parseSettings(options.set ?? [], keys);
  const twice = Object.keys(settings).find((name) => Object.hasOwn(flags, name));
  if (twice) {
    throw new SdpoError("ERR_SDPO_CONFIG", `${twice} is set by --${twice} and by --set; keep one of them`);
  }
  return { ...base, ...flags, ...settings };
}

/** The file to start from: --config, or when going on the configuration that the run folder holds. */
async function baseFile({ config, preset, resume, output }: ConfigOptions): Promise<string | undefined> {
  if (config !== undefined || preset !== undefined || !resume || output === undefined) return config;
  const file = join(output, "config.json");
  const isThere = await stat(file).then(
    () => true,
    () => false,
  );
  return isThere ? file : undefined;
}

/** The configuration that the options of `train` amount to. Throws ERR_SDPO_CONFIG. */
export async function readTrainConfig(options: ConfigOptions): Promise<TrainConfig> {
  const { resume, output, config, preset } = options;
  if (resume && output === undefined && config === undefined && preset === undefined) {
    throw new SdpoError("ERR_SDPO_CONFIG", "--resume: name the run folder to go on from with --output");
  }
  const base = options.preset === undefined ? {} : findPreset(options.preset).values;
  const values = await gather(options, trainKeys, await baseFile(options));
  if (options.option) {
    const inherited = values.environmentOptions ?? base.environmentOptions;
    values.environmentOptions = parseOptions(options.option, inherited);
  }
  return resolveConfig(values, { base });
}

/** The configuration that the options of `sft` amount to. Throws ERR_SDPO_CONFIG. */
export async function readSftConfig(options: ConfigOptions): Promise<SftConfig> {
  const values = await gather(options, sftKeys, options.config);
  if (options.option) values.environmentOptions = parseOptions(options.option, values.environmentOptions);
  return resolveSft(values);
}
