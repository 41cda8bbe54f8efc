// Who may import whom: left to right only, and siblings do not import each other.
import { posix } from "node:path";
import { expect, test } from "vitest";
import { projectFiles, source } from "./sources.js";

const TYPESCRIPT = [
  ["cli"],
  ["demo"],
  ["trainer"],
  ["rollouts", "losses", "feedback"],
  ["models"],
  ["environments", "text", "native"],
  ["config"],
  ["errors"],
];
const CPP = [["binding"], ["models"], ["ops"], ["io", "backends"], ["core"]];

/** The layer of a file below lib/ or native/: the folder, or the name of a file at the top. */
function layerOf(file: string): string {
  const [, first] = file.split("/");
  return first!.replace(/(-.*)?\.\w+$/, "");
}

function violations(layers: string[][], imports: { from: string; to: string }[]): string[] {
  const rank = new Map(layers.flatMap((names, i) => names.map((name) => [name, i] as const)));
  return imports
    .filter(({ from, to }) => {
      const [a, b] = [layerOf(from), layerOf(to)];
      if (a === b || a === "index") return false;
      const [low, high] = [rank.get(a), rank.get(b)];
      return low === undefined || high === undefined || low >= high;
    })
    .map(({ from, to }) => `${from} imports ${to}`);
}

function typescriptImports(): { from: string; to: string }[] {
  return projectFiles(["lib"], /\.ts$/).flatMap((from) =>
    [...source(from).matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g)].map(([, path]) => ({
      from,
      to: posix.join(posix.dirname(from), path!),
    })),
  );
}

function includes(): { from: string; to: string }[] {
  return projectFiles(["native"], /\.(h|cpp|cu|cuh)$/).flatMap((from) =>
    [...source(from).matchAll(/#include "([^"]+)"/g)].map(([, path]) => ({ from, to: `native/${path}` })),
  );
}

test("the rule finds what it forbids", () => {
  expect(violations(TYPESCRIPT, [{ from: "lib/models/a.ts", to: "lib/trainer/b.ts" }])).toHaveLength(1);
  expect(violations(TYPESCRIPT, [{ from: "lib/text/a.ts", to: "lib/native/b.ts" }])).toHaveLength(1);
  expect(violations(CPP, [{ from: "native/core/a.h", to: "native/ops/b.h" }])).toHaveLength(1);
});

test("TypeScript layers", () => {
  const imports = typescriptImports();
  expect(imports.length).toBeGreaterThan(50);
  expect(violations(TYPESCRIPT, imports)).toEqual([]);
});

test("C++ layers", () => {
  // core/dtype.h takes the ABI's numbers, so that both sides of the interface agree on them.
  const allowed = new Set(["native/core/dtype.h imports native/backends/abi.h"]);
  const found = violations(CPP, includes()).filter((line) => !allowed.has(line));
  expect(includes().length).toBeGreaterThan(50);
  expect(found).toEqual([]);
});

test("only the binding knows N-API", () => {
  const files = projectFiles(["native"], /\.(h|cpp)$/).filter((file) => source(file).includes("<napi.h>"));
  expect(files.filter((file) => !file.startsWith("native/binding/"))).toEqual([]);
});

test("losses and feedback have no I/O, clock or randomness", () => {
  const pure = projectFiles(["lib/losses", "lib/feedback"], /\.ts$/);
  expect(pure.length).toBeGreaterThan(2);
  expect(
    pure.filter((file) => /"node:|Date\.|performance\.|Math\.random|setTimeout/.test(source(file))),
  ).toEqual([]);
});
