import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

export const root = join(import.meta.dirname, "../..");

/** Files of the project (tracked, or new and not ignored) below these folders with one of these endings. */
export function projectFiles(folders: string[], endings: RegExp): string[] {
  const args = ["ls-files", "--cached", "--others", "--exclude-standard", ...folders];
  const listed = execFileSync("git", args, { cwd: root, encoding: "utf8" }).split("\n");
  return listed.filter((file) => endings.test(file) && existsSync(join(root, file)));
}

export function source(file: string): string {
  return readFileSync(join(root, file), "utf8");
}
