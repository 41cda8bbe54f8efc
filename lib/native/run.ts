import { nearestName, SdpoError, show } from "../errors.js";
import { Device } from "./device.js";
import { type AttributeSchema, addon, cancellable, type OpSchema } from "./load.js";
import type { OpAttributes, OpInputs, OpName, OpOutputs } from "./ops.generated.js";
import { Tensor } from "./tensor.js";

interface IndexedSchema extends OpSchema {
  inputNames: Set<string>;
  attributeNames: Set<string>;
}

let schemas: Map<string, IndexedSchema> | undefined;
const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());

function schemaOf(op: string): IndexedSchema {
  schemas ??= new Map(
    addon()
      .schemas()
      .map((schema) => [schema.name, camelCased(schema)]),
  );
  const schema = schemas.get(op);
  if (schema) return schema;
  const near = nearestName(String(op), schemas.keys());
  throw new SdpoError("ERR_SDPO_OP", `no op is named ${show(op)}${near ? `; did you mean '${near}'?` : ""}`);
}

function camelCased(schema: OpSchema): IndexedSchema {
  const rename = <T extends { name: string }>(items: T[]) =>
    items.map((item) => ({ ...item, name: camel(item.name) }));
  const inputs = rename(schema.inputs);
  const attributes = rename(schema.attributes);
  const names = (items: { name: string }[]) => new Set(items.map((item) => item.name));
  return {
    ...schema,
    inputs,
    outputs: rename(schema.outputs),
    attributes,
    inputNames: names(inputs),
    attributeNames: names(attributes),
  };
}

function refuseUnknown(op: string, kind: string, given: object, known: Set<string>): void {
  for (const name of Object.keys(given)) {
    if (known.has(name)) continue;
    const near = nearestName(name, known);
    const hint = near ? `; did you mean '${near}'?` : `; there are: ${[...known].join(", ") || "none"}`;
    throw new SdpoError("ERR_SDPO_OP", `[${op}] no ${kind} is named '${name}'${hint}`);
  }
}

function attributeValue(op: string, spec: AttributeSchema, value: unknown): number {
  const refuse = (expected: string) =>
    new SdpoError("ERR_SDPO_OP", `[${op}] ${spec.name}: expected ${expected}, got ${show(value)}`);
  if (value === undefined) return spec.fallback;
  if (value === null) {
    if (!spec.nullable) throw refuse(spec.kind);
    return Number.NaN;
  }
  if (spec.kind === "boolean") {
    if (typeof value !== "boolean") throw refuse("true or false");
    return value ? 1 : 0;
  }
  if (spec.kind === "choice") {
    const index = spec.choices.indexOf(value as string);
    if (index < 0) throw refuse(spec.choices.map((choice) => `"${choice}"`).join(" | "));
    return index;
  }
  const expected = `${spec.kind === "integer" ? "an integer" : "a number"} from ${spec.least} to ${spec.most}`;
  if (typeof value !== "number" || Number.isNaN(value)) throw refuse(expected);
  return value;
}

/**
 * Runs any registered op; the types list them. Inputs are tensors on `device`; optional ones
 * may be left out. Attributes left out take the schema's default.
 * @returns the op's outputs by name; one that was not asked for is absent
 * @throws ERR_SDPO_OP naming op, tensor or attribute, what was expected and what was given
 */
export async function run<N extends OpName>(
  device: Device,
  op: N,
  inputs: OpInputs[N],
  attributes: OpAttributes[N] = {} as OpAttributes[N],
  options: { signal?: AbortSignal | undefined } = {},
): Promise<OpOutputs[N]> {
  if (!(device instanceof Device))
    throw new SdpoError("ERR_SDPO_ARGUMENT", `device: expected a Device, got ${show(device)}`);
  const schema = schemaOf(op);
  for (const [name, value] of Object.entries({ inputs, attributes })) {
    if (typeof value === "object" && value !== null) continue;
    throw new SdpoError("ERR_SDPO_OP", `[${op}] ${name}: expected an object, got ${show(value)}`);
  }
  const given = inputs as Record<string, Tensor | undefined | null>;
  refuseUnknown(op, "input", given, schema.inputNames);
  refuseUnknown(op, "attribute", attributes as object, schema.attributeNames);
  const tensors = schema.inputs.map(({ name }) => {
    const tensor = given[name];
    if (tensor === undefined || tensor === null) return null;
    if (!(tensor instanceof Tensor)) {
      throw new SdpoError("ERR_SDPO_OP", `[${op}] ${name}: expected a Tensor, got ${show(tensor)}`);
    }
    return tensor.native;
  });
  const values = Float64Array.from(schema.attributes, (spec) =>
    attributeValue(op, spec, (attributes as Record<string, unknown>)[spec.name]),
  );
  const outputs = await cancellable(options.signal, (cancel) =>
    device.native.run(op, tensors, values, cancel),
  );
  const named: Record<string, Tensor> = {};
  schema.outputs.forEach(({ name }, i) => {
    const output = outputs[i];
    if (output) named[name] = new Tensor(device, output);
  });
  return named as OpOutputs[N];
}
