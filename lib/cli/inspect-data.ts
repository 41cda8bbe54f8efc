import { readRows } from "../environments/data.js";
import { createEnvironment } from "../environments/index.js";
import { show } from "../errors.js";
import type { Report } from "./inspect.js";
import { parseOptions } from "./settings.js";

interface Field {
  rows: number;
  types: Set<string>;
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "list" : typeof value;
}

/**
 * Rows and fields of a data set; with an environment also its tasks, every row being checked by it.
 * Throws ERR_SDPO_DATA, ERR_SDPO_CONFIG.
 */
export async function inspectData(
  path: string,
  environmentName: string | undefined,
  options: readonly string[],
): Promise<Report> {
  const environment =
    environmentName === undefined ? undefined : createEnvironment(environmentName, parseOptions(options));
  const fields = new Map<string, Field>();
  let rows = 0;
  let first: Readonly<Record<string, unknown>> = {};
  for await (const row of readRows(path)) {
    if (rows++ === 0) first = row.fields;
    for (const [name, value] of Object.entries(row.fields)) {
      const field = fields.get(name) ?? { rows: 0, types: new Set() };
      field.rows++;
      field.types.add(typeOf(value));
      fields.set(name, field);
    }
  }
  const described = [...fields].map(([name, field]) => {
    const missing = field.rows < rows ? `, in ${field.rows} rows` : "";
    return [name, `${[...field.types].join(" or ")}${missing}`];
  });
  return {
    kind: "data",
    path,
    rows,
    fields: Object.fromEntries(described),
    "first row": Object.fromEntries(Object.entries(first).map(([name, value]) => [name, show(value)])),
    ...(environment && (await inspectTasks(path, environment))),
  };
}

async function inspectTasks(path: string, environment: ReturnType<typeof createEnvironment>) {
  let tasks = 0;
  let prompt: string[] = [];
  for await (const task of environment.load(path)) {
    if (tasks++ > 0) continue;
    prompt = environment.prompt(task).map(({ role, content }) => `${role}: ${content}`);
  }
  return { environment: environment.name, tasks, "first prompt": prompt.join("\n") };
}
