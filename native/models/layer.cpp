#include "models/layer.h"

#include <cmath>

namespace sdpo {

DecoderLayer::DecoderLayer(const Decoder& decoder, int64_t index)
    : calls_(decoder.calls_),
      config_(decoder.config_),
      inv_freq_(decoder.config_.window[size_t(index)] ? decoder.rope_sliding_ : decoder.rope_full_),
      rope_factor_(decoder.config_.window[size_t(index)] ? decoder.config_.rope_sliding.attention_factor
                                                         : decoder.config_.rope_full.attention_factor),
      scale_(1.0 / std::sqrt(double(decoder.config_.head_dim))),
      index_(index),
      window_(decoder.config_.window[size_t(index)]) {}

Tensor DecoderLayer::linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                            bool row_invariant) const {
  Tensor y = calls_.linear(x, weight, row_invariant);
  if (bias) calls_.bias_add(y, bias);
  return y;
}

void DecoderLayer::linear_grads(const Tensor& dy, const Tensor& x, const Tensor& dweight,
                                const Tensor& dbias) const {
  calls_.linear_dw(dy, x, dweight);
  if (dbias) calls_.bias_bwd(dy, dbias);
}

// RMSNorm over each head, or over all heads at once: the weight's size says which.
Tensor DecoderLayer::norm_heads(const Tensor& x, const Tensor& weight, Tensor& rstd) const {
  const int64_t width = weight.size(0);
  auto [y, r] = calls_.rmsnorm(x.reshape({x.elements() / width, width}), weight, config_.norm_eps);
  rstd = r;
  return y.reshape(x.shape());
}

Tensor DecoderLayer::norm_heads_bwd(const Tensor& x, const Tensor& weight, const Tensor& rstd,
                                    const Tensor& dy, const Tensor& dweight) const {
  const Shape flat{x.elements() / weight.size(0), weight.size(0)};
  return calls_.rmsnorm_bwd(x.reshape(flat), weight, rstd, dy.reshape(flat), {}, dweight).reshape(x.shape());
}

// From tape.x: q, k (normed, rotated) and v.
void DecoderLayer::project(const LayerWeights& w, const Tensor& positions, LayerTape& tape,
                           bool row_invariant) const {
  const int64_t tokens = tape.x.size(0);
  tape.h1 = tape.x;
  if (!config_.post_norm) std::tie(tape.h1, tape.rstd1) = calls_.rmsnorm(tape.x, w.norm1, config_.norm_eps);
  const Shape q_shape{tokens, config_.heads, config_.head_dim},
      kv_shape{tokens, config_.kv_heads, config_.head_dim};
  tape.q_raw = linear(tape.h1, w.q, w.q_bias, row_invariant).reshape(q_shape);
  tape.k_raw = linear(tape.h1, w.k, w.k_bias, row_invariant).reshape(kv_shape);
  tape.v = linear(tape.h1, w.v, w.v_bias, row_invariant).reshape(kv_shape);
  tape.q = w.q_norm ? norm_heads(tape.q_raw, w.q_norm, tape.q_rstd) : tape.q_raw;
  tape.k = w.k_norm ? norm_heads(tape.k_raw, w.k_norm, tape.k_rstd) : tape.k_raw;
  calls_.rope(tape.q, positions, inv_freq_, rope_factor_, false);
  calls_.rope(tape.k, positions, inv_freq_, rope_factor_, false);
}

// From tape.attention to the layer's output. Sums go into fresh memory, never into a tape's tensor.
Tensor DecoderLayer::finish(const LayerWeights& w, LayerTape& tape, bool row_invariant) const {
  const Tensor flat = tape.attention.reshape({tape.x.size(0), config_.heads * config_.head_dim});
  tape.o = linear(flat, w.o, w.o_bias, row_invariant);
  if (config_.post_norm) {
    Tensor normed;
    std::tie(normed, tape.rstd1) = calls_.rmsnorm(tape.o, w.norm1, config_.norm_eps);
    tape.x1 = calls_.add(normed, tape.x);
    tape.h2 = tape.x1;
  } else {
    tape.x1 = calls_.add(tape.o, tape.x);
    std::tie(tape.h2, tape.rstd2) = calls_.rmsnorm(tape.x1, w.norm2, config_.norm_eps);
  }
  tape.gate = linear(tape.h2, w.gate, w.gate_bias, row_invariant);
  tape.up = linear(tape.h2, w.up, w.up_bias, row_invariant);
  tape.act = calls_.swiglu(tape.gate, tape.up);
  tape.down = linear(tape.act, w.down, w.down_bias, row_invariant);
  if (!config_.post_norm) return calls_.add(tape.down, tape.x1);
  Tensor normed;
  std::tie(normed, tape.rstd2) = calls_.rmsnorm(tape.down, w.norm2, config_.norm_eps);
  return calls_.add(normed, tape.x1);
}

Tensor DecoderLayer::forward(const LayerWeights& w, const PackedBatch& batch, LayerTape& tape) const {
  project(w, batch.positions, tape, false);
  std::tie(tape.attention, tape.lse) =
      calls_.attention(tape.q, tape.k, tape.v, batch.segments, window_, scale_);
  return finish(w, tape, false);
}

Tensor DecoderLayer::forward_cached(const LayerWeights& w, const CachedBatch& batch, const KvCache& cache,
                                    const Tensor& x) const {
  LayerTape tape;
  tape.x = x;
  project(w, batch.positions, tape, true);
  const Tensor &k = cache.k[size_t(index_)], &v = cache.v[size_t(index_)];
  calls_.kv_store(tape.k, tape.v, batch.slots, k, v);
  tape.attention =
      calls_.attention_paged(tape.q, k, v, batch.rows, batch.page_starts, batch.pages, window_, scale_);
  return finish(w, tape, true);
}

// Returns accumulate + the gradient of h2.
Tensor DecoderLayer::mlp_bwd(const LayerWeights& w, const LayerWeights& g, const LayerTape& tape,
                             const Tensor& ddown, const Tensor& accumulate) const {
  linear_grads(ddown, tape.act, g.down, g.down_bias);
  auto [dgate, dup] = calls_.swiglu_bwd(tape.gate, tape.up, calls_.linear_dx(ddown, w.down, {}));
  linear_grads(dgate, tape.h2, g.gate, g.gate_bias);
  linear_grads(dup, tape.h2, g.up, g.up_bias);
  return calls_.linear_dx(dup, w.up, calls_.linear_dx(dgate, w.gate, accumulate));
}

// Returns accumulate + the gradient of h1.
Tensor DecoderLayer::attention_bwd(const LayerWeights& w, const LayerWeights& g, const PackedBatch& batch,
                                   const LayerTape& tape, const Tensor& dout,
                                   const Tensor& accumulate) const {
  const Shape flat{tape.x.size(0), config_.heads * config_.head_dim};
  const Shape kv_flat{tape.x.size(0), config_.kv_heads * config_.head_dim};
  linear_grads(dout, tape.attention.reshape(flat), g.o, g.o_bias);
  const Tensor datt = calls_.linear_dx(dout, w.o, {}).reshape(tape.attention.shape());
  std::vector<Tensor> d = calls_.attention_bwd(tape.q, tape.k, tape.v, tape.attention, tape.lse, datt,
                                               batch.segments, window_, scale_);
  calls_.rope(d[0], batch.positions, inv_freq_, rope_factor_, true);
  calls_.rope(d[1], batch.positions, inv_freq_, rope_factor_, true);
  if (w.q_norm) d[0] = norm_heads_bwd(tape.q_raw, w.q_norm, tape.q_rstd, d[0], g.q_norm);
  if (w.k_norm) d[1] = norm_heads_bwd(tape.k_raw, w.k_norm, tape.k_rstd, d[1], g.k_norm);
  const Tensor dq = d[0].reshape(flat), dk = d[1].reshape(kv_flat), dv = d[2].reshape(kv_flat);
  linear_grads(dq, tape.h1, g.q, g.q_bias);
  linear_grads(dk, tape.h1, g.k, g.k_bias);
  linear_grads(dv, tape.h1, g.v, g.v_bias);
  return calls_.linear_dx(dv, w.v, calls_.linear_dx(dk, w.k, calls_.linear_dx(dq, w.q, accumulate)));
}

Tensor DecoderLayer::backward(const LayerWeights& w, const LayerWeights& g, const PackedBatch& batch,
                              const LayerTape& tape, const Tensor& dout) const {
  if (config_.post_norm) {
    const Tensor ddown = calls_.rmsnorm_bwd(tape.down, w.norm2, tape.rstd2, dout, {}, g.norm2);
    const Tensor dx1 = mlp_bwd(w, g, tape, ddown, dout);
    const Tensor dattention = calls_.rmsnorm_bwd(tape.o, w.norm1, tape.rstd1, dx1, {}, g.norm1);
    return attention_bwd(w, g, batch, tape, dattention, dx1);
  }
  const Tensor dh2 = mlp_bwd(w, g, tape, dout, {});
  const Tensor dx1 = calls_.rmsnorm_bwd(tape.x1, w.norm2, tape.rstd2, dh2, dout, g.norm2);
  const Tensor dh1 = attention_bwd(w, g, batch, tape, dx1, {});
  return calls_.rmsnorm_bwd(tape.x, w.norm1, tape.rstd1, dh1, dx1, g.norm1);
}

}  // namespace sdpo
