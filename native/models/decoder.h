// The decoder: token ids to final hidden states, forward and backward, over packed prefix trees; and over a
// paged KV cache for generation.
//
//   pre-norm   x1 = x + Wo attention(norm1 x),  x2 = x1 + mlp(norm2 x1)
//   post-norm  x1 = x + norm1(Wo attention(x)), x2 = x1 + norm2(mlp x1)
//   attention  q, k, v = Wx + b; optional RMSNorm of q and k; RoPE; causal within the segment tree
//   mlp        Wdown(silu(Wgate h) * Wup h)
//
// Hidden states are final-normed rows, ready for the head. Losses live elsewhere: they take hidden and head.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "models/calls.h"
#include "models/config.h"
#include "models/store.h"

namespace sdpo {

// The weights (or the gradients: any slot) of one layer. Absent ones are empty tensors.
struct LayerWeights {
  Tensor norm1, norm2, q, k, v, o, gate, up, down, q_bias, k_bias, v_bias, o_bias, gate_bias, up_bias,
      down_bias;
  Tensor q_norm, k_norm;
};

struct SlotWeights {
  Tensor embedding, head, norm;  // head is the embedding where they are tied
  std::vector<LayerWeights> layers;
};

// What a layer's backward pass needs of its forward pass; x is its input.
struct LayerTape {
  Tensor x, h1, rstd1, q_raw, k_raw, q_rstd, k_rstd, q, k, v, attention, lse, o, x1, h2, rstd2, gate, up, act,
      down;
};

// Tokens of a packed batch: segments [S,4] of (start, length, parent or -1, first position).
struct PackedBatch {
  Tensor ids, positions, segments;
  Tensor rows;  // i32 [N]: the tokens whose hidden states are wanted
};

struct ForwardTape {
  PackedBatch batch;
  std::vector<LayerTape> layers;  // x alone where activations are recomputed
  Tensor x_rows, rstd;            // what the final norm saw
  bool recompute = false;
};

// One step of generation: rows of new tokens, their slots in the cache and the pages each row sees.
struct CachedBatch {
  Tensor ids, positions, slots, rows, page_starts, pages;
  Tensor wanted;  // i32 [N]: the rows whose hidden states are wanted
};

struct KvCache {
  std::vector<Tensor> k, v;  // per layer [pages, page tokens, kv heads, head dim]
};

class Decoder {
 public:
  Decoder(DecoderConfig config, std::shared_ptr<ParameterStore> store);

  const DecoderConfig& config() const { return config_; }
  ParameterStore& store() const { return *store_; }

  // -> hidden [N, D]. With a tape, what backward() needs is kept in it.
  Tensor forward(const PackedBatch& batch, const std::string& slot, ForwardTape* tape) const;
  // Adds the gradients of every parameter, the head's excepted, to slot "gradient". Frees the tape as it
  // goes.
  void backward(ForwardTape& tape, const Tensor& dhidden) const;

  KvCache make_cache(int64_t pages, int64_t page_tokens) const;
  // -> hidden [wanted, D]; each row is the same bits whatever the other rows are.
  Tensor forward_cached(const CachedBatch& batch, const std::string& slot, const KvCache& cache) const;

  // Drops what is remembered about a slot, after it was removed.
  void forget(const std::string& slot);
  std::shared_ptr<const SlotWeights> weights(const std::string& slot) const;

 private:
  friend class DecoderLayer;
  DecoderConfig config_;
  std::shared_ptr<ParameterStore> store_;
  Calls calls_;
  Tensor rope_full_, rope_sliding_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::shared_ptr<const SlotWeights>> slots_;
};

}  // namespace sdpo
