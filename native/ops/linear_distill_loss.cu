// linear_distill_loss on a GPU (formulas: linear_distill_loss.cpp; how: linear_loss.cuh).
#include "ops/distill_launch.h"
#include "ops/linear_loss.cuh"

namespace sdpo {
namespace {

enum Input { kIds = 6, kWeights, kCoefficients, kOld, kAdvantages, kDHead };

template <class T>
void move_to(T*& rows, int64_t begin) {
  if (rows) rows += begin;
}

void launch_linear_distill_loss(const GpuCall& call) {
  LinearGpu job{call, call.in(0).shape[0], call.in(1).shape[0]};
  const DistillOptions options(call.attributes(), job.v);
  check_linear_distill(options, call.inputs());
  for (int m = 0; m < kLinearModels; m++) job.model(m, call.inputs() + 2 * m);
  job.d_hidden = call.out_as<float>(kDistillOutputs);
  job.d_head = call.out_as<float>(kDistillOutputs + 1);
  job.accumulate = call.has_in(kDHead);
  DistillCall all = distill_settings(options, int(job.v));
  all.token_ids = call.in_as<int32_t>(kIds);
  all.weights = call.in_as<float>(kWeights);
  all.coefficients = call.in_as<float>(kCoefficients);
  all.old_logprobs = call.in_as<float>(kOld);
  all.advantages = call.in_as<float>(kAdvantages);
  for (int i = 0; i < kDistillOutputs; i++) all.out[i] = call.out_as<float>(i);
  launch_linear(
      job, call.integer(kDistillAttributes), distill_parts_bytes,
      [&](int64_t begin, int64_t count, const Logits* logits, void* scratch) {
        DistillCall rows = all;
        set_distill_logits(rows, options, logits[0], logits[1], logits[2]);
        if (options.gradient) rows.dlogits = logits[0];
        move_to(rows.token_ids, begin);
        for (const float** p : {&rows.weights, &rows.coefficients, &rows.old_logprobs, &rows.advantages})
          move_to(*p, begin);
        for (float*& out : rows.out) out += begin;
        const sdpo_op_call raw = with_scratch(call, scratch);
        launch_distill_rows(GpuCall(raw, call.properties()), options, rows, count);
      });
}

SDPO_KERNEL(linear_distill_loss, launch_linear_distill_loss);

}  // namespace
}  // namespace sdpo
