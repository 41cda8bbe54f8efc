import { nearestName, SdpoError, show } from "../errors.js";
import { exact } from "./exact.js";
import { houseDates } from "./house-dates.js";
import { mcq } from "./mcq.js";
import type { Environment } from "./types.js";

/**
 * The environments by their names on the command line. A new one is a file beside this one and a line here.
 */
export const environments = { mcq, "house-dates": houseDates, exact };

/** The environment of a name with its options. Throws `ERR_SDPO_CONFIG` for an unknown name, key or value. */
export function createEnvironment(name: string, options: Record<string, unknown> = {}): Environment {
  if (Object.hasOwn(environments, name)) return environments[name as keyof typeof environments](options);
  const near = typeof name === "string" ? nearestName(name, Object.keys(environments)) : undefined;
  const remedy = near ? `did you mean ${near}?` : `there are ${Object.keys(environments).join(", ")}`;
  throw new SdpoError("ERR_SDPO_CONFIG", `environment: unknown name ${show(name)}; ${remedy}`);
}
