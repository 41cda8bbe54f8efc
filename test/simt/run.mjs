// The op tests on an instrumented SIMT build: node test/simt/run.mjs checked|asan
// As both kinds of GPU, and with blocks, threads and copies in both orders.
import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";

const root = join(import.meta.dirname, "../..");
const [variant, ...filters] = process.argv.slice(2);
if (variant !== "checked" && variant !== "asan") {
  process.stderr.write("usage: node test/simt/run.mjs checked|asan [vitest filters]\n");
  process.exit(2);
}

function run(command, args, env) {
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
  if (status !== 0) process.exit(status ?? 1);
}

run(process.execPath, ["native/build.mjs", "--incremental"], { SDPO_SIMT: `plain;${variant}` });

const env = { SDPO_TEST_DEVICES: "simt", SDPO_SIMT_VARIANT: variant };
if (variant === "asan") {
  const library = (name) => execFileSync("c++", [`-print-file-name=${name}`], { encoding: "utf8" }).trim();
  env.LD_PRELOAD = `${library("libasan.so")} ${library("libubsan.so")}`;
  env.ASAN_OPTIONS = "detect_leaks=0";
  env.UBSAN_OPTIONS = "halt_on_error=1:print_stacktrace=1";
}
const vitest = [join(root, "node_modules/vitest/vitest.mjs"), "run", "--reporter=dot", ...filters];
for (const [arch, order] of [
  ["90", "forward"],
  ["80", "reverse"],
]) {
  process.stdout.write(`== SIMT ${variant}, sm_${arch}, ${order} order\n`);
  run(process.execPath, vitest, { ...env, SDPO_SIMT_ARCH: arch, SDPO_SIMT_ORDER: order });
}
