import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { SdpoError, show } from "../errors.js";
import { readTensorBytes, readWhole, type TensorSource } from "../models/formats/files.js";
import { isCount, isObject, parseJson } from "../models/formats/json.js";
import { exists, readSafetensors } from "../models/formats/safetensors.js";
import { type TensorToWrite, writeJson, writeSafetensors } from "../models/formats/safetensors-write.js";

/** What a checkpoint holds. */
export interface CheckpointContents {
  /** Safetensors files by name. */
  tensors: Record<string, Iterable<TensorToWrite>>;
  /** What else there is to know, as JSON. */
  state: Record<string, unknown>;
  /** Writes further files into the folder, such as the model with its tokenizer. */
  write?: (folder: string) => Promise<void>;
}

interface Entry {
  size: number;
  sha256: string;
}

export const MANIFEST = "manifest.json";
const STATE = "state.json";
const JSON_LIMIT = 1 << 28;

function checkpointError(message: string, cause?: unknown): SdpoError {
  return new SdpoError("ERR_SDPO_CHECKPOINT", message, cause === undefined ? undefined : { cause });
}

/** A complete checkpoint whose files are those that were written. */
export class Checkpoint {
  readonly folder: string;
  readonly step: number;
  readonly state: Record<string, unknown>;

  /** @internal */
  constructor(folder: string, step: number, state: Record<string, unknown>) {
    this.folder = folder;
    this.step = step;
    this.state = state;
  }

  /** Names, types, shapes and places of the tensors in one of its files. */
  async tensors(file: string): Promise<Map<string, TensorSource>> {
    return (await readSafetensors(join(this.folder, file))).tensors;
  }

  /** One tensor, as it is stored. Throws ERR_SDPO_CHECKPOINT where there is none of that name. */
  async readTensor(file: string, name: string): Promise<{ dtype: string; shape: number[]; bytes: Buffer }> {
    const source = (await this.tensors(file)).get(name);
    if (!source) throw checkpointError(`${join(this.folder, file)}: has no tensor ${show(name)}`);
    return { dtype: source.dtype, shape: source.shape, bytes: await readTensorBytes(source) };
  }
}

/** What a folder is called while it is written, and while another of its step takes its place. */
const UNFINISHED = ".tmp";
const SET_ASIDE = ".old";

/** Where the checkpoints of a run lie. */
export function checkpointsFolder(runFolder: string): string {
  return join(runFolder, "checkpoints");
}

/**
 * Writes `checkpoints/step-N` whole or not at all: into `step-N.tmp`, every file synced, a manifest with the
 * size and SHA-256 of each, then renamed. Afterwards all but the newest `keep` checkpoints are removed. One of
 * the same step is set aside before, where {@link findCheckpoint} still finds it, and removed last.
 * @returns the checkpoint's folder
 * @throws ERR_SDPO_FILE where the disk is full or not writable; earlier checkpoints stay as they are
 */
export async function writeCheckpoint(
  runFolder: string,
  step: number,
  contents: CheckpointContents,
  keep: number,
): Promise<string> {
  const parent = checkpointsFolder(runFolder);
  const folder = join(parent, `step-${step}`);
  const temporary = `${folder}${UNFINISHED}`;
  try {
    await mkdir(parent, { recursive: true });
    await removeLeftovers(runFolder);
    await mkdir(temporary);
    await contents.write?.(temporary);
    for (const [file, tensors] of Object.entries(contents.tensors)) {
      await writeSafetensors(join(temporary, file), tensors);
    }
    await writeJson(join(temporary, STATE), contents.state);
    await seal(temporary, step);
    if (await exists(folder)) await rename(folder, `${folder}${SET_ASIDE}`);
    await rename(temporary, folder);
    await sync(parent);
    await removeLeftovers(runFolder);
    // Newer ones can only be leftovers of a run that went on from an older one: broken, or abandoned.
    const others = (await checkpointSteps(runFolder)).filter((other) => other !== step);
    const newer = others.filter((other) => other > step);
    const older = others.filter((other) => other < step).slice(keep - 1);
    for (const old of [...newer, ...older]) await rm(join(parent, `step-${old}`), { recursive: true });
  } catch (error) {
    if (error instanceof SdpoError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new SdpoError("ERR_SDPO_FILE", `${folder}: the checkpoint cannot be written: ${reason}`, {
      cause: error,
    });
  }
  return folder;
}

/** Syncs every file, then writes the manifest that names them all. */
async function seal(folder: string, step: number): Promise<void> {
  const files: Record<string, Entry> = {};
  for (const name of (await filesIn(folder)).sort()) {
    const file = join(folder, name);
    await sync(file);
    files[name] = { size: (await stat(file)).size, sha256: await sha256(file) };
  }
  await writeJson(join(folder, MANIFEST), { format: 1, step, files });
  await sync(folder);
}

async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function sha256(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** Steps of the checkpoints in a run folder, newest first. */
export async function checkpointSteps(runFolder: string): Promise<number[]> {
  const parent = checkpointsFolder(runFolder);
  if (!(await exists(parent))) return [];
  const steps = (await readdir(parent)).flatMap(
    (name) => /^step-(\d{1,15})(?:\.old)?$/.exec(name)?.[1] ?? [],
  );
  return [...new Set(steps.map(Number))].sort((a, b) => b - a);
}

/** Where the checkpoint of a step lies. */
export async function checkpointFolder(runFolder: string, step: number): Promise<string> {
  const folder = join(checkpointsFolder(runFolder), `step-${step}`);
  return (await exists(folder)) ? folder : `${folder}${SET_ASIDE}`;
}

/** Removes what an interrupted write left; puts back what it had set aside. */
export async function removeLeftovers(runFolder: string): Promise<void> {
  const parent = checkpointsFolder(runFolder);
  if (!(await exists(parent))) return;
  for (const name of await readdir(parent)) {
    const [, step, state] = /^(step-\d+)(\.tmp|\.old)$/.exec(name) ?? [];
    if (step === undefined) continue;
    const isLast = state === SET_ASIDE && !(await exists(join(parent, step)));
    if (isLast) await rename(join(parent, name), join(parent, step));
    else await rm(join(parent, name), { recursive: true });
  }
}

/** Opens the checkpoint in a folder. Throws ERR_SDPO_CHECKPOINT naming the file that is not as it was written. */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  try {
    const { step, files } = await readManifest(folder);
    for (const [name, entry] of Object.entries(files)) await checkFile(join(folder, name), entry);
    const state = parseJson(await readWhole(join(folder, STATE), JSON_LIMIT), join(folder, STATE));
    if (!isObject(state))
      throw checkpointError(`${join(folder, STATE)}: is ${show(state)}, expected an object`);
    return new Checkpoint(folder, step, state);
  } catch (error) {
    if ((error as SdpoError).code === "ERR_SDPO_CHECKPOINT") throw error;
    throw checkpointError(error instanceof Error ? error.message : String(error), error);
  }
}

async function readManifest(folder: string): Promise<{ step: number; files: Record<string, Entry> }> {
  const file = join(folder, MANIFEST);
  if (!(await exists(file)))
    throw checkpointError(`${folder}: has no ${MANIFEST}, so it is no complete checkpoint`);
  const json = parseJson(await readWhole(file, JSON_LIMIT), file);
  const { format, step, files } = isObject(json) ? json : {};
  if (format !== 1) {
    throw checkpointError(`${file}: format is ${show(format)}, expected 1; use the version that wrote it`);
  }
  if (!isCount(step)) throw checkpointError(`${file}: step is ${show(step)}, expected an integer from 0`);
  if (!isObject(files) || !Object.hasOwn(files, STATE)) {
    throw checkpointError(
      `${file}: files is ${show(files)}, expected the checkpoint's files, ${STATE} among them`,
    );
  }
  for (const [name, entry] of Object.entries(files)) {
    const isEntry = isObject(entry) && isCount(entry.size) && /^[0-9a-f]{64}$/.test(String(entry.sha256));
    if (!isEntry || !/^[^/\\\0]+$/.test(name)) {
      throw checkpointError(
        `${file}: files[${show(name)}] is ${show(entry)}, expected a file's size and sha256`,
      );
    }
  }
  return { step, files: files as unknown as Record<string, Entry> };
}

async function checkFile(file: string, { size, sha256: expected }: Entry): Promise<void> {
  const info = await stat(file).catch(() => undefined);
  if (!info?.isFile()) throw checkpointError(`${file}: is missing`);
  if (info.size !== size) throw checkpointError(`${file}: is ${info.size} bytes, ${size} were written`);
  const actual = await sha256(file);
  if (actual !== expected)
    throw checkpointError(`${file}: its SHA-256 is ${actual}, not ${expected} as written`);
}

/**
 * The checkpoint in this folder, or the newest whole one of a run folder, or undefined where there is none.
 * `onWarning` is told of newer ones that are broken.
 * @throws ERR_SDPO_CHECKPOINT where there are checkpoints and all of them are broken
 */
export async function findCheckpoint(
  folder: string,
  onWarning: (message: string) => void = () => {},
): Promise<Checkpoint | undefined> {
  if (await exists(join(folder, MANIFEST))) return openCheckpoint(folder);
  const steps = await checkpointSteps(folder);
  let last: SdpoError | undefined;
  for (const step of steps) {
    try {
      return await openCheckpoint(await checkpointFolder(folder, step));
    } catch (error) {
      last = error as SdpoError;
      onWarning(`checkpoint step-${step} is broken and passed over: ${last.message}`);
    }
  }
  if (last) {
    throw checkpointError(
      `${folder}: none of its ${steps.length} checkpoints is whole (${last.message}); start anew in another folder`,
      last,
    );
  }
  return undefined;
}

/** Throws ERR_SDPO_FILE where the file system that `folder` is, or will be, on has less than `bytes` free. */
export async function checkFreeSpace(folder: string, bytes: number): Promise<void> {
  let place = resolve(folder);
  while (!(await exists(place)) && dirname(place) !== place) place = dirname(place);
  const { bavail, bsize } = await statfs(place);
  const free = bavail * bsize;
  if (free >= bytes) return;
  const gigabytes = (n: number) => `${(n / 1e9).toFixed(2)} GB`;
  throw new SdpoError(
    "ERR_SDPO_FILE",
    `${folder}: checkpoints need ${gigabytes(bytes)}, ${gigabytes(free)} are free; free some, or lower keepCheckpoints`,
  );
}

/** Bytes of the files below a folder whose paths `counts` takes; 0 where there is no folder. */
async function bytesBelow(folder: string, counts: (path: string) => boolean): Promise<number> {
  if (!(await exists(folder))) return 0;
  let sum = 0;
  for (const path of (await readdir(folder, { recursive: true })).filter(counts)) {
    const info = await stat(join(folder, path));
    if (info.isFile()) sum += info.size;
  }
  return sum;
}

/**
 * Throws ERR_SDPO_FILE where a run lacks room for `keep` checkpoints of `bytes` and another while it is written.
 * Those that the run folder holds have theirs already, and leftovers make room.
 */
export async function checkCheckpointSpace(runFolder: string, bytes: number, keep: number): Promise<void> {
  const folder = checkpointsFolder(runFolder);
  const held = await bytesBelow(folder, () => true);
  const leftovers = await bytesBelow(folder, (path) => /^step-\d+\.tmp/.test(path));
  await checkFreeSpace(runFolder, Math.max(bytes * (keep + 1) - held, bytes - leftovers));
}
