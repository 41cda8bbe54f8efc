// distill_loss on a GPU (formulas and outputs: distill_loss.cpp). Small rows take one block; on sm_90 larger
// ones take a cluster of up to 8, so that every logit is read once and the gradient written once; elsewhere,
// and where a row exceeds a cluster's shared memory, the row goes in parts (distill_parts.cuh).
// A token id outside the vocabulary makes its row NaN. A row's bits depend on nothing but the row, V, the
// dtypes and whether the device has clusters.
#include "ops/distill_launch.h"
#include "ops/distill_parts.cuh"

namespace sdpo {
namespace {

Kind divergence_of(const DistillOptions& options) {
  if (!std::isnan(options.advantage_clip)) return Kind::Clipped;
  return options.alpha == 0 ? Kind::Forward : options.alpha == 1 ? Kind::Reverse : Kind::Jsd;
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

}  // namespace

DistillCall distill_settings(const DistillOptions& options, int v) {
  DistillCall row{};
  row.v = v;
  row.top_k = !options.tail && options.top_k == v ? 0 : int(options.top_k);
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

void set_distill_logits(DistillCall& rows, const DistillOptions& options, Logits student, Logits teacher,
                        Logits initial) {
  rows.student = student;
  rows.teacher = initial.data && options.teacher_rate == 0 ? initial : teacher;
  const bool mixed = initial.data && options.teacher_rate != 0 && options.teacher_rate != 1;
  rows.initial = mixed ? initial : Logits{};
}

void launch_distill_rows(const GpuCall& call, const DistillOptions& options, const DistillCall& row,
                         int64_t n) {
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

namespace {

void launch_distill_loss(const GpuCall& call) {
  const int64_t n = call.in(0).shape[0], v = call.in(0).shape[1];
  const DistillOptions options(call.attributes(), v);
  check_distill_inputs(options, call.inputs(), call.flag(kDistillAttributes));
  DistillCall rows = distill_settings(options, int(v));
  set_distill_logits(rows, options, logits_of(call.in(0)), logits_of(call.in(1)), logits_of(call.in(2)));
  if (options.gradient) rows.dlogits = logits_of(call.out(kDistillOutputs));
  rows.token_ids = call.in_as<int32_t>(3);
  rows.weights = call.in_as<float>(4);
  rows.coefficients = call.in_as<float>(5);
  rows.old_logprobs = call.in_as<float>(6);
  rows.advantages = call.in_as<float>(7);
  for (int i = 0; i < kDistillOutputs; i++) rows.out[i] = call.out_as<float>(i);
  launch_distill_rows(call, options, rows, n);
}

SDPO_KERNEL(distill_loss, launch_distill_loss);

}  // namespace
}  // namespace sdpo
