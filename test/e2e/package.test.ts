/** The package as npm would publish it: what is in it, and that it runs from another project. Building the addon is left out. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
let project: string;
let files: string[];

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), "sdpo-package-"));
  const args = ["pack", "--json", "--ignore-scripts", "--pack-destination", project];
  const [packed] = JSON.parse(execFileSync("npm", args, { cwd: root, encoding: "utf8" })) as [
    { filename: string; files: { path: string }[] },
  ];
  files = packed.files.map(({ path }) => path);
  const modules = join(project, "node_modules");
  mkdirSync(modules);
  execFileSync("tar", ["xzf", join(project, packed.filename), "-C", modules]);
  execFileSync("mv", [join(modules, "package"), join(modules, "sdpo")]);
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    dependencies: Record<string, string>;
  };
  for (const name of Object.keys(dependencies)) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(root, "node_modules", name), join(modules, name));
  }
});
afterAll(() => rmSync(project, { recursive: true }));

describe("its files", () => {
  test("are what runs, what is built, what is read, and nothing else", () => {
    const known = [
      /^(README|CONTRIBUTING)\.md$|^LICENSE$|^package\.json$|^CMakeLists\.txt$|^binding\.gyp$/,
      /^dist\/[\w./-]+\.(js|d\.ts)$/,
      /^native\/(?!generate-types)[\w./-]+$/,
      /^docs\/[\w/-]+\.(md|mjs)$/,
      /^lib\/demo\/model\/[\w.]+$/,
    ];
    expect(files.filter((file) => !known.some((pattern) => pattern.test(file)))).toEqual([]);
  });

  test("hold every native source and the program of every module", () => {
    const below = (folder: string) =>
      readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(root.length));
    const sources = below("native").filter((file) => !file.endsWith("generate-types.mjs"));
    const programs = below("lib")
      .filter((file) => file.endsWith(".ts"))
      .map((file) => file.replace(/^lib\/(.*)\.ts$/, "dist/$1.js"));
    expect([...sources, ...programs].filter((file) => !files.includes(file))).toEqual([]);
  });

  test("hold what the README links to", () => {
    const readme = readFileSync(join(root, "README.md"), "utf8");
    const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1]!);
    expect(links.length).toBeGreaterThan(5);
    expect(links.filter((link) => !files.includes(link))).toEqual([]);
  });
});

describe("in another project", () => {
  const sdpo = (...args: string[]) =>
    spawnSync(process.execPath, [join(project, "node_modules/sdpo/dist/cli/main.js"), ...args], {
      cwd: project,
      encoding: "utf8",
    });

  test("without the addon, as where install scripts are held back, it says what builds it", () => {
    expect(sdpo("--help")).toMatchObject({ status: 0, stdout: expect.stringMatching(/^Usage: sdpo/) });
    const command = `node ${join(project, "node_modules/sdpo/native/build.mjs")}`;
    expect(sdpo("doctor").stdout).toContain(command);
    const { status, stderr } = sdpo("generate", "-m", "node_modules/sdpo/lib/demo/model", "x");
    expect([status, stderr]).toEqual([1, expect.stringContaining(`ERR_SDPO_DEVICE`)]);
    expect(stderr).toContain(command);
  });

  test("with it, the command and the embedding example run", () => {
    cpSync(join(root, "build/Release"), join(project, "node_modules/sdpo/build/Release"), {
      recursive: true,
    });
    expect(sdpo("doctor")).toMatchObject({ status: 0, stdout: expect.stringMatching(/\nmatrix products /) });
    cpSync(join(root, "docs/examples/embed.mjs"), join(project, "embed.mjs"));
    const model = join(project, "node_modules/sdpo/lib/demo/model");
    const output = execFileSync(process.execPath, ["embed.mjs", model], { cwd: project, encoding: "utf8" });
    expect(output).toMatch(/\nloss \d\.\d{4}\ndistilled [\d.]+\n$/);
  });
});
