// One decoder layer: its forward pass, split where training and cached generation differ (attention), and its
// backward pass. Recomputing a layer runs the same ops on the same input: the same bits.
#pragma once
#include "models/decoder.h"

namespace sdpo {

class DecoderLayer {
 public:
  DecoderLayer(const Decoder& decoder, int64_t index);

  // Training: fills the tape (tape.x is the input) and returns the layer's output.
  Tensor forward(const LayerWeights& w, const PackedBatch& batch, LayerTape& tape) const;
  // dout is consumed; returns the gradient of the input. g: the layer's gradients, accumulated into.
  Tensor backward(const LayerWeights& w, const LayerWeights& g, const PackedBatch& batch,
                  const LayerTape& tape, const Tensor& dout) const;
  Tensor forward_cached(const LayerWeights& w, const CachedBatch& batch, const KvCache& cache,
                        const Tensor& x) const;

 private:
  void project(const LayerWeights& w, const Tensor& positions, LayerTape& tape, bool row_invariant) const;
  Tensor finish(const LayerWeights& w, LayerTape& tape, bool row_invariant) const;
  Tensor attention_bwd(const LayerWeights& w, const LayerWeights& g, const PackedBatch& batch,
                       const LayerTape& tape, const Tensor& datt, const Tensor& accumulate) const;
  Tensor mlp_bwd(const LayerWeights& w, const LayerWeights& g, const LayerTape& tape, const Tensor& ddown,
                 const Tensor& accumulate) const;
  Tensor norm_heads(const Tensor& x, const Tensor& weight, Tensor& rstd) const;
  Tensor norm_heads_bwd(const Tensor& x, const Tensor& weight, const Tensor& rstd, const Tensor& dy,
                        const Tensor& dweight) const;
  Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, bool row_invariant) const;
  void linear_grads(const Tensor& dy, const Tensor& x, const Tensor& dweight, const Tensor& dbias) const;

  const Calls& calls_;
  const DecoderConfig& config_;
  const Tensor& inv_freq_;
  double rope_factor_, scale_;
  int64_t index_, window_;
};

}  // namespace sdpo
