// policy_loss on a GPU (formulas: policy_loss.cpp and policy_term.h; how: token_loss.cuh).
#include "ops/policy_options.h"
#include "ops/token_loss.cuh"

namespace sdpo {
namespace {

struct ClippedLoss {
  PolicyClips<float> clips;
  const float *old_logprobs, *advantages, *reference_logprobs;  // the last may be null
  float *ratio, *kl;
  int32_t* clipped;

  DEV_INLINE LossSlope operator()(int64_t row, float logprob, bool write) const {
    const float* reference = reference_logprobs ? reference_logprobs + row : nullptr;
    const PolicyTerm<float> term =
        policy_term<float>(clips, logprob, old_logprobs[row], advantages[row], reference);
    if (write) {
      ratio[row] = term.ratio;
      kl[row] = term.kl;
      clipped[row] = term.clipped;
    }
    return {term.loss, term.slope};
  }
};

void launch_policy_loss(const GpuCall& call) {
  const PolicyOptions options(call.attributes());
  TokenCall rows{};
  rows.logits = logits_of(call.in(0));
  rows.v = int(call.in(0).shape[1]);
  rows.token_ids = call.in_as<int32_t>(1);
  rows.weights = call.in_as<float>(2);
  rows.coefficients = call.in_as<float>(3);
  rows.temperature = float(options.temperature);
  rows.scale = float(kLog2e / options.temperature);
  rows.token_loss = call.out_as<float>(0);
  rows.logprobs = call.out_as<float>(1);
  rows.entropy = call.out_as<float>(2);
  if (options.gradient) rows.dlogits = logits_of(call.out(kPolicyOutputs));
  const PolicyClips<double>& c = options.clips;
  const ClippedLoss loss{{float(c.low), float(c.high), float(c.dual), float(c.kl_coefficient), c.kl_kind},
                         call.in_as<float>(4),
                         call.in_as<float>(5),
                         call.in_as<float>(6),
                         call.out_as<float>(3),
                         call.out_as<float>(4),
                         call.out_as<int32_t>(5)};
  launch_token_loss(call, rows, loss, call.in(0).shape[0]);
}

SDPO_KERNEL(policy_loss, launch_policy_loss);

}  // namespace
}  // namespace sdpo
