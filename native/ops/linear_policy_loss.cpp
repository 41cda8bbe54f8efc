// policy_loss of the logits hidden head^T, in chunks (linear_loss.h), with d_hidden [N,D] and d_head [V,D].
#include "ops/linear_loss.h"
#include "ops/policy_loss.h"

namespace sdpo {
namespace {

constexpr int kDHead = 2 + kPolicyInputs, kChunkAttribute = 7;

void linear_policy_loss(const Call& call) {
  const PolicyOptions options(call.attributes());
  LinearLoss job;
  job.rows = call.in(0).shape[0];
  job.v = call.in(1).shape[0];
  job.models[0] = LinearModel::of(call.in(0), call.in(1));
  TokenRows all{};
  PolicyRows policy{};
  all.logits.v = job.v;
  policy_bind(call, 2, all, policy);
  job.weights = all.weights;
  job.coefficients = all.coefficients;
  job.accumulate = call.has_in(kDHead);
  job.d_hidden = call.out_as<float>(kPolicyOutputs);
  job.d_head = call.out_as<float>(kPolicyOutputs + 1);
  const int64_t chunk = chunk_rows(call.integer(kChunkAttribute), job.rows, job.v);
  linear_chunks(
      job, chunk, call.scratch(), call.scratch_bytes(),
      [&](int64_t begin, int64_t count, LogitMatrix* logits, void* scratch, uint64_t bytes) {
        TokenRows rows{};
        rows.rows = count;
        rows.logits = logits[0];
        if (options.gradient) rows.dlogits = logits[0];
        rows.temperature = options.temperature;
        rows.token_ids = all.token_ids + begin;
        rows.weights = all.weights + begin;
        rows.coefficients = all.coefficients + begin;
        rows.token_loss = all.token_loss + begin;
        rows.logprobs = all.logprobs + begin;
        rows.entropy = all.entropy + begin;
        token_rows(
            rows,
            [&](int64_t row, double logprob) { return policy_row(policy, options, begin + row, logprob); },
            scratch, bytes);
      });
}

SDPO_OP(linear_policy_loss)
    .input("hidden", "f32", "N,D")
    .input("head", "f32|bf16", "V,D")
    .with(policy_inputs)
    .input("d_head?", "f32", "V,D")
    .with(linear_gradient_outputs)
    .with(policy_attributes)
    .with(linear_chunk_attribute)
    .scratch([](const Dims& dims, const double* a) {
      const int64_t v = dims.at("V");
      return linear_scratch_bytes(chunk_rows(int64_t(a[kChunkAttribute]), dims.at("N"), v), v, 1,
                                  token_slot_bytes(v));
    })
    .device_scratch([](const Dims& dims, const double* a, const std::vector<Tensor>& inputs) {
      return linear_device_bytes(int64_t(a[kChunkAttribute]), dims, inputs, 1, nullptr);
    })
    .cpu<linear_policy_loss>();

}  // namespace
}  // namespace sdpo
