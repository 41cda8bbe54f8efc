/**
 * TensorBoard event files: records of a length, its checksum, a protobuf message `Event` and its checksum.
 * Checksums are CRC-32C, rotated and shifted as the TFRecord format has it.
 */
import { closeSync, mkdirSync, openSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

/** CRC-32C (Castagnoli) of bytes. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function maskedCrc(bytes: Uint8Array): Buffer {
  const crc = crc32c(bytes);
  const masked = Buffer.alloc(4);
  masked.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return masked;
}

function record(message: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(message.length));
  return Buffer.concat([length, maskedCrc(length), message, maskedCrc(message)]);
}

/** Protobuf's wire types. */
const VARINT = 0;
const DOUBLE = 1;
const BYTES = 2;
const FLOAT = 5;

function varint(value: number): Buffer {
  const bytes = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

const tag = (field: number, type: number) => Buffer.from([(field << 3) | type]);

function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([tag(field, DOUBLE), bytes]);
}

function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([tag(field, FLOAT), bytes]);
}

const intField = (field: number, value: number) => Buffer.concat([tag(field, VARINT), varint(value)]);

function bytesField(field: number, value: Buffer | string): Buffer {
  const bytes = Buffer.from(value as Buffer);
  return Buffer.concat([tag(field, BYTES), varint(bytes.length), bytes]);
}

/** Field numbers of Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7. */
function event(seconds: number, step: number, ...content: Buffer[]): Buffer {
  return Buffer.concat([doubleField(1, seconds), intField(2, step), ...content]);
}

/** A scalar as Summary.Value: tag 1, simple_value 2. */
function scalar(name: string, value: number): Buffer {
  return bytesField(1, Buffer.concat([bytesField(1, name), floatField(2, value)]));
}

/** Writes one event file of scalars. */
export class TensorBoardWriter {
  readonly file: string;
  readonly #descriptor: number;
  readonly #now: () => number;

  /**
   * Starts a new file in `folder`.
   * @param firstStep where a run goes on: TensorBoard drops what earlier files hold from this step on
   */
  constructor(folder: string, firstStep?: number, now: () => number = Date.now) {
    this.#now = now;
    mkdirSync(folder, { recursive: true });
    const time = String(Math.floor(now() / 1000)).padStart(10, "0");
    const name = `events.out.tfevents.${time}.${hostname()}.${process.pid}`;
    for (let i = 0; ; i++) {
      try {
        this.file = join(folder, `${name}.${i}`);
        this.#descriptor = openSync(this.file, "wx");
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
    }
    this.#append(0, bytesField(3, "brain.Event:2"));
    const sessionStart = intField(1, 1);
    if (firstStep !== undefined) this.#append(firstStep, bytesField(7, sessionStart));
  }

  #append(step: number, content: Buffer): void {
    writeFileSync(this.#descriptor, record(event(this.#now() / 1000, step, content)));
  }

  /** Adds scalars; those that are not finite are left out. */
  write(step: number, scalars: Record<string, number>): void {
    const finite = Object.entries(scalars).filter(([, value]) => Number.isFinite(value));
    this.#append(step, bytesField(5, Buffer.concat(finite.map(([name, value]) => scalar(name, value)))));
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}
