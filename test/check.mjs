// `npm run check`: format, lint, types, layering. `--fix` rewrites formatting. Says what it could not check.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const bin = (name) => join(root, "node_modules/.bin", name);
const fix = process.argv.includes("--fix");
const CLANG_FORMAT_MAJOR = 18;

function run(title, command, args) {
  process.stdout.write(`== ${title}\n`);
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: "inherit" });
  if (error) process.stderr.write(`${command}: ${error.message}\n`);
  if (status !== 0) process.exitCode = 1;
}

function clangFormat() {
  for (const candidate of [
    process.env.SDPO_CLANG_FORMAT,
    `clang-format-${CLANG_FORMAT_MAJOR}`,
    "clang-format",
  ]) {
    if (!candidate) continue;
    const { stdout } = spawnSync(candidate, ["--version"], { encoding: "utf8" });
    if (stdout?.includes(`version ${CLANG_FORMAT_MAJOR}.`)) return candidate;
  }
  return undefined;
}

const listed = spawnSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", "native"], {
  cwd: root,
  encoding: "utf8",
});
const sources = listed.stdout
  .split("\n")
  .filter((file) => /\.(h|cpp|cu|cuh)$/.test(file) && existsSync(join(root, file)));

run("biome", bin("biome"), fix ? ["check", "--write", "."] : ["check", "."]);
const formatter = clangFormat();
if (!formatter) {
  process.stdout.write(
    `== clang-format ${CLANG_FORMAT_MAJOR} not found: C++ formatting is not checked (pip install clang-format==${CLANG_FORMAT_MAJOR}.1.8, or set SDPO_CLANG_FORMAT)\n`,
  );
} else {
  run("clang-format", formatter, [...(fix ? ["-i"] : ["--dry-run", "--Werror"]), ...sources]);
}
if (!fix) {
  run("types", bin("tsc"), ["-p", "tsconfig.json", "--noEmit"]);
  run("types of tests", bin("tsc"), ["-p", "test/tsconfig.json"]);
  run("layers and sizes", bin("vitest"), ["run", "test/meta", "--reporter=dot"]);
}
