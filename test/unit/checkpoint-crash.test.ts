// What is left when a process dies, or its disk fills up, between any two file operations.
import * as real from "node:fs";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { resolveConfig } from "../../lib/config.js";
import {
  checkCheckpointSpace,
  checkpointSteps,
  findCheckpoint,
  writeCheckpoint,
} from "../../lib/trainer/checkpoint.js";
import { makeRunFolder, type RunConfig, rewindRunFolder } from "../../lib/trainer/run-folder.js";

const disk = vi.hoisted(() => ({ operationsLeft: Infinity, free: Infinity }));

/** The module with operations that change something counted; when none is left, each is done by half and dies. */
vi.mock("node:fs/promises", async (original) => {
  const whole = await original<typeof import("node:fs/promises")>();
  const dying = (name: string, operation: (...given: never[]) => Promise<unknown>) => {
    return async (...given: never[]) => {
      if (disk.operationsLeft-- > 0) return operation(...given);
      if (disk.operationsLeft === -1) doHalf(name, String(given[0]), given[1]);
      throw new Error("the process is dead");
    };
  };
  const changing = ["mkdir", "open", "rename", "rm", "writeFile"] as const;
  const statfs = async () => ({ bavail: disk.free, bsize: 1 });
  const wrapped = changing.map((name) => [name, dying(name, whole[name] as never)]);
  return { ...whole, ...Object.fromEntries(wrapped), statfs };
});

/** Half of a removal or of a written file; a rename is done or not. */
function doHalf(name: string, path: string, content: unknown): void {
  if (name === "rm" && real.statSync(path).isDirectory()) real.rmSync(join(path, real.readdirSync(path)[0]!));
  if (name === "writeFile") real.writeFileSync(path, String(content).slice(0, 10));
}

let run = "";
beforeEach(() => {
  run = mkdtempSync(join(tmpdir(), "sdpo-crash-"));
});
afterEach(() => {
  Object.assign(disk, { operationsLeft: Infinity, free: Infinity });
  rmSync(run, { recursive: true });
});

const data = (x: number) => new Uint8Array(Float32Array.of(x).buffer);
const write = (step: number, version: string, keep = 1) =>
  writeCheckpoint(
    run,
    step,
    {
      tensors: { "student.safetensors": [{ name: "a", dtype: "F32", shape: [1], data: data(step) }] },
      state: { version },
    },
    keep,
  );
/** Does it as far as `operations` go; was that all of it? */
async function killedAfter(operations: number, job: () => Promise<unknown>): Promise<boolean> {
  disk.operationsLeft = operations;
  const isDone = await job().then(
    () => true,
    () => false,
  );
  disk.operationsLeft = Infinity;
  return isDone;
}

describe("killed while it writes a checkpoint", () => {
  test.each([
    ["of a step that has one", 5],
    ["of another step", 6],
  ])("%s, a run has the old or the new one, and goes on", async (_, step) => {
    const versions = new Set<unknown>();
    let isDone = false;
    for (let operations = 0; !isDone; operations++) {
      await write(5, "old");
      isDone = await killedAfter(operations, () => write(step, "new"));
      const { version } = (await findCheckpoint(run))!.state;
      expect(["old", "new"]).toContain(version);
      versions.add(version);
      // A second death while the first is tidied up.
      await killedAfter(1 + (operations % 3), () => write(step, "again"));
      expect((await findCheckpoint(run))!.state.version).toBe(version);
      await write(7, "next");
      expect(await checkpointSteps(run)).toEqual([7]);
      expect(real.readdirSync(join(run, "checkpoints"))).toEqual(["step-7"]);
      rmSync(join(run, "checkpoints"), { recursive: true });
    }
    expect(versions).toEqual(new Set(["old", "new"]));
  });
});

describe("killed while it takes back what a run wrote later", () => {
  test("the metrics are those of before or of after, never less", async () => {
    const base = { model: "m", data: "d", environment: "mcq", output: join(run, "out") };
    const config = resolveConfig(base) as RunConfig;
    const metrics = join(config.output, "metrics.jsonl");
    const lines = [1, 2, 3].map((step) => `{"step":${step}}\n`);
    await makeRunFolder(config);
    let isDone = false;
    let operations = 0;
    for (; !isDone; operations++) {
      writeFileSync(metrics, lines.join(""));
      isDone = await killedAfter(operations, () => rewindRunFolder(config, 2));
      const left = readFileSync(metrics, "utf8");
      expect([lines.join(""), lines.slice(0, 2).join("")]).toContain(left);
      if (isDone) expect(left).toBe(lines.slice(0, 2).join(""));
    }
    expect(operations).toBeGreaterThan(4);
  });

  test("what cannot be written is an error with the folder's name", async () => {
    const base = { model: "m", data: "d", environment: "mcq", output: join(run, "out") };
    const config = resolveConfig(base) as RunConfig;
    disk.operationsLeft = 0;
    await expect(rewindRunFolder(config, 2)).rejects.toMatchObject({
      code: expect.stringMatching(/ERR_SDPO_(CONFIG|FILE)/),
      message: expect.stringMatching(/out/),
    });
  });
});

describe("room for checkpoints", () => {
  const room = async (free: number, keep: number) => {
    disk.free = free;
    return checkCheckpointSpace(run, 1000, keep).then(
      () => true,
      (error) => (error.code === "ERR_SDPO_FILE" ? false : Promise.reject(error)),
    );
  };

  test("is needed for all that are kept and one more, less those that are there", async () => {
    expect([await room(3000, 2), await room(2999, 2)]).toEqual([true, false]);
    const folder = join(run, "checkpoints", "step-1");
    real.mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "model.safetensors"), new Uint8Array(1000));
    expect([await room(2000, 2), await room(1999, 2)]).toEqual([true, false]);
    for (const step of [2, 3, 4])
      real.cpSync(folder, join(run, "checkpoints", `step-${step}`), { recursive: true });
    expect([await room(1000, 2), await room(999, 2)]).toEqual([true, false]);
  });

  test("is made by what a killed process left", async () => {
    const folder = join(run, "checkpoints", "step-9.tmp");
    real.mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "model.safetensors"), new Uint8Array(700));
    expect([await room(1300, 1), await room(1299, 1)]).toEqual([true, false]);
    for (const step of [1, 2])
      real.cpSync(folder, join(run, "checkpoints", `step-${step}`), { recursive: true });
    expect([await room(300, 1), await room(299, 1)]).toEqual([true, false]);
  });
});
