/** What help says is so: defaults, environments and their options. */
import { expect, test } from "vitest";
import { ENVIRONMENT_OPTIONS } from "../../lib/cli/arguments.js";
import { sftKeys, trainKeys } from "../../lib/config.js";
import { STEPS } from "../../lib/demo/settings.js";
import { createEnvironment, environments } from "../../lib/environments/index.js";
import { cli } from "../cli-io.js";

const help = async (command: string) => (await cli([command, "--help"])).out.replace(/\s+/g, " ");

test("train and sft name the defaults of the keys that have options", async () => {
  for (const [command, keys, names] of [
    ["train", trainKeys, ["steps", "seed", "device"]],
    ["sft", sftKeys, ["seed", "device"]],
  ] as const) {
    const text = await help(command);
    for (const name of names) {
      const { fallback } = keys.find((key) => key.name === name)!;
      expect(text).toContain(`--${name} ${fallback}`);
    }
  }
  expect(await help("demo")).toContain(`${STEPS} by default`);
});

test.each(["train", "eval", "sft", "inspect"])(
  "%s names the environments and their options",
  async (name) => {
    const text = await help(name);
    expect(text).toContain(Object.keys(environments).join(", "));
    expect(text).toContain("mcq: formatFeedback=false, omitReasoningRequest=false");
  },
);

test.each(Object.entries(ENVIRONMENT_OPTIONS))("%s has the options that help names", (name, options) => {
  expect(() => createEnvironment(name, options)).not.toThrow();
  for (const option of Object.keys(options)) {
    const wrong = () => createEnvironment(name, { [option]: {} });
    expect(wrong).toThrow(`option ${option} must be`);
  }
});

test("__proto__ is no option", async () => {
  const args = ["inspect", "package.json", "-e", "mcq", "--option", '__proto__={"formatFeedback":true}'];
  expect(await cli(args)).toMatchObject({
    code: 1,
    err: expect.stringMatching(/ERR_SDPO_CONFIG: environment mcq: unknown option "__proto__"/),
  });
});
