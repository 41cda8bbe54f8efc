import { readdirSync, readFileSync } from "node:fs";
import { defineConfig } from "vitest/config";

const root = import.meta.dirname;
// SDPO_TEST_DEVICES=simt,cuda tests what runs on those devices and nothing else.
const onDevices = () =>
  readdirSync(`${root}/test/ops`)
    .filter((file) => file.endsWith(".test.ts"))
    .map((file) => `test/ops/${file}`)
    .filter((file) => readFileSync(`${root}/${file}`, "utf8").includes("targetsOf("));

export default defineConfig({
  test: {
    include: process.env.SDPO_TEST_DEVICES ? onDevices() : ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
    reporters: ["default", "./test/count-reporter.ts"],
  },
});
