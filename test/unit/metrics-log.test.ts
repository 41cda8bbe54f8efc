import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MetricsLog } from "../../lib/trainer/metrics-log.js";
import { Progress } from "../../lib/trainer/progress.js";
import { crc32c, TensorBoardWriter } from "../../lib/trainer/tensorboard.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sdpo-metrics-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** CRC-32C bit by bit, as its polynomial 0x1EDC6F41 defines it: an oracle without a table. */
function slowCrc(bytes: Uint8Array): number {
  const reverse = (value: number, bits: number) =>
    Array.from({ length: bits }, (_, i) => (value >>> i) & 1).reduce((sum, bit) => sum * 2 + bit, 0);
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(reverse(byte, 8)) << 24n;
    for (let i = 0; i < 8; i++)
      crc = crc & 0x80000000n ? ((crc << 1n) ^ 0x11edc6f41n) & 0xffffffffn : crc << 1n;
  }
  return reverse(Number(crc ^ 0xffffffffn), 32);
}

interface Field {
  field: number;
  value: number | Uint8Array;
}

/** The fields of a protobuf message. */
function parseMessage(bytes: Uint8Array): Field[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let position = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[position++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const take = (length: number) => {
    position += length;
    return position - length;
  };
  const fields: Field[] = [];
  while (position < bytes.length) {
    const key = varint();
    const field = key >>> 3;
    const type = key & 7;
    if (type === 0) fields.push({ field, value: varint() });
    else if (type === 1) fields.push({ field, value: view.getFloat64(take(8), true) });
    else if (type === 2) {
      const length = varint();
      fields.push({ field, value: bytes.subarray(take(length), position) });
    } else if (type === 5) fields.push({ field, value: view.getFloat32(take(4), true) });
    else throw new Error(`wire type ${type}`);
  }
  return fields;
}

/** The messages of a file of records, lengths and checksums checked. */
function parseRecords(file: string): Field[][] {
  const bytes = readFileSync(file);
  const unmask = (masked: number) => {
    const rotated = (masked - 0xa282ead8) >>> 0;
    return ((rotated << 15) | (rotated >>> 17)) >>> 0;
  };
  const messages = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(unmask(bytes.readUInt32LE(at + 8))).toBe(slowCrc(bytes.subarray(at, at + 8)));
    const message = bytes.subarray(at + 12, at + 12 + length);
    expect(unmask(bytes.readUInt32LE(at + 12 + length))).toBe(slowCrc(message));
    messages.push(parseMessage(message));
    at += 16 + length;
  }
  return messages;
}

const text = (value: number | Uint8Array | undefined) => Buffer.from(value as Uint8Array).toString();
const find = (fields: Field[], field: number) => fields.find((entry) => entry.field === field)?.value;

describe("TensorBoard event files", () => {
  test("CRC-32C of the check string of the standard, and of other bytes", () => {
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    const bytes = Uint8Array.from({ length: 300 }, (_, i) => (i * 37) & 255);
    expect(crc32c(bytes)).toBe(slowCrc(bytes));
  });

  test("hold scalars that an independent reader finds", () => {
    const writer = new TensorBoardWriter(folder, undefined, () => 1_700_000_000_500);
    writer.write(1, { loss: 0.25, "reward.mean": 1 });
    writer.write(300, { loss: Number.NaN, [`long ${"x".repeat(200)}`]: -3e-20 });
    writer.close();
    const [version, first, second, ...rest] = parseRecords(writer.file);
    expect(rest).toEqual([]);
    expect(text(find(version!, 3))).toBe("brain.Event:2");
    expect(find(first!, 1)).toBe(1_700_000_000.5);
    expect(find(first!, 2)).toBe(1);
    const scalars = (event: Field[]) =>
      parseMessage(find(event, 5) as Uint8Array).map(({ field, value }) => {
        expect(field).toBe(1);
        const inner = parseMessage(value as Uint8Array);
        return [text(find(inner, 1)), find(inner, 2)];
      });
    expect(scalars(first!)).toEqual([
      ["loss", 0.25],
      ["reward.mean", 1],
    ]);
    expect(find(second!, 2)).toBe(300);
    expect(scalars(second!)).toEqual([[`long ${"x".repeat(200)}`, Math.fround(-3e-20)]]);
  });

  test("a resumed run starts a new file that takes the later steps back", () => {
    const first = new TensorBoardWriter(folder, undefined, () => 0);
    const second = new TensorBoardWriter(folder, 11, () => 0);
    first.close();
    second.close();
    expect(first.file).not.toBe(second.file);
    const start = parseRecords(second.file)[1]!;
    expect(find(start, 2)).toBe(11);
    expect(parseMessage(find(start, 7) as Uint8Array)).toEqual([{ field: 1, value: 1 }]);
  });
});

describe("the metrics log", () => {
  test("has a line a step, null for what is not finite, and goes on", () => {
    const log = MetricsLog.open(folder);
    log.write({ step: 1, loss: 0.5, "kl.p95": Number.NaN });
    log.close();
    const again = MetricsLog.open(folder, { resumeStep: 1 });
    again.write({ step: 2, loss: 0.25 });
    again.close();
    const lines = readFileSync(join(folder, "metrics.jsonl"), "utf8");
    expect(lines).toBe('{"step":1,"loss":0.5,"kl.p95":null}\n{"step":2,"loss":0.25}\n');
    expect(readdirSync(folder)).toEqual(["metrics.jsonl"]);
  });

  test("writes an event file too where that is wanted", () => {
    const log = MetricsLog.open(folder, { tensorboard: true, resumeStep: 6 });
    log.write({ step: 7, loss: 0.5 });
    log.close();
    const [file] = readdirSync(join(folder, "tensorboard"));
    const records = parseRecords(join(folder, "tensorboard", file!));
    expect(records.map((record) => find(record, 2))).toEqual([0, 7, 7]);
  });

  test("says which file cannot be written", () => {
    writeFileSync(join(folder, "file"), "");
    expect(() => MetricsLog.open(join(folder, "file"))).toThrow(/file.*cannot be written/);
    const blocked = () => MetricsLog.open(join(folder, "file"), { tensorboard: true });
    expect(blocked).toThrow(expect.objectContaining({ code: "ERR_SDPO_FILE" }));
  });
});

describe("progress", () => {
  const record = (isTTY: boolean, columns = 200) => {
    let output = "";
    let time = 0;
    const stream = { isTTY, columns, write: (chunk: string) => (output += chunk) };
    const progress = new Progress(stream, () => time);
    return { progress, read: () => output, wait: (seconds: number) => (time += seconds) };
  };
  const numbers = { steps: 100, loss: 0.12345, reward: 0.5, tokens: 3000 };

  test("is a line a step where there is no terminal", () => {
    const { progress, read, wait } = record(false);
    wait(10);
    progress.step({ step: 1, ...numbers });
    progress.phase("rollouts", 1, 8);
    wait(20);
    progress.step({ step: 2, ...numbers });
    progress.note("warning: x");
    progress.end();
    expect(read()).toBe(
      "step 1/100  loss 0.1235  reward 0.500  300 tokens/s  16:30 left\n" +
        "step 2/100  loss 0.1235  reward 0.500  150 tokens/s  24:30 left\nwarning: x\n",
    );
  });

  test("counts from the step that a run goes on at", () => {
    const { progress, read, wait } = record(false);
    wait(1000);
    progress.start();
    wait(60);
    progress.step({ step: 41, ...numbers });
    expect(read()).toMatch(/50 tokens\/s {2}59:00 left/);
    wait(3540);
    progress.step({ step: 42, ...numbers });
    expect(read()).toMatch(/29:00:00 left\n$/);
  });

  test("is rewritten in place on a terminal, no wider than it", () => {
    const { progress, read, wait } = record(true, 30);
    wait(1);
    progress.phase("rollouts", 1, 8);
    progress.step({ step: 1, ...numbers });
    progress.note("warning: x");
    progress.end();
    const line = "step 1/100  loss 0.1235  rewar";
    expect(read()).toBe(
      `\r\x1b[Krollouts 1/8\r\x1b[K${line.slice(0, 29)}\r\x1b[Kwarning: x\n\r\x1b[K${line.slice(0, 29)}` +
        `\r\x1b[K${line.slice(0, 29)}\n`,
    );
  });
});
