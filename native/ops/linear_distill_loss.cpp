// distill_loss of the logits hidden head^T of student and teacher, in chunks (linear_loss.h), with d_hidden
// [N,D] and d_head [V,D] of the student. The models' hidden sizes D, E, F may differ.
#include "ops/distill_loss.h"
#include "ops/linear_loss.h"

namespace sdpo {
namespace {

enum Input { kIds = 6, kWeights, kCoefficients, kOld, kAdvantages, kDHead };

DistillRows rows_of(const Call& call) {
  DistillRows rows{};
  rows.token_ids = call.in_as<int32_t>(kIds);
  rows.weights = call.in_as<float>(kWeights);
  rows.coefficients = call.in_as<float>(kCoefficients);
  rows.old_logprobs = call.in_as<float>(kOld);
  rows.advantages = call.in_as<float>(kAdvantages);
  for (int i = 0; i < kDistillOutputs; i++) rows.out[i] = call.out_as<float>(i);
  return rows;
}

DistillRows from_row(DistillRows rows, int64_t begin, int64_t count) {
  rows.rows = count;
  rows.token_ids += begin;
  rows.weights += begin;
  rows.coefficients += begin;
  if (rows.old_logprobs) rows.old_logprobs += begin;
  if (rows.advantages) rows.advantages += begin;
  for (float*& out : rows.out) out += begin;
  return rows;
}

void linear_distill_loss(const Call& call) {
  LinearLoss job;
  job.rows = call.in(0).shape[0];
  job.v = call.in(1).shape[0];
  const DistillOptions options(call.attributes(), job.v);
  check_linear_distill(options, &call.in(0));
  for (int m = 0; m < LinearLoss::kModels; m++)
    if (call.has_in(2 * m)) job.models[m] = LinearModel::of(call.in(2 * m), call.in(2 * m + 1));
  const DistillRows all = rows_of(call);
  check_token_ids(all.token_ids, job.rows, job.v);
  job.weights = all.weights;
  job.coefficients = all.coefficients;
  job.accumulate = call.has_in(kDHead);
  job.d_hidden = call.out_as<float>(kDistillOutputs);
  job.d_head = call.out_as<float>(kDistillOutputs + 1);
  linear_chunks(job, chunk_rows(call.integer(kDistillAttributes), job.rows, job.v), call.scratch(),
                call.scratch_bytes(),
                [&](int64_t begin, int64_t count, LogitMatrix* logits, void* scratch, uint64_t bytes) {
                  DistillRows rows = from_row(all, begin, count);
                  rows.student = logits[0];
                  rows.teacher = logits[1];
                  rows.initial = logits[2];
                  if (options.gradient) rows.dlogits = logits[0];
                  distill_rows(rows, options, scratch, bytes);
                });
}

SDPO_OP(linear_distill_loss)
    .input("student_hidden", "f32", "N,D")
    .input("student_head", "f32|bf16", "V,D")
    .input("teacher_hidden", "f32", "N,E")
    .input("teacher_head", "f32|bf16", "V,E")
    .input("initial_teacher_hidden?", "f32", "N,F")
    .input("initial_teacher_head?", "f32|bf16", "V,F")
    .input("token_ids", "i32", "N")
    .input("weights", "f32", "N")
    .input("coefficients", "f32", "N")
    .input("old_logprobs?", "f32", "N")
    .input("advantages?", "f32", "N")
    .input("d_head?", "f32", "V,D")
    .with(distill_outputs)
    .with(linear_gradient_outputs)
    .with(distill_attributes)
    .with(linear_chunk_attribute)
    .scratch([](const Dims& dims, const double* a) {
      const int64_t v = dims.at("V"), chunk = chunk_rows(int64_t(a[kDistillAttributes]), dims.at("N"), v);
      const int models = dims.count("F") ? 3 : 2;
      return linear_scratch_bytes(chunk, v, models, distill_slot_bytes(v, DistillOptions(a, v)));
    })
    .device_scratch([](const Dims& dims, const double* a, const std::vector<Tensor>& inputs) {
      return linear_device_bytes(int64_t(a[kDistillAttributes]), dims, inputs, 3, distill_parts_bytes);
    })
    .cpu<linear_distill_loss>();

}  // namespace
}  // namespace sdpo
