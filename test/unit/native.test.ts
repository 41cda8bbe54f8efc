import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Device, openDevice } from "../../lib/native/device.js";
import { addon } from "../../lib/native/load.js";
import { run } from "../../lib/native/run.js";
import { Tensor } from "../../lib/native/tensor.js";

let device: Device;
beforeAll(async () => {
  device = await openDevice("cpu");
});
afterAll(() => device.dispose());

describe("tensors", () => {
  test("keep what they were given, whatever happens to the array afterwards", async () => {
    const data = Float32Array.of(1, 2, 3, 4);
    const tensor = Tensor.from(device, data, [2, 2]);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    expect(data.length).toBe(0);
    expect([...(await tensor.read())]).toEqual([1, 2, 3, 4]);
  });

  test("are made from shared memory as well", async () => {
    const data = new Float32Array(new SharedArrayBuffer(24), 4, 3);
    data.set([1, 2, 3]);
    expect([...(await Tensor.from(device, data, [3]).read())]).toEqual([1, 2, 3]);
  });

  test("a transferred array is refused by its length, not read", () => {
    const data = new Float32Array(4);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    expect(() => Tensor.from(device, data, [2, 2])).toThrow(/expected 4 elements for shape \[2,2\], got 0/);
  });

  test("bf16 rounds to nearest even", async () => {
    const tensor = Tensor.from(device, Float32Array.of(1, 1.00390625, 1.01171875, -0, Number.NaN), [5], {
      dtype: "bf16",
    });
    expect([...(await tensor.read())]).toEqual([1, 1, 1.015625, -0, Number.NaN]);
  });

  test("views share memory; a disposed tensor says so", async () => {
    const tensor = Tensor.from(device, Int32Array.of(1, 2, 3, 4, 5, 6), [3, 2]);
    const rows = tensor.rows(1, 3);
    tensor.dispose();
    expect([...(await rows.read())]).toEqual([3, 4, 5, 6]);
    expect([...(await rows.reshape([4]).read())]).toEqual([3, 4, 5, 6]);
    await expect(tensor.read()).rejects.toMatchObject({ code: "ERR_SDPO_DISPOSED" });
  });

  test("memory is counted, and freed by dispose", async () => {
    using own = await openDevice("cpu");
    const tensor = Tensor.zeros(own, [1024, 1024]);
    expect(own.memory().current).toBe(4 << 20);
    tensor.dispose();
    expect(own.memory()).toMatchObject({ current: 0, peak: 4 << 20 });
    own.resetPeakMemory();
    own.trim();
    expect(own.memory()).toEqual({ current: 0, peak: 0, reserved: 0 });
  });

  test("a size that no machine has is an error, not a crash", () => {
    expect(() => Tensor.zeros(device, [2 ** 40])).toThrow(
      expect.objectContaining({ code: "ERR_SDPO_MEMORY" }),
    );
    expect(() => Tensor.zeros(device, [2 ** 30, 2 ** 30])).toThrow(/too large/);
  });
});

describe("refused", () => {
  const vector = () => Tensor.zeros(device, [3]);
  const cases: [string, () => unknown, RegExp][] = [
    ["shape with a negative size", () => Tensor.zeros(device, [-1]), /size -1/],
    ["shape with a fraction", () => Tensor.zeros(device, [1.5]), /size 1\.5/],
    ["shape of seven dimensions", () => Tensor.zeros(device, [1, 1, 1, 1, 1, 1, 1]), /at most 6/],
    ["shape with a size that is no number", () => Tensor.zeros(device, [1n as never]), /size nan at 0/],
    ["a size beside 0 that no tensor has", () => Tensor.zeros(device, [0, 2 ** 40, 2 ** 40]), /too large/],
    ["data of another length", () => Tensor.from(device, new Float32Array(3), [2, 2]), /expected 4 .* got 3/],
    ["data that is a list", () => Tensor.from(device, [1, 2] as never, [2]), /expected a Float32Array/],
    [
      "integers as f32",
      () => Tensor.from(device, Int32Array.of(1), [1], { dtype: "f32" }),
      /does not hold f32/,
    ],
    ["dtype that is no text", () => Tensor.zeros(device, [1], { dtype: Symbol("f32") as never }), /dtype/],
    ["rows that are no numbers", () => vector().rows(0n as never, 1), /rows: expected two numbers/],
    ["reshape to a number", () => vector().reshape(3 as never), /shape: expected a list of sizes, got 3/],
    ["unknown dtype", () => Tensor.zeros(device, [1], { dtype: "f64" as never }), /dtype 'f64'/],
    ["rows outside", () => Tensor.zeros(device, [2, 2]).rows(1, 3), /rows \[1,3\) leave \[2,2\]/],
    ["rows of a number", () => Tensor.from(device, Float32Array.of(3), []).rows(0, 1), /leave \[\]/],
    ["a device that is none", () => Tensor.from({} as never, Float32Array.of(3), [1]), /device: expected/],
    ["no shape", () => Tensor.zeros(device, undefined as never), /shape: expected a list/],
    ["inputs that are none", () => run(device, "add", null as never), /inputs: expected an object, got null/],
    ["reshape to another size", () => vector().reshape([2]), /reshape/],
    ["unknown op", () => run(device, "matmull" as never, {} as never), /did you mean 'matmul'/],
    [
      "unknown input",
      () => run(device, "matmul", { a: vector(), bb: vector() } as never),
      /no input is named 'bb'/,
    ],
    [
      "input left out",
      () => run(device, "matmul", { a: Tensor.zeros(device, [1, 1]) } as never),
      /b: required/,
    ],
    [
      "input that is no tensor",
      () => run(device, "matmul", { a: 1, b: 2 } as never),
      /a: expected a Tensor, got 1/,
    ],
    [
      "unknown attribute",
      () => run(device, "matmul", { a: vector(), b: vector() }, { transposeC: true } as never),
      /no attribute is named 'transposeC'; did you mean 'transpose[AB]'/,
    ],
    [
      "attribute of another type",
      () => run(device, "matmul", { a: vector(), b: vector() }, { transposeA: 1 } as never),
      /transposeA: expected true or false, got 1/,
    ],
    [
      "input of another rank",
      () => run(device, "matmul", { a: vector(), b: vector() }),
      /a: expected f32\|bf16 \[A0,A1\]/,
    ],
    ["unknown device", () => openDevice("tpu"), /device 'tpu': expected auto, cpu/],
    ["a device that is no text", () => openDevice(3 as never), /got 3/],
    ["a second processor", () => openDevice("cpu:1"), /this machine has 1 device/],
    ["unknown instruction set", () => addon().setInstructionSet("avx9"), /instruction set 'avx9'/],
  ];
  test.each(cases)("%s", async (_, attempt, message) => {
    await expect(async () => attempt()).rejects.toMatchObject({ message: expect.stringMatching(message) });
  });

  test("a tensor of another device", async () => {
    using other = await openDevice("cpu");
    const inputs = { a: Tensor.zeros(other, [1, 1]), b: Tensor.zeros(device, [1, 1]) };
    await expect(run(device, "matmul", inputs)).rejects.toThrow(/another device/);
  });

  test("a disposed device", async () => {
    const closed = await openDevice("cpu");
    closed.dispose();
    expect(() => closed.memory()).toThrow(expect.objectContaining({ code: "ERR_SDPO_DISPOSED" }));
  });
});

describe("jobs", () => {
  const square = (n: number) => Tensor.zeros(device, [n, n]);

  test("run off the event loop", async () => {
    const a = square(700);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await Promise.all(Array.from({ length: 20 }, () => run(device, "matmul", { a, b: a })));
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(3);
  });

  test("an aborted signal rejects before and while waiting", async () => {
    const a = square(500);
    await expect(
      run(device, "matmul", { a, b: a }, {}, { signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({
      code: "ERR_SDPO_ABORTED",
    });
    const controller = new AbortController();
    const running = Array.from({ length: 30 }, () =>
      run(device, "matmul", { a, b: a }, {}, { signal: controller.signal }),
    );
    controller.abort(new Error("enough"));
    const results = await Promise.allSettled(running);
    const aborted = results.filter((result) => result.status === "rejected");
    expect(aborted.length).toBeGreaterThan(20);
    for (const { reason } of aborted as PromiseRejectedResult[]) {
      expect(reason).toMatchObject({
        code: "ERR_SDPO_ABORTED",
        cause: expect.objectContaining({ message: "enough" }),
      });
    }
    await run(device, "matmul", { a, b: a });
  });

  test("a device may be let go of while work is in flight", async () => {
    const brief = await openDevice("cpu");
    const a = Tensor.zeros(brief, [400, 400]);
    const running = run(brief, "matmul", { a, b: a });
    a.dispose();
    brief.dispose();
    const { c } = await running;
    expect(c.shape).toEqual([400, 400]);
  });
});

describe("worker threads", () => {
  const script = `
    const { parentPort } = require("node:worker_threads");
    import(${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)}).then(async ({ openDevice, Tensor, run }) => {
      const device = await openDevice("cpu");
      const a = Tensor.zeros(device, [900, 900]);
      const work = () => run(device, "matmul", { a, b: a });
      await work();
      parentPort.postMessage("working");
      for (;;) await Promise.all([work(), work(), work(), work()]);
    });`;

  test("five workers that end with work in flight leave the process standing", async () => {
    for (let i = 0; i < 5; i++) {
      const worker = new Worker(script, { eval: true });
      const failed = new Promise<never>((_, reject) => worker.once("error", reject));
      await Promise.race([new Promise((resolve) => worker.once("message", resolve)), failed]);
      await new Promise((resolve) => setTimeout(resolve, 7 * i));
      expect(await worker.terminate()).toBe(1);
    }
    const { c } = await run(device, "matmul", { a: square1(), b: square1() });
    expect([...(await c.read())]).toEqual([0]);
  });
  const square1 = () => Tensor.zeros(device, [1, 1]);

  test("nor does a process whose workers alone use the package", async () => {
    const main = `
      const { Worker } = require("node:worker_threads");
      (async () => {
        for (let i = 0; i < 8; i++) {
          const worker = new Worker(${JSON.stringify(script)}, { eval: true });
          await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
          await worker.terminate();
        }
        console.log("standing");
      })();`;
    const { stdout } = await promisify(execFile)(process.execPath, ["-e", main]);
    expect(stdout.trim()).toBe("standing");
  });
});

test.each(["many", "0", "257", "2x"])("SDPO_THREADS=%s is refused", async (threads) => {
  const load = `import(${JSON.stringify(new URL("../../dist/index.js", import.meta.url).href)})
    .then(({ openDevice }) => openDevice("cpu")).catch(({ code, message }) => console.log(code, message));`;
  const env = { ...process.env, SDPO_THREADS: threads };
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", load], { env });
  expect(stdout).toMatch(`ERR_SDPO_ARGUMENT SDPO_THREADS: expected 1..256, got '${threads}'`);
});

test("what was built is reported, and the instruction sets that run here", () => {
  const { instructionSets, instructionSet, gemm, threads } = addon().buildInfo();
  console.log(
    `instruction sets ${instructionSets.join(", ")}; using ${instructionSet}; ${threads} threads; GEMM ${gemm}`,
  );
  expect(instructionSets).toContain("baseline");
  expect(instructionSets).toContain(instructionSet);
});

describe("choosing a device", () => {
  const cuda = addon()
    .backends()
    .find(({ name }) => name === "cuda")!;

  test("supports() knows the device's kernels", () => {
    expect(device.supports("add")).toBe(true);
    expect(device.supports("adds" as "add")).toBe(false);
  });

  test("auto says why it took the CPU", async () => {
    using chosen = await openDevice("auto");
    if (chosen.name === "cpu") expect(chosen.description).toMatch(/; chosen because device 'cuda'/);
    else expect(chosen.name).toBe("cuda");
  });

  test.skipIf(cuda.available)("cuda where it cannot run is an error with its reason", async () => {
    await expect(openDevice("cuda")).rejects.toMatchObject({
      code: "ERR_SDPO_DEVICE",
      message: cuda.detail,
    });
    expect(cuda.detail).toMatch(/no NVIDIA driver|no such backend|cannot load|cuda driver/i);
  });
});
