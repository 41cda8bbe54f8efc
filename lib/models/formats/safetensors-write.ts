import { type FileHandle, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { SdpoError, show } from "../../errors.js";
import { systemError } from "./files.js";
import { byteCount, SAFETENSORS_BYTES } from "./safetensors.js";

/** A tensor to be written. `data` may be a function, called once when its turn comes, so that one is held at a time. */
export interface TensorToWrite {
  name: string;
  dtype: string;
  shape: readonly number[];
  data: Uint8Array | (() => Uint8Array | Promise<Uint8Array>);
}

type Sized = TensorToWrite & { bytes: number };

function checkTensors(file: string, tensors: Iterable<TensorToWrite>): Sized[] {
  const names = new Set<string>();
  const sized = [...tensors].map((tensor) => {
    const { name, dtype, shape } = tensor;
    const refuse = (problem: string) =>
      new SdpoError("ERR_SDPO_ARGUMENT", `${file}: tensor ${show(name)}: ${problem}`);
    if (name === "__metadata__" || names.has(name))
      throw refuse("the name is taken; give each tensor its own");
    names.add(name);
    const size = Object.hasOwn(SAFETENSORS_BYTES, dtype) ? SAFETENSORS_BYTES[dtype] : undefined;
    if (size === undefined)
      throw refuse(`dtype is ${show(dtype)}; expected one of ${Object.keys(SAFETENSORS_BYTES).join(", ")}`);
    const bytes = shape.every((n) => Number.isSafeInteger(n) && n >= 0) ? byteCount(shape, size) : undefined;
    if (bytes === undefined)
      throw refuse(`shape is ${show(shape)}; expected integers from 0, below 2^53 bytes`);
    return { ...tensor, bytes };
  });
  // Wide elements first keeps every tensor aligned to its element size.
  const width = (tensor: Sized) => SAFETENSORS_BYTES[tensor.dtype]!;
  return sized.sort((a, b) => width(b) - width(a) || (a.name < b.name ? -1 : 1));
}

function headerOf(tensors: readonly Sized[], metadata: Record<string, string>): Buffer {
  const header: [string, unknown][] = [["__metadata__", { format: "pt", ...metadata }]];
  let offset = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header.push([name, { dtype, shape, data_offsets: [offset, offset + bytes] }]);
    offset += bytes;
  }
  const entries = header.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const json = Buffer.from(`{${entries.join(",")}}`);
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " ");
  padded.writeBigUInt64LE(BigInt(padded.length - 8));
  json.copy(padded, 8);
  return padded;
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.length - done, 1 << 30));
    done += bytesWritten;
  }
}

async function writeFileSynced(file: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  const temporary = `${file}.tmp`;
  try {
    const handle = await open(temporary, "w");
    try {
      for await (const chunk of chunks) await writeAll(handle, chunk);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw systemError(file, "cannot be written", error);
  }
}

async function* content(file: string, tensors: readonly Sized[], metadata: Record<string, string>) {
  yield headerOf(tensors, metadata);
  for (const { name, data, bytes } of tensors) {
    const chunk = typeof data === "function" ? await data() : data;
    if (!(chunk instanceof Uint8Array) || chunk.length !== bytes)
      throw new SdpoError(
        "ERR_SDPO_ARGUMENT",
        `${file}: tensor ${show(name)}: its data is ${show(chunk)}; expected ${bytes} bytes`,
      );
    yield chunk;
  }
}

/**
 * Writes a safetensors file that transformers loads, tensor by tensor, to `<file>.tmp`, synced, then renamed;
 * a failure leaves what was there. Throws ERR_SDPO_ARGUMENT for a wrong tensor, ERR_SDPO_FILE for the system's errors.
 */
export async function writeSafetensors(
  file: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Record<string, string> = {},
): Promise<void> {
  await writeFileSynced(file, content(file, checkTensors(file, tensors), metadata));
}

/** Writes a file, synced and renamed into place. Throws ERR_SDPO_FILE. */
export async function writeBytes(file: string, bytes: Uint8Array): Promise<void> {
  await writeFileSynced(
    file,
    (async function* () {
      yield bytes;
    })(),
  );
}

/** Writes a text file as {@link writeBytes} does. */
export async function writeText(file: string, text: string): Promise<void> {
  await writeBytes(file, Buffer.from(text));
}

/** Writes a JSON file as {@link writeBytes} does. */
export async function writeJson(file: string, value: unknown): Promise<void> {
  await writeText(file, `${JSON.stringify(value, null, 2)}\n`);
}

/**
 * Writes a model's tensors to an existing folder: `model.safetensors`, or above `maxShardBytes` (default 5 GB)
 * shards with `model.safetensors.index.json`. Weight files of these names from an earlier save are removed at the end.
 */
export async function writeSafetensorsFolder(
  folder: string,
  tensors: Iterable<TensorToWrite>,
  { maxShardBytes = 5e9, metadata = {} }: { maxShardBytes?: number; metadata?: Record<string, string> } = {},
): Promise<void> {
  const shards: Sized[][] = [[]];
  let filled = 0;
  let total = 0;
  for (const tensor of checkTensors(folder, tensors)) {
    if (filled > 0 && filled + tensor.bytes > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += tensor.bytes;
    total += tensor.bytes;
  }
  const number = (i: number) => String(i).padStart(5, "0");
  const names = shards.map((_, i) =>
    shards.length === 1
      ? "model.safetensors"
      : `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`,
  );
  for (const [i, shard] of shards.entries()) await writeSafetensors(join(folder, names[i]!), shard, metadata);
  const kept = new Set(names);
  if (shards.length > 1) {
    const index = "model.safetensors.index.json";
    const map = shards.flatMap((shard, i) => shard.map(({ name }) => [name, names[i]] as const)).sort();
    await writeJson(join(folder, index), {
      metadata: { total_size: total },
      weight_map: Object.fromEntries(map),
    });
    kept.add(index);
  }
  await removeWeights(folder, kept);
}

/** Removes the weight files of an earlier save but those that are kept. */
async function removeWeights(folder: string, kept: ReadonlySet<string>): Promise<void> {
  const ours = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/;
  try {
    for (const name of await readdir(folder))
      if (ours.test(name) && !kept.has(name)) await rm(join(folder, name));
  } catch (error) {
    throw systemError(folder, "an earlier model's weights cannot be removed", error);
  }
}
