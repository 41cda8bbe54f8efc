// cross_entropy of the logits hidden head^T, in chunks (linear_loss.h), with d_hidden [N,D] and d_head [V,D].
#include "ops/linear_loss.h"
#include "ops/token_rows.h"

namespace sdpo {
namespace {

void linear_cross_entropy(const Call& call) {
  LinearLoss job;
  job.rows = call.in(0).shape[0];
  job.v = call.in(1).shape[0];
  job.models[0] = LinearModel::of(call.in(0), call.in(1));
  const int32_t* ids = call.in_as<int32_t>(2);
  job.weights = call.in_as<float>(3);
  job.coefficients = call.in_as<float>(4);
  job.accumulate = call.has_in(5);
  job.d_hidden = call.out_as<float>(2);
  job.d_head = call.out_as<float>(3);
  check_token_ids(ids, job.rows, job.v);
  float *token_loss = call.out_as<float>(0), *logprobs = call.out_as<float>(1);
  linear_chunks(job, chunk_rows(call.integer(1), job.rows, job.v), call.scratch(), call.scratch_bytes(),
                [&](int64_t begin, int64_t count, LogitMatrix* logits, void* scratch, uint64_t bytes) {
                  TokenRows rows{};
                  rows.rows = count;
                  rows.logits = logits[0];
                  if (job.d_hidden) rows.dlogits = logits[0];
                  rows.temperature = 1;
                  rows.token_ids = ids + begin;
                  rows.weights = job.weights + begin;
                  rows.coefficients = job.coefficients + begin;
                  rows.token_loss = token_loss + begin;
                  rows.logprobs = logprobs + begin;
                  token_rows(
                      rows, [](int64_t, double logprob) { return TokenTerm{-logprob, -1}; }, scratch, bytes);
                });
}

SDPO_OP(linear_cross_entropy)
    .input("hidden", "f32", "N,D")
    .input("head", "f32|bf16", "V,D")
    .input("token_ids", "i32", "N")
    .input("weights", "f32", "N")
    .input("coefficients", "f32", "N")
    .input("d_head?", "f32", "V,D")
    .output("token_loss", "f32", "N")
    .output("logprobs", "f32", "N")
    .with(linear_gradient_outputs)
    .boolean("gradient", true)
    .with(linear_chunk_attribute)
    .scratch([](const Dims& dims, const double* a) {
      const int64_t v = dims.at("V");
      return linear_scratch_bytes(chunk_rows(int64_t(a[1]), dims.at("N"), v), v, 1, token_slot_bytes(v));
    })
    .device_scratch([](const Dims& dims, const double* a, const std::vector<Tensor>& inputs) {
      return linear_device_bytes(int64_t(a[1]), dims, inputs, 1, nullptr);
    })
    .cpu<linear_cross_entropy>();

}  // namespace
}  // namespace sdpo
