// cross_entropy on a GPU (formula: cross_entropy.cpp; how: token_loss.cuh).
#include "ops/cross_entropy.cuh"

namespace sdpo {
namespace {

void launch_cross_entropy(const GpuCall& call) {
  TokenCall rows = cross_entropy_rows(call, 1, int(call.in(0).shape[1]));
  rows.logits = logits_of(call.in(0));
  if (call.has_out(2)) rows.dlogits = logits_of(call.out(2));
  launch_token_loss(call, rows, NegativeLogprob{}, call.in(0).shape[0]);
}

SDPO_KERNEL(cross_entropy, launch_cross_entropy);

}  // namespace
}  // namespace sdpo
