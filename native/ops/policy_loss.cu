// policy_loss on a GPU (formulas: policy_loss.cpp and policy_term.h; how: token_loss.cuh).
#include "ops/policy_loss.cuh"

namespace sdpo {
namespace {

void launch_policy_loss(const GpuCall& call) {
  const PolicyOptions options(call.attributes());
  TokenCall rows = policy_rows(call, 1, options, int(call.in(0).shape[1]));
  rows.logits = logits_of(call.in(0));
  if (options.gradient) rows.dlogits = logits_of(call.out(kPolicyOutputs));
  launch_token_loss(call, rows, clipped_loss(call, 1, options), call.in(0).shape[0]);
}

SDPO_KERNEL(policy_loss, launch_policy_loss);

}  // namespace
}  // namespace sdpo
