import { expect, test } from "vitest";
import { addon } from "../../lib/native/load.js";
import { projectFiles, source } from "./sources.js";

test("every op has a test", () => {
  const tests = projectFiles(["test/ops", "test/unit", "test/models"], /\.test\.ts$/).map(source);
  const untested = addon()
    .schemas()
    .filter(({ name }) => !tests.some((text) => text.includes(`"${name}"`)));
  expect(untested.map(({ name }) => name)).toEqual([]);
});

test("every op is described at the head of its file", () => {
  const files = projectFiles(["native/ops"], /\.cpp$/).filter((file) => source(file).includes("SDPO_OP("));
  expect(files.length).toBeGreaterThan(0);
  expect(files.filter((file) => !source(file).startsWith("// "))).toEqual([]);
});
