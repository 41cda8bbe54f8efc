// The loss of cross_entropy and linear_cross_entropy on a GPU (formula: cross_entropy.cpp).
#pragma once
#include "ops/token_loss.cuh"

namespace sdpo {

struct NegativeLogprob {
  DEV_INLINE LossSlope operator()(int64_t, float logprob, bool) const { return {-logprob, -1}; }
};

// `first`: the index of the input token_ids. No logits yet.
inline TokenCall cross_entropy_rows(const GpuCall& call, int first, int v) {
  TokenCall rows{};
  rows.v = v;
  rows.token_ids = call.in_as<int32_t>(first);
  rows.weights = call.in_as<float>(first + 1);
  rows.coefficients = call.in_as<float>(first + 2);
  rows.temperature = 1;
  rows.scale = kLog2e;
  rows.token_loss = call.out_as<float>(0);
  rows.logprobs = call.out_as<float>(1);
  return rows;
}

}  // namespace sdpo
