// linear_policy_loss, linear_cross_entropy and linear_statistics on a GPU (formulas: their .cpp files; how:
// linear_loss.cuh).
#include "ops/cross_entropy.cuh"
#include "ops/linear_loss.cuh"
#include "ops/policy_loss.cuh"
#include "ops/row_statistics.cuh"

namespace sdpo {
namespace {

LinearGpu linear_job(const GpuCall& call) {
  LinearGpu job{call, call.in(0).shape[0], call.in(1).shape[0]};
  job.model(0, call.inputs());
  return job;
}

// The rows of a chunk; `loss` is moved to them by the caller.
template <class Loss>
void launch_chunk(const GpuCall& call, TokenCall rows, const Loss& loss, const Logits& logits, bool gradient,
                  int64_t begin, int64_t count) {
  rows.logits = logits;
  if (gradient) rows.dlogits = logits;
  rows.token_ids += begin;
  rows.weights += begin;
  rows.coefficients += begin;
  rows.token_loss += begin;
  rows.logprobs += begin;
  if (rows.entropy) rows.entropy += begin;
  launch_token_loss(call, rows, loss, count);
}

void launch_linear_policy_loss(const GpuCall& call) {
  constexpr int dhead = 2 + kPolicyInputs, chunk = 7;
  const PolicyOptions options(call.attributes());
  LinearGpu job = linear_job(call);
  job.d_hidden = call.out_as<float>(kPolicyOutputs);
  job.d_head = call.out_as<float>(kPolicyOutputs + 1);
  job.accumulate = call.has_in(dhead);
  const TokenCall all = policy_rows(call, 2, options, int(job.v));
  const ClippedLoss whole = clipped_loss(call, 2, options);
  launch_linear(job, call.integer(chunk), nullptr,
                [&](int64_t begin, int64_t count, const Logits* logits, void*) {
                  ClippedLoss loss = whole;
                  loss.old_logprobs += begin;
                  loss.advantages += begin;
                  if (loss.reference_logprobs) loss.reference_logprobs += begin;
                  loss.ratio += begin;
                  loss.kl += begin;
                  loss.clipped += begin;
                  launch_chunk(call, all, loss, logits[0], options.gradient, begin, count);
                });
}

void launch_linear_cross_entropy(const GpuCall& call) {
  LinearGpu job = linear_job(call);
  job.d_hidden = call.out_as<float>(2);
  job.d_head = call.out_as<float>(3);
  job.accumulate = call.has_in(5);
  const TokenCall all = cross_entropy_rows(call, 2, int(job.v));
  launch_linear(
      job, call.integer(1), nullptr, [&](int64_t begin, int64_t count, const Logits* logits, void*) {
        launch_chunk(call, all, NegativeLogprob{}, logits[0], job.d_hidden != nullptr, begin, count);
      });
}

void launch_linear_statistics(const GpuCall& call) {
  LinearGpu job = linear_job(call);
  launch_linear(job, call.integer(1), nullptr,
                [&](int64_t begin, int64_t count, const Logits* logits, void*) {
                  StatisticsCall rows{};
                  rows.logits = logits[0];
                  rows.v = int(job.v);
                  rows.scale = float(kLog2e / call.number(0));
                  rows.token_ids = call.in_as<int32_t>(2) + begin;
                  rows.logprobs = call.out_as<float>(0) + begin;
                  rows.lse = call.out_as<float>(1) + begin;
                  rows.entropy = call.out_as<float>(2) + begin;
                  rows.max = call.out_as<float>(3) + begin;
                  launch_statistics(call, rows, count);
                });
}

SDPO_KERNEL(linear_policy_loss, launch_linear_policy_loss);
SDPO_KERNEL(linear_cross_entropy, launch_linear_cross_entropy);
SDPO_KERNEL(linear_statistics, launch_linear_statistics);

}  // namespace
}  // namespace sdpo
