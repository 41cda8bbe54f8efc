import { describe, expect, test } from "vitest";
import { bf16, expectClose, f32, type Host, i32, normals, runOp } from "./helpers.js";

const width = 70;
const ids = [3, 0, 6, 3, 3, 1];

function gathered(table: Host, index: number[]): Float64Array {
  return Float64Array.from({ length: index.length * width }, (_, k) => {
    const row = index[Math.floor(k / width)]!;
    return table.data[row * width + (k % width)]!;
  });
}

function scattered(onto: Host, rows: Host, index: number[]): Float64Array {
  const sums = Float64Array.from(onto.data);
  index.forEach((row, i) => {
    for (let j = 0; j < width; j++) sums[row * width + j]! += rows.data[i * width + j]!;
  });
  return sums;
}

describe("embed_fwd, gather_rows", () => {
  test.each([
    ["f32", f32],
    ["bf16", bf16],
  ] as const)("copies the rows of a %s table", async (_, make) => {
    const table = make([7, width], normals(1));
    const { x } = await runOp("embed_fwd", { ids: i32([6], ids), table });
    expect(Float64Array.from(x!)).toEqual(gathered(table, ids));
  });

  test("gather_rows copies rows; no rows is fine", async () => {
    const x = f32([7, width], normals(2));
    const { y } = await runOp("gather_rows", { x, index: i32([6], ids) });
    expect(Float64Array.from(y!)).toEqual(gathered(x, ids));
    const none = await runOp("gather_rows", { x, index: i32([0], []) });
    expect(none.y!.length).toBe(0);
  });
});

describe("embed_bwd, scatter_rows", () => {
  test("add the rows onto what is there, repeated ids included", async () => {
    const rows = f32([6, width], normals(3));
    const onto = f32([7, width], normals(4));
    const expected = scattered(onto, rows, ids);
    const embed = await runOp("embed_bwd", { ids: i32([6], ids), dx: rows, dtable: onto });
    expectClose(embed.dtable!, expected, 1e-6);
    const scatter = await runOp("scatter_rows", { dy: rows, index: i32([6], ids), dx: onto });
    expectClose(scatter.dx!, expected, 1e-6);
  });
});

describe("ids outside the table", () => {
  test.each([-1, 7])("%i is refused with its row", async (bad) => {
    const index = i32([3], [0, 1, bad]);
    const table = f32([7, width], normals(5));
    const rows = f32([3, width], normals(6));
    const message = new RegExp(`row 2: ${bad} is outside \\[0, 7\\)`);
    await expect(runOp("embed_fwd", { ids: index, table })).rejects.toThrow(message);
    await expect(runOp("gather_rows", { x: table, index })).rejects.toThrow(message);
    await expect(runOp("embed_bwd", { ids: index, dx: rows, dtable: table })).rejects.toThrow(message);
    await expect(runOp("scatter_rows", { dy: rows, index, dx: table })).rejects.toThrow(message);
  });
});
