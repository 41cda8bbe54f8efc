"""Makes the GGUF files here and what they must read as, with the `gguf` package (see README.md).
usage: python make.py [--smollm2 FILE.gguf]      needs numpy, gguf, safetensors; --smollm2 also torch, transformers
"""
import argparse, hashlib, json, math, os
import numpy as np
from gguf import GGMLQuantizationType as Q, GGUFWriter, RopeScalingType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "models")
TYPES = [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q4_K, Q.Q5_K, Q.Q6_K]
ROWS, COLUMNS = 5, 512


def blocks():
    """Random bytes as blocks of every type: scales take any bit pattern, infinities and NaN among them."""
    rng, expected = np.random.default_rng(20602), {}
    writer = GGUFWriter(os.path.join(HERE, "blocks.gguf"), "blocks")
    for kind in TYPES:
        elements, size = GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (ROWS, COLUMNS // elements * size), dtype=np.uint8)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
        with np.errstate(all="ignore"):
            expected[kind.name] = np.ascontiguousarray(dequantize(raw, kind).astype(np.float32).reshape(ROWS, COLUMNS))
    finish(writer)
    save_file(expected, os.path.join(HERE, "blocks.safetensors"))


def finish(writer):
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()


POST_NORMS = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
BLOCK = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name, arch):
    stem, kind = name.rsplit(".", 1)
    if stem in TOP: return f"{TOP[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    names = {**BLOCK, **POST_NORMS} if arch == "olmo2" else BLOCK
    return f"blk.{layer}.{names[rest]}.{kind}"


def rope_factors(c):
    """What a GGUF file of a llama 3 model has in place of rope_scaling: one divisor for each frequency."""
    s, d = c["rope_scaling"], c["hidden_size"] // c["num_attention_heads"]
    low, high, length = s["low_freq_factor"], s["high_freq_factor"], s["original_max_position_embeddings"]
    wave = 2 * math.pi * c["rope_theta"] ** (np.arange(0, d, 2) / d)
    smooth = np.clip((length / wave - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / s["factor"] + smooth)).astype(np.float32)


def olmo(w, c):
    """OLMo 3's windows and scaling; its converter writes no head sizes, and tells it from OLMo 2 by the windows alone."""
    s = c["rope_scaling"]
    w.add_sliding_window(c["sliding_window"])
    w.add_sliding_window_pattern([t == "sliding_attention" for t in c["layer_types"]])
    w.add_rope_scaling_type(RopeScalingType.YARN); w.add_rope_scaling_factor(s["factor"])
    w.add_rope_scaling_orig_ctx_len(s["original_max_position_embeddings"])
    w.add_rope_scaling_yarn_attn_factor(s["attention_factor"])
    w.add_rope_scaling_yarn_beta_fast(s["beta_fast"]); w.add_rope_scaling_yarn_beta_slow(s["beta_slow"])


def model(folder, arch):
    """A tiny model of ../models as llama.cpp's converter lays it out."""
    path = os.path.join(MODELS, folder)
    c, weights = json.load(open(os.path.join(path, "config.json"))), {}
    for f in sorted(os.listdir(path)):
        if f.startswith("model") and f.endswith(".safetensors"): weights.update(load_file(os.path.join(path, f)))
    w = GGUFWriter(os.path.join(HERE, folder + ".gguf"), arch)
    head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    w.add_block_count(c["num_hidden_layers"]); w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"]); w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"]); w.add_head_count_kv(c["num_key_value_heads"])
    w.add_rope_freq_base((c.get("rope_parameters") or c)["rope_theta"]); w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_bos_token_id(c["bos_token_id"]); w.add_eos_token_id(c["eos_token_id"])
    if arch == "llama": w.add_vocab_size(c["vocab_size"]); w.add_rope_dimension_count(head_dim)
    elif arch != "olmo2": w.add_key_length(head_dim); w.add_value_length(head_dim)
    if arch == "olmo2": olmo(w, c)
    elif c.get("rope_scaling"): w.add_tensor("rope_freqs.weight", rope_factors(c))
    for name, t in weights.items():
        heads = {"q": c["num_attention_heads"], "k": c["num_key_value_heads"]}.get(name.split("_proj")[0][-1]) if "self_attn" in name else None
        if arch == "llama" and heads and "_proj" in name:      # halves of a head to pairs
            t = t.reshape(heads, 2, head_dim // 2, -1).swapaxes(1, 2).reshape(t.shape)
        w.add_tensor(gguf_name(name, arch), np.ascontiguousarray(t))
    finish(w)


def smollm2(file):
    """SHA-256 of every float32 parameter as transformers loads them from SmolLM2-135M-Instruct.Q4_1.gguf."""
    import torch, transformers
    m = transformers.AutoModelForCausalLM.from_pretrained(os.path.dirname(file), gguf_file=os.path.basename(file), dtype=torch.float32)
    sums = {n: hashlib.sha256(p.detach().numpy().astype("<f4").tobytes()).hexdigest() for n, p in m.named_parameters()}
    json.dump({"transformers": transformers.__version__, "sha256": sums}, open(os.path.join(HERE, "smollm2.json"), "w"), indent=1)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(); arguments.add_argument("--smollm2"); arguments = arguments.parse_args()
    blocks()
    model("llama-tied-gqa-rope3", "llama"); model("qwen2-tied-bias", "qwen2"); model("qwen3-untied-headdim", "qwen3")
    model("olmo3-sliding-yarn", "olmo2")
    if arguments.smollm2: smollm2(arguments.smollm2)
