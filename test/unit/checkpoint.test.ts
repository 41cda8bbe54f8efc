import { createHash } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { resolveConfig } from "../../lib/config.js";
import {
  checkFreeSpace,
  checkpointSteps,
  findCheckpoint,
  openCheckpoint,
  removeLeftovers,
  writeCheckpoint,
} from "../../lib/trainer/checkpoint.js";
import {
  checkResume,
  checkRun,
  checkRunFolder,
  dumpRollouts,
  makeRunFolder,
  type RunConfig,
  rewindRunFolder,
} from "../../lib/trainer/run-folder.js";

let run = "";
beforeEach(() => {
  run = mkdtempSync(join(tmpdir(), "sdpo-checkpoint-"));
});
afterEach(() => rmSync(run, { recursive: true }));

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const weights = (step: number) => [
  { name: "a", dtype: "F32", shape: [2], data: floats(step, 2) },
  { name: "b", dtype: "F32", shape: [1, 1], data: async () => floats(step + 0.5) },
];
const write = (step: number, keep = 10, state: Record<string, unknown> = { cursor: step }) =>
  writeCheckpoint(
    run,
    step,
    { tensors: { "student.safetensors": weights(step), "m.safetensors": [] }, state },
    keep,
  );
const at = (step: number, file = "") => join(run, "checkpoints", `step-${step}`, file);

describe("a checkpoint", () => {
  test("gives back what was written", async () => {
    const folder = await writeCheckpoint(
      run,
      3,
      {
        tensors: { "student.safetensors": weights(3) },
        state: { cursor: 7, nested: [1, null] },
        write: async (into) => writeFileSync(join(into, "extra.txt"), "x"),
      },
      1,
    );
    expect(folder).toBe(at(3));
    const checkpoint = (await findCheckpoint(run))!;
    expect(checkpoint).toMatchObject({ folder, step: 3, state: { cursor: 7, nested: [1, null] } });
    const { dtype, shape, bytes } = await checkpoint.readTensor("student.safetensors", "b");
    expect([dtype, shape, bytes.readFloatLE(0)]).toEqual(["F32", [1, 1], 3.5]);
    expect([...(await checkpoint.tensors("student.safetensors")).keys()].sort()).toEqual(["a", "b"]);
    await expect(checkpoint.readTensor("student.safetensors", "c")).rejects.toThrow(/no tensor "c"/);
    const { files } = JSON.parse(readFileSync(at(3, "manifest.json"), "utf8"));
    expect(Object.keys(files)).toEqual(["extra.txt", "state.json", "student.safetensors"]);
    expect(files["extra.txt"]).toEqual({ size: 1, sha256: createHash("sha256").update("x").digest("hex") });
  });

  test("the newest is found, the oldest are removed", async () => {
    for (const step of [2, 9, 10, 30]) await write(step, 3);
    expect(await checkpointSteps(run)).toEqual([30, 10, 9]);
    expect((await findCheckpoint(run))!.step).toBe(30);
    expect((await findCheckpoint(at(9)))!.step).toBe(9);
  });

  test("a run that went on from an older one keeps what it writes, not what it left behind", async () => {
    for (const step of [10, 20, 30]) await write(step, 3);
    await write(12, 2);
    expect(await checkpointSteps(run)).toEqual([12, 10]);
    expect((await findCheckpoint(run))!.step).toBe(12);
  });

  test("written again takes the place of the old one", async () => {
    await write(5);
    await write(5, 10, { cursor: "new" });
    expect((await findCheckpoint(run))!.state).toEqual({ cursor: "new" });
    expect(readdirSync(join(run, "checkpoints"))).toEqual(["step-5"]);
  });

  test("a failed write leaves the earlier ones and no half of a new one", async () => {
    await write(1);
    const bad = [{ name: "a", dtype: "F32", shape: [3], data: floats(1) }];
    const failed = writeCheckpoint(run, 2, { tensors: { "s.safetensors": bad }, state: {} }, 1);
    await expect(failed).rejects.toMatchObject({ code: "ERR_SDPO_ARGUMENT" });
    const unwritable = writeCheckpoint(
      run,
      2,
      { tensors: {}, state: {}, write: () => Promise.reject(new Error("ENOSPC: no space")) },
      1,
    );
    await expect(unwritable).rejects.toMatchObject({
      code: "ERR_SDPO_FILE",
      message: expect.stringMatching(/step-2.*ENOSPC/),
    });
    expect((await findCheckpoint(run))!.step).toBe(1);
    await removeLeftovers(run);
    expect(readdirSync(join(run, "checkpoints"))).toEqual(["step-1"]);
  });

  test("what a killed process left is passed over and removed", async () => {
    await write(1);
    mkdirSync(`${at(2)}.tmp`);
    writeFileSync(join(`${at(2)}.tmp`, "student.safetensors"), "half");
    expect((await findCheckpoint(run))!.step).toBe(1);
    await write(2);
    expect(existsSync(`${at(2)}.tmp`)).toBe(false);
    expect((await findCheckpoint(run))!.step).toBe(2);
  });

  test("there is none in an empty or missing folder", async () => {
    expect(await findCheckpoint(run)).toBeUndefined();
    expect(await findCheckpoint(join(run, "missing"))).toBeUndefined();
  });

  test("free space is checked on the file system of a folder that is still to be made", async () => {
    await checkFreeSpace(join(run, "a", "b"), 1000);
    await expect(checkFreeSpace(join(run, "a"), 1e18)).rejects.toThrow(/need 1000000000.00 GB, .* are free/);
  });
});

const manifest =
  (change: (json: { format: number; step: unknown; files: Record<string, object> }) => void) => () => {
    const json = JSON.parse(readFileSync(at(2, "manifest.json"), "utf8"));
    change(json);
    writeFileSync(at(2, "manifest.json"), JSON.stringify(json));
  };

const broken: [name: string, spoil: () => void, message: RegExp][] = [
  ["a changed byte", () => flip(at(2, "student.safetensors")), /student\.safetensors: its SHA-256 is/],
  [
    "a shorter file",
    () => truncateSync(at(2, "student.safetensors"), 10),
    /student\.safetensors: is 10 bytes, \d+ were/,
  ],
  ["a longer file", () => appendFileSync(at(2, "state.json"), " "), /state\.json: is \d+ bytes/],
  ["a missing file", () => rmSync(at(2, "m.safetensors")), /m\.safetensors: is missing/],
  ["no manifest", () => rmSync(at(2, "manifest.json")), /has no manifest\.json/],
  ["a cut manifest", () => truncateSync(at(2, "manifest.json"), 20), /manifest\.json: is not valid JSON/],
  ["another format", manifest((json) => Object.assign(json, { format: 2 })), /format is 2, expected 1/],
  ["a wrong step", manifest((json) => Object.assign(json, { step: -1 })), /step is -1/],
  ["no state", manifest((json) => delete json.files["state.json"]), /files is .*state\.json among them/],
  [
    "a path",
    manifest((json) => Object.assign(json.files, { "../x": json.files["state.json"] })),
    /files\["\.\.\/x"\]/,
  ],
  [
    "a wrong hash",
    manifest((json) => Object.assign(json.files["state.json"]!, { sha256: "x" })),
    /files\["state/,
  ],
  ["state that is a list", () => restate("[1]"), /state\.json: is \[1\], expected an object/],
];

function flip(file: string): void {
  const bytes = readFileSync(file);
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(file, bytes);
}

function restate(text: string): void {
  writeFileSync(at(2, "state.json"), text);
  const sha256 = createHash("sha256").update(text).digest("hex");
  manifest((json) => Object.assign(json.files["state.json"]!, { size: text.length, sha256 }))();
}

describe.each(broken)("a checkpoint with %s", (_, spoil, message) => {
  test("is refused, and the one before it taken", async () => {
    await write(1);
    await write(2);
    spoil();
    await expect(openCheckpoint(at(2))).rejects.toMatchObject({
      code: "ERR_SDPO_CHECKPOINT",
      message: expect.stringMatching(message),
    });
    const warnings: string[] = [];
    expect((await findCheckpoint(run, (text) => warnings.push(text)))!.step).toBe(1);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/^checkpoint step-2 is broken/);
    rmSync(at(1), { recursive: true });
    await expect(findCheckpoint(run)).rejects.toThrow(/none of its 1 checkpoints is whole/);
  });
});

const base = { model: "m", data: "d", environment: "mcq" };
const configOf = (input: object = {}) =>
  resolveConfig({ ...base, output: join(run, "out"), ...input }) as RunConfig;

describe("a run folder", () => {
  test("is made with its configuration and refused when it is not empty", async () => {
    const config = configOf({ alpha: 1 });
    await checkRunFolder(config);
    expect(existsSync(config.output)).toBe(false);
    await makeRunFolder(config);
    const written = JSON.parse(readFileSync(join(config.output, "config.json"), "utf8"));
    expect(written.alpha).toBe(1);
    expect(resolveConfig(written)).toEqual(config);
    await expect(checkRunFolder(config)).rejects.toMatchObject({
      code: "ERR_SDPO_CONFIG",
      message: expect.stringMatching(/is not empty; name another folder, or set resume/),
    });
  });

  test("cannot be a file, lie in one, or be a checkpoint", async () => {
    writeFileSync(join(run, "out"), "");
    await expect(checkRunFolder(configOf())).rejects.toThrow(/out is not a folder/);
    const inFile = configOf({ output: join(run, "out", "x", "y") });
    await expect(checkRunFolder(inFile)).rejects.toThrow(/cannot be written: .*out is not a folder/);
    await expect(makeRunFolder(inFile)).rejects.toMatchObject({ code: "ERR_SDPO_CONFIG" });
    await write(4);
    const resumed = configOf({ output: at(4), resume: true });
    await expect(checkRunFolder(resumed)).rejects.toThrow(/is a checkpoint; name the run folder/);
  });

  test("is opened again only where there is a checkpoint of this run", async () => {
    const config = configOf({ resume: true });
    const identity = { config, tokenizerHash: "t", dataHash: "d" };
    const check = () => checkRun(config, identity, 1000);
    await expect(check()).rejects.toMatchObject({
      code: "ERR_SDPO_CHECKPOINT",
      message: expect.stringMatching(/resume: .* holds no checkpoint/),
    });
    const state = (dataHash: string) => ({ ...JSON.parse(JSON.stringify(identity)), dataHash });
    await writeCheckpoint(config.output, 4, { tensors: {}, state: state("d") }, 1);
    expect((await check())!.step).toBe(4);
    await writeCheckpoint(config.output, 5, { tensors: {}, state: state("e") }, 1);
    await expect(check()).rejects.toThrow(/other training tasks/);
    expect(await checkRun(configOf({ output: join(run, "new") }), identity, 1000)).toBeUndefined();
  });

  test("takes back what was written after the step", async () => {
    const config = configOf();
    await makeRunFolder(config);
    const metrics = join(config.output, "metrics.jsonl");
    writeFileSync(metrics, '{"step":1}\n{"step":2}\n{"step":3}\n{"step":');
    for (const step of [1, 2, 3, 10]) await dumpRollouts(config.output, step, [{ step }, { x: null }]);
    await rewindRunFolder(config, 2);
    expect(readFileSync(metrics, "utf8")).toBe('{"step":1}\n{"step":2}\n');
    expect(readdirSync(join(config.output, "rollouts")).sort()).toEqual(["step-1.jsonl", "step-2.jsonl"]);
    expect(readFileSync(join(config.output, "rollouts/step-2.jsonl"), "utf8")).toBe(
      '{"step":2}\n{"x":null}\n',
    );
  });

  test("a dump that cannot be written says where", async () => {
    await expect(dumpRollouts(join(run, "missing"), 1, [])).rejects.toMatchObject({ code: "ERR_SDPO_FILE" });
  });
});

describe("a run goes on", () => {
  const identity = (input: object = {}) => ({ config: configOf(input), tokenizerHash: "t", dataHash: "d" });
  const checkpointOf = async (input: object = {}, step = 5) => {
    const state = JSON.parse(JSON.stringify(identity(input)));
    await writeCheckpoint(join(run, "out"), step, { tensors: {}, state }, 1);
    return (await findCheckpoint(join(run, "out")))!;
  };

  test("with what does not change its numbers", async () => {
    const checkpoint = await checkpointOf({ environmentOptions: { a: 1, b: [2], c: undefined, d: -0 } });
    const changes = { steps: 500, checkpointEvery: 1, resume: true, data: "elsewhere", tensorboard: true };
    checkResume(
      checkpoint,
      identity({ environmentOptions: { d: -0, b: [2], a: 1, c: undefined }, ...changes }),
    );
  });

  const refused: [name: string, before: object, now: object, message: RegExp][] = [
    ["another key", {}, { alpha: 0.7 }, /alpha was 0.5, is 0.7; set it back/],
    ["another seed", {}, { seed: 1 }, /seed was 0, is 1/],
    [
      "another packing, which rounds differently",
      {},
      { microBatchTokens: 4096 },
      /microBatchTokens was 16384/,
    ],
    [
      "other options",
      { environmentOptions: { a: 1 } },
      { environmentOptions: { a: 2 } },
      /environmentOptions was/,
    ],
    [
      "an end that its schedule knew",
      { schedule: "linear" },
      { schedule: "linear", steps: 200 },
      /steps was 100/,
    ],
    ["fewer steps than it has", {}, { steps: 4 }, /is of step 5, steps is 4; raise it/],
  ];
  test.each(refused)("but not with %s", async (_, before, now, message) => {
    const checkpoint = await checkpointOf(before);
    expect(() => checkResume(checkpoint, identity(now))).toThrow(message);
  });

  test("but not with another tokenizer, other tasks or no configuration", async () => {
    const checkpoint = await checkpointOf();
    expect(() => checkResume(checkpoint, { ...identity(), tokenizerHash: "u" })).toThrow(/another tokenizer/);
    expect(() => checkResume(checkpoint, { ...identity(), dataHash: "e" })).toThrow(/other training tasks/);
    checkpoint.state.config = undefined;
    expect(() => checkResume(checkpoint, identity())).toThrow(/has no configuration/);
  });
});
