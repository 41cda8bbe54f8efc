// The row kernel of distill_loss and linear_distill_loss, and what both declare.
#pragma once
#include "ops/loss_support.h"
#include "ops/schema.h"

namespace sdpo {

enum class Credit : int32_t { Logit, Token, Sequence };

struct DistillOptions {
  Credit credit;
  double alpha;
  int64_t top_k;  // 0: the whole vocabulary
  bool tail;
  double is_clip, advantage_clip, teacher_rate;  // NaN: none
  double temperature;
  bool gradient;

  // Attributes in the order of distill_attributes.
  explicit DistillOptions(const double* attributes, int64_t v);
};

// The outputs that are one number a row, in the order of distill_outputs.
enum DistillOutput {
  kTokenLoss,
  kStudentLogprobs,
  kTeacherLogprobs,
  kStudentLse,
  kTeacherLse,
  kEntropy,
  kKl,
  kRatio,
  kStudentTopkMass,
  kTeacherTopkMass,
  kDistillOutputs
};

// Pointers to the first of some rows; optional ones may be null.
struct DistillRows {
  int64_t rows;
  LogitMatrix student, teacher, initial, dlogits;
  const int32_t* token_ids;
  const float *weights, *coefficients, *old_logprobs, *advantages;
  float* out[kDistillOutputs];
};

uint64_t distill_slot_bytes(int64_t v, const DistillOptions& options);
void distill_rows(const DistillRows& rows, const DistillOptions& options, void* scratch,
                  uint64_t scratch_bytes);

void distill_attributes(OpSchema& op);
void distill_outputs(OpSchema& op);
constexpr int kDistillAttributes = 9;

}  // namespace sdpo
