#include "ops/policy_loss.h"

namespace sdpo {

TokenTerm policy_row(const PolicyRows& rows, const PolicyOptions& o, int64_t row, double logprob) {
  const float* reference = rows.reference_logprobs ? rows.reference_logprobs + row : nullptr;
  const PolicyTerm<double> term = policy_term<double>(o.clips, logprob, double(rows.old_logprobs[row]),
                                                      double(rows.advantages[row]), reference);
  rows.ratio[row] = float(term.ratio);
  rows.kl[row] = float(term.kl);
  rows.clipped[row] = term.clipped;
  return {term.loss, term.slope};
}

void policy_inputs(OpSchema& op) {
  op.input("token_ids", "i32", "N")
      .input("weights", "f32", "N")
      .input("coefficients", "f32", "N")
      .input("old_logprobs", "f32", "N")
      .input("advantages", "f32", "N")
      .input("reference_logprobs?", "f32", "N")
      .output("token_loss", "f32", "N")
      .output("logprobs", "f32", "N")
      .output("entropy", "f32", "N")
      .output("ratio", "f32", "N")
      .output("kl", "f32", "N")
      .output("clipped", "i32", "N");
}

void policy_attributes(OpSchema& op) {
  op.number("clip_low", 0.2, 0, 1)
      .number("clip_high", 0.2, 0, 1e30)
      .nullable("dual_clip", 1, 1e30)
      .number("kl_coefficient", 0, 0, 1e30)
      .choice("kl_kind", {"k1", "k2", "k3"})
      .number("temperature", 1, 1e-6, 1e6)
      .boolean("gradient", true);
}

void policy_bind(const Call& call, int first, TokenRows& tokens, PolicyRows& rows) {
  tokens.token_ids = call.in_as<int32_t>(first);
  tokens.weights = call.in_as<float>(first + 1);
  tokens.coefficients = call.in_as<float>(first + 2);
  tokens.token_loss = call.out_as<float>(0);
  tokens.logprobs = call.out_as<float>(1);
  tokens.entropy = call.out_as<float>(2);
  rows = {call.in_as<float>(first + 3), call.in_as<float>(first + 4), call.in_as<float>(first + 5),
          call.out_as<float>(3),        call.out_as<float>(4),        call.out_as<int32_t>(5)};
  check_token_ids(tokens.token_ids, call.in(first).shape[0], tokens.logits.v);
}

}  // namespace sdpo
