import { show } from "../../errors.js";
import { fileError, readExactly, type TensorSource, withFile } from "./files.js";
import { byteCount } from "./safetensors.js";

export interface Gguf {
  file: string;
  /** Integers beyond 2^53 are bigints; arrays are plain arrays. Has no prototype. */
  metadata: Record<string, unknown>;
  tensors: Map<string, TensorSource>;
}

/** Of each type that is read: elements in a block, and bytes of it. */
const BLOCKS: Readonly<Record<string, readonly [number, number]>> = {
  ...{ F32: [1, 4], F16: [1, 2], BF16: [1, 2], Q8_0: [32, 34], Q4_0: [32, 18], Q4_1: [32, 20] },
  ...{ Q5_0: [32, 22], Q5_1: [32, 24], Q4_K: [256, 144], Q5_K: [256, 176], Q6_K: [256, 210] },
};

/** ggml's names of its type numbers; the gaps are types it has withdrawn. */
const TYPE_NAMES = (
  "F32 F16 Q4_0 Q4_1 - - Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL " +
  "IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 - - - TQ1_0 TQ2_0 - - - MXFP4"
).split(" ");

const FIRST_READ = 4 << 20;
const HEADER_LIMIT = 1 << 28;
const ARRAY_LIMIT = 1 << 24;
const STRING = 8;
const ARRAY = 9;
/** Bytes of a metadata value of each kind; of strings and arrays, the least. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8] as const;

/** Thrown where the bytes read so far end before the header does. */
class HeaderGoesOn extends Error {}

/** Reads little-endian values; lengths are checked against what is left of the file before they are used. */
class Cursor {
  position = 0;
  constructor(
    private readonly bytes: Buffer,
    readonly fileSize: number,
    readonly file: string,
  ) {}

  /** Moves past `length` bytes and returns where they began. */
  private take(length: number, what: string): number {
    const begin = this.position;
    if (length > this.fileSize - begin)
      throw fileError(
        this.file,
        `${what} at byte ${begin} needs ${length} bytes, the file ends after ${this.fileSize - begin}; get it again`,
      );
    if (length > this.bytes.length - begin) throw new HeaderGoesOn();
    this.position += length;
    return begin;
  }

  u32(what: string): number {
    return this.bytes.readUInt32LE(this.take(4, what));
  }

  /** A 64-bit size or offset. */
  size(what: string): number {
    const begin = this.position;
    const value = this.bytes.readBigUInt64LE(this.take(8, what));
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw fileError(this.file, `${what} at byte ${begin} is ${value}, larger than any file; get it again`);
    return Number(value);
  }

  /** A number of things that take at least `least` bytes each of what follows. */
  count(what: string, least: number): number {
    const count = this.size(what);
    const possible = Math.floor((this.fileSize - this.position) / least);
    if (count > possible)
      throw fileError(
        this.file,
        `${what} is ${count}, the rest of the file holds at most ${possible}; get it again`,
      );
    return count;
  }

  text(what: string): string {
    const length = this.size(`length of ${what}`);
    const begin = this.take(length, what);
    return this.bytes.toString("utf8", begin, begin + length);
  }

  value(kind: number, what: string): unknown {
    if (kind === STRING) return this.text(what);
    const bytes = this.bytes;
    const begin = this.take(VALUE_BYTES[kind]!, what);
    switch (kind) {
      case 0:
        return bytes.readUInt8(begin);
      case 1:
        return bytes.readInt8(begin);
      case 2:
        return bytes.readUInt16LE(begin);
      case 3:
        return bytes.readInt16LE(begin);
      case 4:
        return bytes.readUInt32LE(begin);
      case 5:
        return bytes.readInt32LE(begin);
      case 6:
        return bytes.readFloatLE(begin);
      case 7:
        return bytes.readUInt8(begin) !== 0;
      case 10:
        return plain(bytes.readBigUInt64LE(begin));
      case 11:
        return plain(bytes.readBigInt64LE(begin));
      default:
        return bytes.readDoubleLE(begin);
    }
  }
}

function plain(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/**
 * The metadata and tensor table of a GGUF file (version 2 or 3, little endian), checked in full; reads no tensor.
 * Shapes are rows first. Throws ERR_SDPO_FILE, also naming a tensor type that is not supported.
 */
export async function readGguf(file: string): Promise<Gguf> {
  return read(file, (cursor) => {
    const { tensorCount, metadata } = parseMetadata(cursor);
    const tensors = parseTensors(cursor, tensorCount, alignmentOf(metadata, cursor.file));
    return { file, metadata, tensors };
  });
}

/** The metadata alone, for a tokenizer; also of files whose tensors are of types that are not supported. */
export async function readGgufMetadata(file: string): Promise<Record<string, unknown>> {
  return read(file, (cursor) => parseMetadata(cursor).metadata);
}

async function read<T>(file: string, parse: (cursor: Cursor) => T): Promise<T> {
  return withFile(file, async (handle, size) => {
    for (let length = FIRST_READ; ; length *= 4) {
      const bytes = await readExactly(handle, 0, Math.min(length, size), file);
      try {
        return parse(new Cursor(bytes, size, file));
      } catch (error) {
        if (!(error instanceof HeaderGoesOn)) throw error;
        if (length >= HEADER_LIMIT)
          throw fileError(file, `its metadata is longer than ${HEADER_LIMIT} bytes; is it a model file?`);
      }
    }
  });
}

function parseMetadata(cursor: Cursor): { tensorCount: number; metadata: Record<string, unknown> } {
  const { file } = cursor;
  if (cursor.u32("the magic number") !== 0x46554747)
    throw fileError(file, "does not begin with GGUF; is it a GGUF file?");
  const version = cursor.u32("version");
  if (version !== 2 && version !== 3)
    throw fileError(file, `version is ${version}; supported: 2 and 3, little endian`);
  const tensorCount = cursor.count("tensor count", 24);
  const keys = cursor.count("metadata count", 13);
  const metadata: Record<string, unknown> = Object.create(null);
  for (let i = 0; i < keys; i++) {
    const key = cursor.text(`metadata key ${i}`);
    if (key in metadata) throw fileError(file, `metadata ${show(key)} is given twice`);
    metadata[key] = parseValue(cursor, `metadata ${show(key)}`);
  }
  return { tensorCount, metadata };
}

function parseValue(cursor: Cursor, what: string): unknown {
  const kind = parseKind(cursor, what);
  if (kind !== ARRAY) return cursor.value(kind, what);
  const inner = parseKind(cursor, what);
  if (inner === ARRAY) throw fileError(cursor.file, `${what} is an array of arrays, which is not supported`);
  const length = cursor.count(`length of ${what}`, VALUE_BYTES[inner]!);
  if (length > ARRAY_LIMIT)
    throw fileError(cursor.file, `length of ${what} is ${length}; at most ${ARRAY_LIMIT} values are read`);
  const values: unknown[] = [];
  for (let i = 0; i < length; i++) values.push(cursor.value(inner, what));
  return values;
}

function parseKind(cursor: Cursor, what: string): number {
  const kind = cursor.u32(`type of ${what}`);
  if (kind >= VALUE_BYTES.length)
    throw fileError(
      cursor.file,
      `type of ${what} is ${kind}, expected 0 to ${VALUE_BYTES.length - 1}; get it again`,
    );
  return kind;
}

function alignmentOf(metadata: Record<string, unknown>, file: string): number {
  const alignment = metadata["general.alignment"] ?? 32;
  const usable =
    typeof alignment === "number" && alignment > 0 && alignment <= 1 << 20 && alignment % 8 === 0;
  if (!usable)
    throw fileError(file, `general.alignment is ${show(alignment)}; expected a multiple of 8 up to 2^20`);
  return alignment;
}

function parseTensors(cursor: Cursor, count: number, alignment: number): Map<string, TensorSource> {
  const { file, fileSize: size } = cursor;
  const tensors = new Map<string, TensorSource>();
  for (let i = 0; i < count; i++) {
    const name = cursor.text(`name of tensor ${i}`);
    if (tensors.has(name)) throw fileError(file, `tensor ${show(name)} is given twice`);
    tensors.set(name, parseTensor(cursor, name));
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  for (const [name, tensor] of tensors) {
    if (tensor.offset % alignment !== 0)
      throw fileError(
        file,
        `tensor ${show(name)}: offset is ${tensor.offset}, not a multiple of ${alignment}`,
      );
    tensor.offset += dataStart;
    if (tensor.offset + tensor.bytes > size)
      throw fileError(
        file,
        `tensor ${show(name)} ends at byte ${tensor.offset + tensor.bytes}, the file at ${size}; get it again`,
      );
  }
  checkOverlap(tensors, file);
  return tensors;
}

function parseTensor(cursor: Cursor, name: string): TensorSource {
  const { file } = cursor;
  const what = `tensor ${show(name)}`;
  const dimensions = cursor.u32(`dimensions of ${what}`);
  if (dimensions < 1 || dimensions > 4)
    throw fileError(file, `${what} has ${dimensions} dimensions; expected 1 to 4`);
  const shape: number[] = [];
  for (let i = 0; i < dimensions; i++) shape.unshift(cursor.size(`shape of ${what}`));
  const type = cursor.u32(`type of ${what}`);
  const dtype = TYPE_NAMES[type] ?? "-";
  const block = Object.hasOwn(BLOCKS, dtype) ? BLOCKS[dtype] : undefined;
  if (!block)
    throw fileError(
      file,
      `${what} is of type ${type}${dtype === "-" ? "" : ` (${dtype})`}; supported: ${Object.keys(BLOCKS).join(", ")}`,
    );
  const columns = shape.at(-1)!;
  const [elements, blockBytes] = block;
  const bytes = byteCount([...shape.slice(0, -1), columns / elements], blockBytes);
  if (columns % elements !== 0 || shape.includes(0) || bytes === undefined)
    throw fileError(
      file,
      `${what}: shape is ${show(shape)}; expected none of it 0, rows of whole ${dtype} blocks (${elements}), below 2^53 bytes`,
    );
  return { file, fileSize: cursor.fileSize, dtype, shape, offset: cursor.size(`offset of ${what}`), bytes };
}

function checkOverlap(tensors: Map<string, TensorSource>, file: string): void {
  let end = 0;
  for (const [name, { offset, bytes }] of [...tensors].sort(([, a], [, b]) => a.offset - b.offset)) {
    if (offset < end) throw fileError(file, `tensor ${show(name)} overlaps another at byte ${offset}`);
    end = offset + bytes;
  }
}
