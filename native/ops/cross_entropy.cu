// cross_entropy on a GPU (formula: cross_entropy.cpp; how: token_loss.cuh).
#include "ops/token_loss.cuh"

namespace sdpo {
namespace {

struct NegativeLogprob {
  DEV_INLINE LossSlope operator()(int64_t, float logprob, bool) const { return {-logprob, -1}; }
};

void launch_cross_entropy(const GpuCall& call) {
  TokenCall rows{};
  rows.logits = logits_of(call.in(0));
  rows.v = int(call.in(0).shape[1]);
  rows.token_ids = call.in_as<int32_t>(1);
  rows.weights = call.in_as<float>(2);
  rows.coefficients = call.in_as<float>(3);
  rows.temperature = 1;
  rows.scale = kLog2e;
  rows.token_loss = call.out_as<float>(0);
  rows.logprobs = call.out_as<float>(1);
  if (call.has_out(2)) rows.dlogits = logits_of(call.out(2));
  launch_token_loss(call, rows, NegativeLogprob{}, call.in(0).shape[0]);
}

SDPO_KERNEL(cross_entropy, launch_cross_entropy);

}  // namespace
}  // namespace sdpo
