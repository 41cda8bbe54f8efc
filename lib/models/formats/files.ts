import { type FileHandle, open, stat } from "node:fs/promises";
import { SdpoError } from "../../errors.js";

/** Where one tensor's bytes lie; what the native reader needs to convert it. */
export interface TensorSource {
  file: string;
  /** Bytes of the whole file when its header was read. */
  fileSize: number;
  /** "F32", "BF16", "Q4_K", ...: safetensors' and ggml's names, which agree where both have a type. */
  dtype: string;
  /** Rows first, as Hugging Face has it. */
  shape: number[];
  /** From the beginning of the file. */
  offset: number;
  bytes: number;
  /** Rows are in pairs within each head of this many rows and must be put in halves (GGUF, llama's q and k). */
  pairedHeadDim?: number;
}

/** The tensor as a matrix whose rows are converted one by one: of a vector, one row, or in pairs one element each. */
export function matrixShape({ shape, pairedHeadDim }: TensorSource): { rows: number; columns: number } {
  const columns = shape.length > 1 || pairedHeadDim === undefined ? (shape.at(-1) ?? 1) : 1;
  return { rows: columns === 0 ? 0 : shape.reduce((a, b) => a * b, 1) / columns, columns };
}

/** An ERR_SDPO_FILE error that names the file. */
export function fileError(file: string, problem: string, cause?: unknown): SdpoError {
  return new SdpoError("ERR_SDPO_FILE", `${file}: ${problem}`, cause === undefined ? undefined : { cause });
}

const REMEDIES: Readonly<Record<string, string>> = {
  ENOENT: "check the path",
  ENOTDIR: "a part of the path is a file; check the path",
  EISDIR: "a folder has this name; move it away",
  EACCES: "check who owns it and its permissions",
  EPERM: "check who owns it and its permissions",
  EROFS: "the file system is read-only; name another folder",
  ENOSPC: "the disk is full; free space or name another folder",
  EDQUOT: "the quota is used up; free space or name another folder",
  EMFILE: "raise the limit of open files (ulimit -n)",
};

/** What the system said when a file was to be read, written, ..., with what can be done; an SdpoError stays as it is. */
export function systemError(file: string, problem: string, error: unknown): SdpoError {
  if (error instanceof SdpoError) return error;
  const { code = "", message = String(error) } = error as NodeJS.ErrnoException;
  const remedy = Object.hasOwn(REMEDIES, code) ? `; ${REMEDIES[code]}` : "";
  return fileError(file, `${problem}: ${message}${remedy}`, error);
}

/** Opens a regular file, runs `use` with its handle and size in bytes, and closes it. Throws ERR_SDPO_FILE. */
export async function withFile<T>(
  file: string,
  use: (handle: FileHandle, size: number) => Promise<T>,
): Promise<T> {
  try {
    // Looked at before it is opened: opening a named pipe waits for a writer.
    const { size } = await regularFile(file);
    const handle = await open(file, "r");
    try {
      return await use(handle, size);
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw systemError(file, "cannot be read", error);
  }
}

async function regularFile(file: string): Promise<{ size: number }> {
  const info = await stat(file);
  if (!info.isFile()) throw fileError(file, "is not a regular file");
  return info;
}

/** Exactly `length` bytes from `offset`; the caller has checked that they lie inside the file. */
export async function readExactly(handle: FileHandle, offset: number, length: number, file: string) {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw fileError(file, `ends at byte ${offset + done}; it was cut short while read`);
    done += bytesRead;
  }
  return bytes;
}

/** A whole file of at most `limit` bytes. */
export async function readWhole(file: string, limit: number): Promise<Buffer> {
  return withFile(file, async (handle, size) => {
    if (size > limit)
      throw fileError(file, `is ${size} bytes; at most ${limit} are read, is it the right file?`);
    return readExactly(handle, 0, size, file);
  });
}

/** The bytes of one tensor as they are stored. */
export async function readTensorBytes(source: TensorSource): Promise<Buffer> {
  return withFile(source.file, async (handle, size) => {
    if (source.offset + source.bytes > size)
      throw fileError(source.file, "was cut short after it was opened");
    return readExactly(handle, source.offset, source.bytes, source.file);
  });
}
