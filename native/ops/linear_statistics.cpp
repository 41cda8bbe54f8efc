// row_statistics of the logits hidden head^T, in chunks (linear_loss.h).
#include "ops/linear_loss.h"
#include "ops/token_rows.h"

namespace sdpo {
namespace {

void linear_statistics(const Call& call) {
  LinearLoss job;
  job.rows = call.in(0).shape[0];
  job.v = call.in(1).shape[0];
  job.models[0] = LinearModel::of(call.in(0), call.in(1));
  const int32_t* ids = call.in_as<int32_t>(2);
  check_token_ids(ids, job.rows, job.v);
  float* out[4];
  for (int i = 0; i < 4; i++) out[i] = call.out_as<float>(i);
  linear_chunks(job, chunk_rows(call.integer(1), job.rows, job.v), call.scratch(), call.scratch_bytes(),
                [&](int64_t begin, int64_t count, LogitMatrix* logits, void* scratch, uint64_t bytes) {
                  TokenRows rows{};
                  rows.rows = count;
                  rows.logits = logits[0];
                  rows.temperature = call.number(0);
                  rows.token_ids = ids + begin;
                  rows.logprobs = out[0] + begin;
                  rows.lse = out[1] + begin;
                  rows.entropy = out[2] + begin;
                  rows.max = out[3] + begin;
                  token_rows(rows, nullptr, scratch, bytes);
                });
}

SDPO_OP(linear_statistics)
    .input("hidden", "f32", "N,D")
    .input("head", "f32|bf16", "V,D")
    .input("token_ids", "i32", "N")
    .output("logprobs", "f32", "N")
    .output("lse", "f32", "N")
    .output("entropy", "f32", "N")
    .output("max", "f32", "N")
    .number("temperature", 1, 1e-6, 1e6)
    .with(linear_chunk_attribute)
    .scratch([](const Dims& dims, const double* a) {
      const int64_t v = dims.at("V");
      return linear_scratch_bytes(chunk_rows(int64_t(a[1]), dims.at("N"), v), v, 1, token_slot_bytes(v));
    })
    .device_scratch([](const Dims& dims, const double* a, const std::vector<Tensor>& inputs) {
      return linear_device_bytes(int64_t(a[1]), dims, inputs, 1, nullptr);
    })
    .cpu<linear_statistics>();

}  // namespace
}  // namespace sdpo
