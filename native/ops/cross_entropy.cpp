// Cross entropy of the given tokens, forward and backward.
//   token_loss = -weights * log softmax(logits)[token], dlogits = coefficients * d token_loss / d logits
// logits f32|bf16 [N,V], the rest [N]; dlogits has the logits' dtype and, in place, their memory. A row of
// weight 0 gives 0 whatever its logits. Bits do not depend on threads.
#include "ops/schema.h"
#include "ops/token_rows.h"

namespace sdpo {
namespace {

void cross_entropy(const Call& call) {
  TokenRows rows{};
  rows.rows = call.in(0).shape[0];
  rows.logits = LogitMatrix::of(call.in(0));
  rows.token_ids = call.in_as<int32_t>(1);
  rows.weights = call.in_as<float>(2);
  rows.coefficients = call.in_as<float>(3);
  rows.temperature = 1;
  rows.token_loss = call.out_as<float>(0);
  rows.logprobs = call.out_as<float>(1);
  if (call.has_out(2)) rows.dlogits = LogitMatrix::of(call.out(2));
  check_token_ids(rows.token_ids, rows.rows, rows.logits.v);
  token_rows(
      rows, [](int64_t, double logprob) { return TokenTerm{-logprob, -1}; }, call.scratch(),
      call.scratch_bytes());
}

SDPO_OP(cross_entropy)
    .input("logits", "f32|bf16", "N,V")
    .input("token_ids", "i32", "N")
    .input("weights", "f32", "N")
    .input("coefficients", "f32", "N")
    .output("token_loss", "f32", "N")
    .output("logprobs", "f32", "N")
    .output("dlogits", "", "N,V")
    .like("logits")
    .aliases("logits", "in_place")
    .only("gradient")
    .boolean("gradient", true)
    .boolean("in_place", false)
    .scratch([](const Dims& dims, const double*) {
      return row_scratch_bytes(dims.at("N"), token_slot_bytes(dims.at("V")));
    })
    .cpu<cross_entropy>();

}  // namespace
}  // namespace sdpo
