import { stat } from "node:fs/promises";
import { join } from "node:path";
import { show } from "../../errors.js";
import { fileError, readExactly, readWhole, type TensorSource, withFile } from "./files.js";
import { isCount, isObject, type JsonObject, parseJson } from "./json.js";

/** Bytes of an element of each safetensors type. */
export const SAFETENSORS_BYTES: Readonly<Record<string, number>> = {
  ...{ BOOL: 1, U8: 1, I8: 1, F8_E4M3: 1, F8_E5M2: 1, U16: 2, I16: 2, F16: 2, BF16: 2 },
  ...{ U32: 4, I32: 4, F32: 4, U64: 8, I64: 8, F64: 8, C64: 8 },
};

/** The longest header of the format, and the longest index read. */
const HEADER_LIMIT = 100_000_000;

export interface Safetensors {
  metadata: Record<string, string>;
  tensors: Map<string, TensorSource>;
}

/**
 * The header of a safetensors file, checked in full: types, shapes, sizes, and that the tensors fill the file
 * without overlap or gap. Reads no tensor. Throws ERR_SDPO_FILE.
 */
export async function readSafetensors(file: string): Promise<Safetensors> {
  const { header, dataStart, size } = await withFile(file, async (handle, size) => {
    if (size < 8) throw fileError(file, `is ${size} bytes, too short for a safetensors file; get it again`);
    const length = (await readExactly(handle, 0, 8, file)).readBigUInt64LE();
    const limit = Math.min(HEADER_LIMIT, size - 8);
    if (length > BigInt(limit))
      throw fileError(file, `header length is ${length}, at most ${limit} is possible; get the file again`);
    return {
      header: await readExactly(handle, 8, Number(length), file),
      dataStart: 8 + Number(length),
      size,
    };
  });
  const json = parseJson(header, file);
  if (!isObject(json)) throw fileError(file, `header is ${show(json)}, expected a JSON object`);
  const tensors = new Map<string, TensorSource>();
  for (const [name, entry] of Object.entries(json))
    if (name !== "__metadata__")
      tensors.set(name, tensorOf(name, entry, { file, fileSize: size }, dataStart));
  checkLayout(tensors, file, dataStart, size);
  return { metadata: metadataOf(json, file), tensors };
}

function metadataOf(header: JsonObject, file: string): Record<string, string> {
  const metadata = Object.hasOwn(header, "__metadata__") ? header.__metadata__ : {};
  if (!isObject(metadata) || Object.values(metadata).some((value) => typeof value !== "string"))
    throw fileError(file, `__metadata__ is ${show(metadata)}, expected an object of strings`);
  return metadata as Record<string, string>;
}

function tensorOf(
  name: string,
  entry: unknown,
  where: { file: string; fileSize: number },
  dataStart: number,
): TensorSource {
  const refuse = (field: string, value: unknown, expected: string) =>
    fileError(where.file, `tensor ${show(name)}: ${field} is ${show(value)}; expected ${expected}`);
  if (!isObject(entry)) throw refuse("its entry", entry, "an object with dtype, shape and data_offsets");
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(SAFETENSORS_BYTES, dtype))
    throw refuse("dtype", dtype, `one of ${Object.keys(SAFETENSORS_BYTES).join(", ")}`);
  if (!Array.isArray(shape) || !shape.every(isCount))
    throw refuse("shape", shape, "an array of integers from 0");
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    throw refuse("data_offsets", offsets, "two integers from 0");
  const bytes = byteCount(shape, SAFETENSORS_BYTES[dtype]!);
  if (bytes === undefined) throw refuse("shape", shape, "a size below 2^53 bytes");
  const [begin, end] = offsets as [number, number];
  if (end - begin !== bytes)
    throw refuse("data_offsets", offsets, `${bytes} bytes between them, as ${dtype} ${show(shape)} needs`);
  return { ...where, dtype, shape, offset: dataStart + begin, bytes };
}

/** Elements times element size, or undefined where that is not a safe integer. */
export function byteCount(shape: readonly number[], elementBytes: number): number | undefined {
  if (shape.includes(0)) return 0;
  let bytes = elementBytes;
  for (const dimension of shape) {
    bytes *= dimension;
    if (!Number.isSafeInteger(bytes)) return undefined;
  }
  return bytes;
}

function checkLayout(
  tensors: Map<string, TensorSource>,
  file: string,
  dataStart: number,
  size: number,
): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  for (const [name, { offset, bytes }] of inOrder) {
    const problem = offset < end ? "overlaps the tensor before it" : "leaves a gap before it";
    if (offset !== end)
      throw fileError(
        file,
        `tensor ${show(name)} ${problem}: begins at byte ${offset - dataStart} of the data, expected ${end - dataStart}`,
      );
    end = offset + bytes;
    if (end > size)
      throw fileError(
        file,
        `tensor ${show(name)} ends at byte ${end}, the file at ${size}; get the file again`,
      );
  }
  if (end !== size)
    throw fileError(file, `holds ${size - end} bytes that belong to no tensor; expected ${end} bytes in all`);
}

/**
 * The tensors of a Hugging Face folder: `model.safetensors`, or the shards that `model.safetensors.index.json`
 * names. Each tensor must be in the shard the index says, and in no other. Throws ERR_SDPO_FILE.
 */
export async function readSafetensorsFolder(folder: string): Promise<Map<string, TensorSource>> {
  const single = join(folder, "model.safetensors");
  if (await exists(single)) return (await readSafetensors(single)).tensors;
  const index = join(folder, "model.safetensors.index.json");
  if (!(await exists(index)))
    throw fileError(folder, "holds neither model.safetensors nor model.safetensors.index.json");
  const shardOf = await readIndex(index);
  const shards = [...new Set(shardOf.values())];
  const missing = [];
  for (const shard of shards) if (!(await exists(join(folder, shard)))) missing.push(shard);
  if (missing.length > 0)
    throw fileError(
      index,
      `${missing.length} of its ${shards.length} shards are missing, ${missing.slice(0, 5).map(show).join(", ")} among them; get them again`,
    );
  const tensors = new Map<string, TensorSource>();
  for (const shard of shards) await addShard(folder, shard, shardOf, tensors);
  for (const [name, shard] of shardOf)
    if (!tensors.has(name))
      throw fileError(index, `weight_map[${show(name)}] is ${show(shard)}, which does not hold it`);
  return tensors;
}

async function addShard(
  folder: string,
  shard: string,
  shardOf: Map<string, string>,
  tensors: Map<string, TensorSource>,
): Promise<void> {
  const file = join(folder, shard);
  for (const [name, tensor] of (await readSafetensors(file)).tensors) {
    const expected = shardOf.get(name);
    if (expected !== shard)
      throw fileError(
        file,
        `holds tensor ${show(name)}, which the index ${expected ? `has in ${show(expected)}` : "does not name"}`,
      );
    tensors.set(name, tensor);
  }
}

async function readIndex(index: string): Promise<Map<string, string>> {
  const json = parseJson(await readWhole(index, HEADER_LIMIT), index);
  const map = isObject(json) && Object.hasOwn(json, "weight_map") ? json.weight_map : undefined;
  if (!isObject(map) || Object.keys(map).length === 0)
    throw fileError(index, `weight_map is ${show(map)}; expected an object of tensor names and file names`);
  for (const [name, shard] of Object.entries(map))
    if (typeof shard !== "string" || !/^[^/\\\0]+\.safetensors$/.test(shard))
      throw fileError(
        index,
        `weight_map[${show(name)}] is ${show(shard)}; expected the name of a .safetensors file in its folder`,
      );
  return new Map(Object.entries(map) as [string, string][]);
}

/** Does the path exist? */
export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
