// Files of at most 400 lines, functions of at most 60: what does not fit a reading is two things.
import ts from "typescript";
import { expect, test } from "vitest";
import { projectFiles, source } from "./sources.js";

const FILE_LINES = 400;
const FUNCTION_LINES = 60;
const generated = "lib/native/ops.generated.ts";

function longFunctions(file: string): string[] {
  const tree = ts.createSourceFile(file, source(file), ts.ScriptTarget.ES2023, true);
  const line = (position: number) => tree.getLineAndCharacterOfPosition(position).line + 1;
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isFunctionLike(node)) {
      const lines = line(node.getEnd()) - line(node.getStart(tree)) + 1;
      if (lines > FUNCTION_LINES) found.push(`${file}:${line(node.getStart(tree))}: ${lines} lines`);
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return found;
}

/** By indentation: clang-format closes a function's body at the column where its header begins. */
function longCppFunctions(file: string, most: number): string[] {
  const lines = source(file).split("\n");
  const found: string[] = [];
  lines.forEach((text, start) => {
    const opens = /^( {0,2})(?! )(?!namespace|class|struct|enum|extern|switch|for|if|while).*\).*\{$/.exec(
      text,
    );
    if (!opens) return;
    const end = lines.findIndex((other, i) => i > start && other.startsWith(`${opens[1]}}`));
    if (end - start + 1 > most) found.push(`${file}:${start + 1}: ${end - start + 1} lines`);
  });
  return found;
}

test("files", () => {
  const files = projectFiles(["lib", "native", "test", "bench"], /\.(ts|mjs|h|cpp|cu|cuh|py)$/).filter(
    (file) => file !== generated && !file.startsWith("test/golden/"),
  );
  const long = files
    .map((file) => ({ file, lines: source(file).trimEnd().split("\n").length }))
    .filter(({ lines }) => lines > FILE_LINES);
  expect(files.length).toBeGreaterThan(50);
  expect(long).toEqual([]);
});

test("functions", () => {
  const typescript = projectFiles(["lib"], /\.ts$/).flatMap(longFunctions);
  const cpp = projectFiles(["native"], /\.(h|cpp)$/).flatMap((file) =>
    longCppFunctions(file, FUNCTION_LINES),
  );
  expect([...typescript, ...cpp]).toEqual([]);
});
