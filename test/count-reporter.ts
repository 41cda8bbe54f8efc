import type { Reporter, TestModule } from "vitest/node";
import { addon } from "../lib/native/load.js";

function untestedDevices(): string {
  if (process.env.SDPO_TEST_DEVICES) return "";
  return addon()
    .backends()
    .filter(({ available }) => !available)
    .map(({ name, detail }) => `not tested on ${name}: ${detail}\n`)
    .join("");
}

/**
 * Closes a run with one line, 'N passed, N failed', and the skipped ones where there are any; before it, the
 * devices that op tests did not run on, and why.
 */
export default class CountReporter implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>, errors: ReadonlyArray<unknown>): void {
    const count = { passed: 0, failed: errors.length, skipped: 0 };
    for (const module of modules) {
      if (module.state() === "failed" && module.errors().length > 0) count.failed++;
      for (const test of module.children.allTests()) {
        const state = test.result().state;
        if (state === "passed" || state === "failed" || state === "skipped") count[state]++;
      }
    }
    const skipped = count.skipped > 0 ? `, ${count.skipped} skipped` : "";
    process.on("exit", () =>
      process.stdout.write(`${untestedDevices()}${count.passed} passed, ${count.failed} failed${skipped}\n`),
    );
  }
}
