// The loss of policy_loss and linear_policy_loss on a GPU (formulas: policy_loss.cpp and policy_term.h).
#pragma once
#include "ops/policy_options.h"
#include "ops/token_loss.cuh"

namespace sdpo {

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

// `first`: the index of the input token_ids. No logits yet.
inline TokenCall policy_rows(const GpuCall& call, int first, const PolicyOptions& options, int v) {
  TokenCall rows{};
  rows.v = v;
  rows.token_ids = call.in_as<int32_t>(first);
  rows.weights = call.in_as<float>(first + 1);
  rows.coefficients = call.in_as<float>(first + 2);
  rows.temperature = float(options.temperature);
  rows.scale = float(kLog2e / options.temperature);
  rows.token_loss = call.out_as<float>(0);
  rows.logprobs = call.out_as<float>(1);
  rows.entropy = call.out_as<float>(2);
  return rows;
}

inline ClippedLoss clipped_loss(const GpuCall& call, int first, const PolicyOptions& options) {
  const PolicyClips<double>& c = options.clips;
  return {{float(c.low), float(c.high), float(c.dual), float(c.kl_coefficient), c.kl_kind},
          call.in_as<float>(first + 3),
          call.in_as<float>(first + 4),
          call.in_as<float>(first + 5),
          call.out_as<float>(3),
          call.out_as<float>(4),
          call.out_as<int32_t>(5)};
}

}  // namespace sdpo
