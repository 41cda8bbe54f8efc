/** Models from GGUF files compute what transformers did for the folders that they were made from. */
import { describe, expect, test } from "vitest";
import { Model } from "../../lib/models/model.js";
import { openDevice } from "../../lib/native/device.js";
import { goldenJson, goldenPath, goldenTensors, maxDifference } from "../golden-tensors.js";

const manifest = goldenJson<{ tolerance: { float32: Record<string, number> } }>("models", "manifest.json");
const tolerance = manifest.tolerance.float32;

describe.each(["llama-tied-gqa-rope3", "qwen2-tied-bias", "qwen3-untied-headdim", "olmo3-sliding-yarn"])(
  "%s.gguf",
  (name) => {
    test("logits", async () => {
      using device = await openDevice("cpu");
      using model = await Model.load(goldenPath("gguf", `${name}.gguf`), { device });
      expect(model.hasTokenizer).toBe(false);
      const golden = goldenTensors("models", name, "golden.safetensors");
      const ids = golden.get("input_ids")!.data;
      const [begin, end] = golden.get("cu_seqlens")!.data;
      const [logits] = await model.logits([ids.slice(begin, end)]);
      const expected = golden.get("logits")!.data.subarray(0, logits!.length);
      expect(logits!.length).toBe((end! - begin!) * model.config.vocabSize);
      expect(maxDifference(logits!, expected)).toBeLessThanOrEqual(tolerance.logits_max_abs!);
    });
  },
);
