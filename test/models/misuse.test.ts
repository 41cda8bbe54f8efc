/** Arguments of the wrong kind: an SdpoError that names them, never a TypeError, a crash or a hang. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SdpoError } from "../../lib/errors.js";
import { Model } from "../../lib/models/model.js";
import { packSequences } from "../../lib/models/packing.js";
import { type Device, openDevice } from "../../lib/native/device.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import { loadTinyModel } from "../tiny-model.js";
import { goldenFolder } from "../unit/text-golden.js";

const WRONG: unknown[] = [
  ...[undefined, null, 0, -1, 1.5, Number.NaN, "", "x", true, 10n, () => 1, new Map()],
  ...[[], {}, [null], [{}], [undefined], [-1], [1e9], ["a"], new Float64Array([Number.NaN])],
];

let device: Device;
let model: Model;
let tokenizer: Tokenizer;
beforeAll(async () => {
  device = await openDevice("cpu");
  model = await loadTinyModel({ device });
  tokenizer = await Tokenizer.load(goldenFolder("qwen"));
});
afterAll(() => model.dispose());

const chat = [{ role: "user", content: "x" }] as const;
const rows = Int32Array.of(0);
type Calls = Record<string, (wrong: never) => unknown>;

async function expectOwnErrors(call: (wrong: never) => unknown): Promise<void> {
  for (const wrong of WRONG) {
    const error = await Promise.resolve()
      .then(() => call(wrong as never))
      .then(
        () => undefined,
        (thrown: unknown) => thrown,
      );
    if (error !== undefined) expect(error).toBeInstanceOf(SdpoError);
  }
}

const text: Calls = {
  encode: (wrong) => tokenizer.encode(wrong),
  "encode's options": (wrong) => tokenizer.encode("x", wrong),
  decode: (wrong) => tokenizer.decode(wrong),
  "decode's options": (wrong) => tokenizer.decode([1], wrong),
  stream: (wrong) => tokenizer.stream(wrong).push(1),
  push: (wrong) => tokenizer.stream().push(wrong),
  chat: (wrong) => tokenizer.chat(wrong),
  "chat's options": (wrong) => tokenizer.chat(chat, wrong),
  "chat's tools": (wrong) => tokenizer.chat(chat, { tools: wrong }),
  "a message's content": (wrong) => tokenizer.chat([{ role: "user", content: wrong }]),
  "Tokenizer.load": (wrong) => Tokenizer.load(wrong),
  "Tokenizer.fromFiles": (wrong) => Tokenizer.fromFiles(wrong),
  "Tokenizer.fromGguf": (wrong) => Tokenizer.fromGguf(wrong),
};

const models: Calls = {
  "Model.load": (wrong) => Model.load(wrong, { device }),
  "load's options": (wrong) => Model.load(model.path, wrong),
  "Model.create": (wrong) => Model.create(wrong, { device }),
  "create's options": (wrong) => Model.create(model.config, wrong),
  "create's tokenizer": (wrong) => Model.create(model.config, { device, tokenizer: wrong }),
  "create's dtype": (wrong) => Model.create(model.config, { device, dtype: wrong }),
  logits: (wrong) => model.logits(wrong),
  "a sequence": (wrong) => model.logits([wrong]),
  "logits' options": (wrong) => model.logits([[1, 2]], wrong),
  backward: (wrong) => model.backward(wrong),
  "backward's options": (wrong) => model.backward([[1, 2]], wrong),
  "forward's batch": (wrong) => model.forward(wrong, rows),
  "forward's rows": (wrong) => model.forward(packSequences([Int32Array.of(1, 2)]), wrong),
  packSequences: (wrong) => packSequences(wrong),
  "save's slot": (wrong) => model.save(model.path, { slot: wrong ?? "none" }),
};

describe("text", () => {
  test.each(Object.entries(text))("%s", (_, call) => expectOwnErrors(call));
});

describe("models", () => {
  test.each(Object.entries(models))("%s", (_, call) => expectOwnErrors(call));

  test("a configuration that is not whole is named", () => {
    const create = (config: unknown) => () => Model.create(config as never, { device });
    expect(create({})).toThrow(/config: expected a complete configuration/);
    expect(create({ ...model.config, heads: 3 })).toThrow(/config: /);
  });
});
