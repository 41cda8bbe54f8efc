import { readdir, stat } from "node:fs/promises";
import { SdpoError } from "../errors.js";
import { systemError } from "../models/formats/files.js";

/** Throws ERR_SDPO_FILE where a folder to be written is a file or holds something. */
export async function refuseFilled(folder: string): Promise<void> {
  const info = await stat(folder).catch(() => undefined);
  if (!info) return;
  if (!info.isDirectory()) throw new SdpoError("ERR_SDPO_FILE", `${folder}: is not a folder; name another`);
  const names = await readdir(folder).catch((error) => {
    throw systemError(folder, "cannot be read", error);
  });
  if (names.length > 0) {
    throw new SdpoError("ERR_SDPO_FILE", `${folder}: is not empty; name another folder, or empty it`);
  }
}
