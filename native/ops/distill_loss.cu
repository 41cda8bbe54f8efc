// distill_loss on a GPU (formulas and outputs: distill_loss.cpp). Small rows take one block; on sm_90 larger
// ones take a cluster of up to 8, so that every logit is read once and the gradient written once; elsewhere,
// and where a row exceeds a cluster's shared memory, the row goes in parts (distill_parts.cuh).
// A token id outside the vocabulary makes its row NaN. A row's bits depend on nothing but the row, V, the
// dtypes and whether the device has clusters.
#include <utility>

#include "ops/distill_parts.cuh"

namespace sdpo {
namespace {

Kind divergence_of(const DistillOptions& options) {
  if (!std::isnan(options.advantage_clip)) return Kind::Clipped;
  return options.alpha == 0 ? Kind::Forward : options.alpha == 1 ? Kind::Reverse : Kind::Jsd;
}

DistillCall bind(const GpuCall& call, const DistillOptions& options) {
  DistillCall row{};
  row.student = logits_of(call.in(0));
  row.teacher = logits_of(call.in(1));
  if (call.has_in(2) && options.teacher_rate != 1) {
    row.initial = logits_of(call.in(2));
    if (options.teacher_rate == 0) row.teacher = std::exchange(row.initial, Logits{});
  }
  row.token_ids = call.in_as<int32_t>(3);
  row.weights = call.in_as<float>(4);
  row.coefficients = call.in_as<float>(5);
  row.old_logprobs = call.in_as<float>(6);
  row.advantages = call.in_as<float>(7);
  for (int i = 0; i < kDistillOutputs; i++) row.out[i] = call.out_as<float>(i);
  if (options.gradient) row.dlogits = logits_of(call.out(kDistillOutputs));
  row.v = int(call.in(0).shape[1]);
  row.top_k = !options.tail && options.top_k == row.v ? 0 : int(options.top_k);
  row.credit = options.credit;
  row.divergence = divergence_of(options);
  row.temperature = float(options.temperature);
  row.scale = float(kLog2e / options.temperature);
  row.alpha = float(options.alpha);
  row.teacher_rate = float(options.teacher_rate);
  row.is_clip = std::isnan(options.is_clip) ? INFINITY : float(options.is_clip);
  row.advantage_clip = std::isnan(options.advantage_clip) ? INFINITY : float(options.advantage_clip);
  return row;
}

template <Kind kind>
void launch_kind(const GpuCall& call, const DistillCall& row, int64_t n) {
  const bool narrow =
      row.student.is_bf16 && row.teacher.is_bf16 && (!row.initial.data || row.initial.is_bf16);
  const uint64_t group_bytes = kGroup * (narrow ? 2 : 4) * (row.initial.data ? 3 : 2);
  const uint64_t extra = resident_extra_bytes(kind);
  const RowPlan plan = plan_rows(call.properties(), row.v, group_bytes, extra);
  if (!plan.blocks || (row.top_k && kind != Kind::Tail)) return launch_parts<kind>(call, row, n);
  const uint64_t bytes = plan.groups * group_bytes + extra;
  if (narrow)
    launch_resident<bf16, kind>(call, row, n, plan, bytes);
  else
    launch_resident<float, kind>(call, row, n, plan, bytes);
}

void launch_distill_loss(const GpuCall& call) {
  const int64_t n = call.in(0).shape[0], v = call.in(0).shape[1];
  const DistillOptions options(call.attributes(), v);
  check_distill_inputs(options, &call.in(0), call.flag(kDistillAttributes));
  const DistillCall row = bind(call, options);
  if (n == 0) return;
  if (options.credit != Credit::Logit) return launch_kind<Kind::Token>(call, row, n);
  if (row.top_k && options.tail) return launch_kind<Kind::Tail>(call, row, n);
  switch (row.divergence) {
    case Kind::Forward:
      return launch_kind<Kind::Forward>(call, row, n);
    case Kind::Reverse:
      return launch_kind<Kind::Reverse>(call, row, n);
    case Kind::Clipped:
      return launch_kind<Kind::Clipped>(call, row, n);
    default:
      return launch_kind<Kind::Jsd>(call, row, n);
  }
}

SDPO_KERNEL(distill_loss, launch_distill_loss);

}  // namespace
}  // namespace sdpo
