// The launcher of distill_loss's row kernels, for its op and for linear_distill_loss.
#pragma once
#include "ops/distill_pair.cuh"

namespace sdpo {

// What follows from the options; no pointers yet.
DistillCall distill_settings(const DistillOptions& options, int v);
// Which logits are read: with a teacher_rate of 0 or 1 only one of the two teachers.
void set_distill_logits(DistillCall& rows, const DistillOptions& options, Logits student, Logits teacher,
                        Logits initial);
// call: for its stream, device and scratch (distill_parts_bytes).
void launch_distill_rows(const GpuCall& call, const DistillOptions& options, const DistillCall& rows,
                         int64_t n);

}  // namespace sdpo
