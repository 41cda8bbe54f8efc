// Builds the addon with cmake-js: `node native/build.mjs [--incremental] [--debug]`.
// SDPO_ONEDNN and SDPO_CUDA (AUTO|ON|OFF), SDPO_CUDA_ARCHITECTURES ("90a-real"), SDPO_SIMT ("plain;checked;asan"),
// SDPO_BUILD_JOBS=n and SDPO_SANITIZE=address,undefined are passed on.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const { env, argv, execPath } = process;
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const cmakeJs = join(
  dirname(createRequire(import.meta.url).resolve("cmake-js/package.json")),
  "bin/cmake-js",
);
const cache = join(root, "build/cmake/CMakeCache.txt");

/** nvcc where the environment or PATH names one, in its usual place, or from .ci/cuda-toolkit. */
function findNvcc() {
  const folders = [
    ...[env.CUDA_HOME, env.CUDA_PATH].filter(Boolean).map((folder) => join(folder, "bin")),
    ...(env.PATH ?? "").split(delimiter).filter(Boolean),
    "/usr/local/cuda/bin",
    join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "sdpo-ci/cuda/toolkit/bin"),
  ];
  return [env.CUDACXX, ...folders.map((folder) => join(folder, "nvcc"))].find(
    (path) => path && existsSync(path),
  );
}

const cuda = env.SDPO_CUDA ?? "AUTO";
const options = {
  SDPO_VERSION: version,
  SDPO_ONEDNN: env.SDPO_ONEDNN ?? "AUTO",
  SDPO_SANITIZE: env.SDPO_SANITIZE ?? "",
  SDPO_CUDA: cuda,
  SDPO_NVCC: cuda === "OFF" ? "" : (findNvcc() ?? ""),
  SDPO_CUDA_ARCHITECTURES: env.SDPO_CUDA_ARCHITECTURES ?? "80-real;90a-real;90-virtual",
  SDPO_SIMT: env.SDPO_SIMT ?? "plain",
};
const cached = existsSync(cache) ? readFileSync(cache, "utf8") : "";
const unchanged = Object.entries(options).every(([name, value]) =>
  cached.includes(`\n${name}:STRING=${value}\n`),
);
// What was not there when the build was configured is looked for again only by configuring anew.
const dnnl = ["/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib"];
const oneDnnCame =
  options.SDPO_ONEDNN !== "OFF" &&
  cached.includes("dnnl_DIR-NOTFOUND") &&
  dnnl.some((folder) => existsSync(`${folder}/cmake/dnnl`));
let incremental = argv.includes("--incremental") && cached !== "" && !oneDnnCame;
// Other options alone need no clean build: CMake configures again and knows what they touch.
if (incremental && !unchanged) {
  const changes = Object.entries(options).map(([name, value]) => `-D${name}:STRING=${value}`);
  incremental =
    spawnSync("cmake", [...changes, join(root, "build/cmake")], { stdio: "inherit" }).status === 0;
}

const args = [
  cmakeJs,
  incremental ? "build" : "rebuild",
  ...["-d", root, "-O", join(root, "build/cmake"), "-B", argv.includes("--debug") ? "Debug" : "Release"],
  ...["-p", env.SDPO_BUILD_JOBS ?? String(availableParallelism())],
  ...Object.entries(options).map(([name, value]) => `--CD${name}=${value}`),
];
const result = spawnSync(execPath, args, { stdio: "inherit" });
if (result.error) process.stderr.write(`cannot start cmake-js: ${result.error.message}\n`);
if (result.status !== 0) {
  process.stderr.write(
    "The native build failed. It needs a C++17 compiler and CMake >= 3.22 (Debian: apt-get install g++ cmake make).\n",
  );
}
process.exit(result.status ?? 1);
