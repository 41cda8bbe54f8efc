// Writes lib/native/ops.generated.ts: the TypeScript types of every op, from the schemas in the built addon.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const target = join(root, "lib/native/ops.generated.ts");
const schemas = createRequire(import.meta.url)("node-gyp-build")(root).schemas();

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());

function attributeType({ kind, choices, nullable }) {
  const type =
    kind === "boolean"
      ? "boolean"
      : kind === "choice"
        ? choices.map((c) => JSON.stringify(c)).join(" | ")
        : "number";
  return nullable ? `${type} | null` : type;
}

function tensorLine({ name, dtypes, shape, optional }) {
  return `    /** ${dtypes.join(" | ") || "the input's dtype"} [${shape.join(", ")}] */\n    ${camel(name)}${optional ? "?" : ""}: Tensor;\n`;
}

function attributeLine(spec) {
  const { name, kind, fallback, choices } = spec;
  const value =
    kind === "choice"
      ? choices[fallback]
      : kind === "boolean"
        ? Boolean(fallback)
        : Number.isNaN(fallback)
          ? null
          : fallback;
  return `    /** default ${JSON.stringify(value)} */\n    ${camel(name)}?: ${attributeType(spec)};\n`;
}

function section(name, part, line) {
  const body = schemas.map((op) => {
    const lines = op[part].map(line).join("");
    return `  ${op.name}: {${lines ? `\n${lines}  ` : " [name: string]: never "}};\n`;
  });
  return `\nexport interface ${name} {\n${body.join("")}}\n`;
}

const text = [
  "// Made by native/generate-types.mjs from the op schemas; do not edit.\n",
  'import type { Tensor } from "./tensor.js";\n',
  `\nexport type OpName =\n${schemas.map(({ name }) => `  | "${name}"`).join("\n")};\n`,
  section("OpInputs", "inputs", tensorLine),
  section("OpAttributes", "attributes", attributeLine),
  section("OpOutputs", "outputs", tensorLine),
].join("");

if (!existsSync(target) || readFileSync(target, "utf8") !== text) writeFileSync(target, text);
