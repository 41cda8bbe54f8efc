// The clipped policy-gradient loss (PPO with dual clip, GRPO), forward and backward, row by row.
//   ratio = exp(clamp(log p(token) - old_logprobs, -20, 20)), A the advantages
//   L = max(-A ratio, -A clamp(ratio, 1 - clip_low, 1 + clip_high)), for A < 0 at most -A dual_clip
//   token_loss = weights * (L + kl_coefficient * KL estimate to reference_logprobs, kl_kind)
//   dlogits = coefficients * d token_loss / d logits
// k1: log p - log ref; k2: its half square; k3: ref/p - 1 - log(ref/p). logits f32|bf16 [N,V], the rest [N].
// clipped: bit 0 by the range, bit 1 by dual_clip. dlogits has the logits' dtype and, in place, their memory.
// A row of weight 0 gives 0 whatever its logits. Bits do not depend on threads.
#include "ops/policy_loss.h"

namespace sdpo {
namespace {

void policy_loss(const Call& call) {
  const PolicyOptions options(call.attributes());
  TokenRows tokens{};
  PolicyRows rows{};
  tokens.rows = call.in(0).shape[0];
  tokens.logits = LogitMatrix::of(call.in(0));
  tokens.temperature = options.temperature;
  policy_bind(call, 1, tokens, rows);
  if (options.gradient) tokens.dlogits = LogitMatrix::of(call.out(kPolicyOutputs));
  token_rows(
      tokens, [&](int64_t row, double logprob) { return policy_row(rows, options, row, logprob); },
      call.scratch(), call.scratch_bytes());
}

SDPO_OP(policy_loss)
    .input("logits", "f32|bf16", "N,V")
    .with(policy_inputs)
    .output("dlogits", "", "N,V")
    .like("logits")
    .aliases("logits", "in_place")
    .only("gradient")
    .with(policy_attributes)
    .boolean("in_place", false)
    .scratch([](const Dims& dims, const double*) {
      return row_scratch_bytes(dims.at("N"), token_slot_bytes(dims.at("V")));
    })
    .cpu<policy_loss>();

}  // namespace
}  // namespace sdpo
