#include <algorithm>

#include "ops/policy_loss.h"

namespace sdpo {
namespace {

enum KlKind { kK1, kK2, kK3 };

double clamp20(double x) { return x < -20 ? -20 : x > 20 ? 20 : x; }

// The estimators of KL(policy || reference) from one sample (Schulman's k1, k2, k3); slope over logprob.
TokenTerm kl_term(int kind, double gap) {
  if (kind == kK1) return {gap, 1};
  if (kind == kK2) return {0.5 * gap * gap, gap};
  const double bounded = clamp20(-gap), e = std::exp(bounded);
  return {e - bounded - 1, bounded == -gap ? 1 - e : 0};
}

}  // namespace

PolicyOptions::PolicyOptions(const double* a)
    : clip_low(a[0]),
      clip_high(a[1]),
      dual_clip(a[2]),
      kl_coefficient(a[3]),
      temperature(a[5]),
      kl_kind(int(a[4])),
      gradient(a[6] != 0) {}

TokenTerm policy_term(const PolicyRows& rows, const PolicyOptions& o, int64_t row, double logprob) {
  const double advantage = rows.advantages[row], gap = logprob - rows.old_logprobs[row];
  const double bounded = clamp20(gap), ratio = std::exp(bounded);
  const double cut = ratio < 1 - o.clip_low    ? 1 - o.clip_low
                     : ratio > 1 + o.clip_high ? 1 + o.clip_high
                                               : ratio;
  TokenTerm term{-advantage * ratio, bounded == gap ? -advantage * ratio : 0};
  int clipped = 0;
  if (-advantage * cut > term.loss) {
    clipped = 1;
    term = {-advantage * cut, 0};
  }
  if (advantage < 0 && !std::isnan(o.dual_clip) && -advantage * o.dual_clip < term.loss) {
    clipped |= 2;
    term = {-advantage * o.dual_clip, 0};
  }
  double kl = 0;
  if (rows.reference_logprobs) {
    const TokenTerm k = kl_term(o.kl_kind, logprob - rows.reference_logprobs[row]);
    kl = k.loss;
    term.loss += o.kl_coefficient * k.loss;
    term.slope += o.kl_coefficient * k.slope;
  }
  if (std::isnan(logprob)) term = {logprob, logprob};
  rows.ratio[row] = float(ratio);
  rows.kl[row] = float(kl);
  rows.clipped[row] = clipped;
  return term;
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
