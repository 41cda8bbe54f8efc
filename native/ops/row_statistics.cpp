// Softmax statistics of rows of logits / temperature: the tokens' log-probabilities, logsumexp and entropy
// [N]; max is the largest logit itself. logits f32|bf16 [N,V]. Bits do not depend on threads.
#include "ops/schema.h"
#include "ops/token_rows.h"

namespace sdpo {
namespace {

void row_statistics(const Call& call) {
  TokenRows rows{};
  rows.rows = call.in(0).shape[0];
  rows.logits = LogitMatrix::of(call.in(0));
  rows.token_ids = call.in_as<int32_t>(1);
  rows.temperature = call.number(0);
  rows.logprobs = call.out_as<float>(0);
  rows.lse = call.out_as<float>(1);
  rows.entropy = call.out_as<float>(2);
  rows.max = call.out_as<float>(3);
  check_token_ids(rows.token_ids, rows.rows, rows.logits.v);
  token_rows(rows, nullptr, call.scratch(), call.scratch_bytes());
}

SDPO_OP(row_statistics)
    .input("logits", "f32|bf16", "N,V")
    .input("token_ids", "i32", "N")
    .output("logprobs", "f32", "N")
    .output("lse", "f32", "N")
    .output("entropy", "f32", "N")
    .output("max", "f32", "N")
    .number("temperature", 1, 1e-6, 1e6)
    .scratch([](const Dims& dims, const double*) {
      return row_scratch_bytes(dims.at("N"), token_slot_bytes(dims.at("V")));
    })
    .cpu<row_statistics>();

}  // namespace
}  // namespace sdpo
